"""How long one decision takes, by the size of the fleet: one thread, a busy fleet in its steady state."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from noodle_ray.entry.bench.placement_processes import alone
from noodle_ray.entry.bench.report import Row
from noodle_ray.entry.bench.timing import percentile
from noodle_ray.errors import DoesNotFit, NotFound
from noodle_ray.placement import kernels, valuation
from noodle_ray.placement.planner import Planner
from noodle_ray.placement.policies import DEFAULT_POLICY
from noodle_ray.placement.request import Request
from noodle_ray.placement.valuation import Ask
from noodle_ray.placement.workload import Workload
from noodle_ray.replay.fleet import demands_of
from noodle_ray.replay.large_fleet import FilledNode, empty_pool, fill, filled_nodes
from noodle_ray.replay.traces import find_traces, read_nodes, read_pods
from noodle_ray.resources import Demand

SIZES = (1_000, 3_000, 10_000, 30_000, 100_000)
NUMPY_SIZES = (1_000, 10_000)
ANEW_SIZE = 10_000
DECISIONS, ANEW_DECISIONS, WARM_UP = 2_000, 100, 2_000
SEED = 1_000_000

P99_GOALS_MS = {10_000: 1.0, 100_000: 5.0}
MEMORY_GOAL_MB = 300.0
COMPILED, NUMPY, ANEW = "machine code", "numpy", "numpy, every node anew"

Context = dict[str, str | int | float]


@dataclass(frozen=True, slots=True)
class Size:
    """One measurement: on so many nodes of a trace."""

    directory: Path
    trace: str
    nodes: int


def measure(directory: Path, trace: str, progress: Callable[[str], None]) -> list[Row]:
    """Times decisions on fleets of 1,000 to 100,000 nodes, each in a process of its own.

    Raises NotFound where the directory or the trace is unknown.
    """
    known = find_traces(directory).pods
    if trace not in known:
        raise NotFound("trace", trace, sorted(known))
    rows: list[Row] = []
    for nodes in SIZES:
        progress(f"{nodes:,} nodes")
        rows += alone(measure_size, Size(directory, trace, nodes))
    return [*rows, *growth(rows)]


def measure_size(size: Size) -> list[Row]:
    """The rows for one size; machine code must be warm."""
    found = find_traces(size.directory)
    pods = read_pods(found.pods[size.trace])
    nodes = filled_nodes(read_nodes(found.nodes_file), pods, size.nodes, SEED)
    steady = _Steady(nodes, demands_of(pods))
    rows = list(steady.compiled_rows())
    if size.nodes in NUMPY_SIZES:
        rows += steady.numpy_rows()
    if size.nodes == ANEW_SIZE:
        rows += steady.anew_rows()
    return rows


class _Steady:
    """A full fleet on which demands arrive, and for each that is placed a random earlier one leaves."""

    def __init__(self, nodes: Sequence[FilledNode], demands: Sequence[Demand]) -> None:
        self._random = np.random.default_rng(SEED)
        self._demands = demands
        before = _memory_mb()
        self._pool = empty_pool(nodes)
        self._planner = Planner(self._pool, Workload.of(demands), SEED)
        self._keys: list[str] = []
        self._count = len(nodes)
        self._times(self._decide, WARM_UP)
        self._empty_mb = _memory_mb() - before
        self._keys = fill(self._pool, nodes)
        self._times(self._decide, WARM_UP)
        self._full_mb = _memory_mb() - before

    # -- rows

    def compiled_rows(self) -> Iterator[Row]:
        yield from self._rows("decision_ms", COMPILED, self._times(self._decide, DECISIONS))
        yield from self._rows("choose_ms", COMPILED, self._times(self._choose, DECISIONS))
        yield self._memory_row(self._empty_mb, 0, MEMORY_GOAL_MB)
        yield self._memory_row(self._full_mb, len(self._keys), None)

    def numpy_rows(self) -> Iterator[Row]:
        kernels.cool()
        yield from self._rows("decision_ms", NUMPY, self._times(self._decide, DECISIONS))

    def anew_rows(self) -> Iterator[Row]:
        yield from self._rows("choose_ms", ANEW, self._times(self._choose_anew, ANEW_DECISIONS))

    def _rows(self, metric: str, path: str, taken: list[float]) -> Iterator[Row]:
        for percent in (50, 99):
            is_promised = metric == "decision_ms" and path == COMPILED and percent == 99
            yield Row(
                metric=f"{metric}_p{percent}",
                value=percentile(taken, percent),
                unit="ms",
                goal=P99_GOALS_MS.get(self._count) if is_promised else None,
                context={"nodes": self._count, "policy": DEFAULT_POLICY, "path": path, "decisions": len(taken)},
            )

    def _memory_row(self, value: float, held: int, goal: float | None) -> Row:
        context: Context = {"nodes": self._count, "allocations": held}
        is_promised = self._count == SIZES[-1]
        return Row(
            metric="fleet_memory_mb", value=value, unit="MB", goal=goal if is_promised else None, context=context
        )

    # -- one decision

    def _times(self, decide: Callable[[Demand, str], str | None], count: int) -> list[float]:
        """Milliseconds of each decision, which gives the node; the departure that follows is not counted."""
        taken = []
        for _ in range(count):
            demand = self._demands[int(self._random.integers(len(self._demands)))]
            key = f"new-{self._random.integers(2**62)}"
            start = time.perf_counter()
            node_id = decide(demand, key)
            taken.append((time.perf_counter() - start) * 1000)
            if node_id is not None:
                self._replace_one(key, node_id, demand)
        return taken

    def _replace_one(self, key: str, node_id: str, demand: Demand) -> None:
        """The new one is held and a random one leaves, so that what is held stays as it is."""
        if not self._pool.holds(key):
            self._pool.allocate(key, [(node_id, demand)])
        if not self._keys:
            self._pool.deallocate(key)
            return
        place = int(self._random.integers(len(self._keys)))
        self._pool.deallocate(self._keys[place])
        self._keys[place] = key

    def _decide(self, demand: Demand, key: str) -> str | None:
        """A decision with its reasons, and the booking."""
        try:
            bundle = self._planner.plan(Request.of(demand)).bundles[0]
        except DoesNotFit:
            return None
        self._pool.allocate(key, [(bundle.node_id, demand)])
        return bundle.node_id

    def _choose(self, demand: Demand, key: str) -> str | None:
        """The best node alone."""
        row = self._planner.chooser.choose(demand)
        return None if row is None else self._pool.columns.ids[row]

    def _choose_anew(self, demand: Demand, key: str) -> str | None:
        """The same by scoring every node, as one does without keeping scores."""
        columns, prices = self._pool.columns, self._planner.chooser.board(DEFAULT_POLICY).prices
        scores = valuation.scores(prices, columns, np.arange(len(columns)), Ask.of(demand))
        none, kinds = np.zeros(len(columns.kinds), np.int64), self._pool.kind_matches(demand)
        rows = kernels.best_rows(scores, columns, none, 0, kinds, None, 1)
        return columns.ids[rows[0]] if len(rows) else None


def _memory_mb() -> float:
    return float(psutil.Process().memory_info().rss) / 1e6


def growth(rows: Sequence[Row]) -> Iterator[Row]:
    """By which power of the number of nodes the time grows: the slope of logarithms."""
    for metric in ("decision_ms_p50", "decision_ms_p99", "choose_ms_p50", "choose_ms_p99"):
        points = [
            (int(row.context["nodes"]), row.value)
            for row in rows
            if row.metric == metric and row.context["path"] == COMPILED and row.value
        ]
        if len(points) > 1:
            nodes, values = np.log(np.array(points, np.float64)).T
            context: Context = {"of": metric, "from": points[0][0], "to": points[-1][0], "path": COMPILED}
            slope = float(np.polyfit(nodes, values, 1)[0])
            yield Row(metric="growth_exponent", value=slope, unit="", context=context)
