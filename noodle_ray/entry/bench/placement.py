"""The replay of public traces under several policies, over many seeds, beside published results and the bound."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from noodle_ray.entry.bench.placement_processes import each
from noodle_ray.errors import NotFound
from noodle_ray.replay.bound import allocation_bound_percent
from noodle_ray.replay.contenders import contender_named
from noodle_ray.replay.published import Figure, Published, read_published
from noodle_ray.replay.replay import Run, replay
from noodle_ray.replay.traces import (
    WHOLE_GPU_MILLI,
    Pod,
    TraceNode,
    Traces,
    arrivals,
    find_traces,
    read_nodes,
    read_pods,
)

Curves = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Contest:
    """What is to be run. `at`: levels of arrived GPU in % of capacity; `shuffled`: node names and order, by seed."""

    directory: Path
    traces: tuple[str, ...]
    policies: tuple[str, ...]
    seeds: tuple[int, ...]
    at: tuple[int, ...]
    shuffled: bool = True


def contest_of(
    directory: Path,
    traces: Sequence[str],
    policies: Sequence[str],
    seeds: Sequence[int],
    at: Sequence[int],
    shuffled: bool = True,
) -> Contest:
    """A contest on some of a directory's traces, or, where none is named, on all.

    Raises NotFound for the directory, a trace or a policy that is unknown, InvalidInput where files are ambiguous.
    """
    known = find_traces(directory).pods
    for name in traces:
        if name not in known:
            raise NotFound("trace", name, sorted(known))
    for name in policies:
        contender_named(name)
    return Contest(directory, tuple(traces) or tuple(known), tuple(policies), tuple(seeds), tuple(at), shuffled)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a contest: runs by trace and policy, in the order of the seeds; bounds by trace and level, in %."""

    contest: Contest
    runs: Mapping[tuple[str, str], Sequence[Run]]
    bounds: Mapping[tuple[str, int], float]
    published: Published

    def curves(self, trace: str, policy: str) -> Curves:
        """GPU allocation in %, seeds x levels."""
        return np.array([run.allocated_percent for run in self.runs[trace, policy]])

    def figure(self, trace: str, policy: str, at: int) -> Figure:
        """Mean and spread over the seeds at one level."""
        return figure_of(self.curves(trace, policy)[:, at])

    def moved_percent(self, trace: str, policy: str) -> float:
        """Moves for each 100 pods that arrived, mean over the seeds."""
        return float(np.mean([run.moved_percent for run in self.runs[trace, policy]]))


def figure_of(values: Curves) -> Figure:
    """Mean and standard deviation of the sample."""
    deviation = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return Figure(float(values.mean()), deviation, len(values))


@dataclass(frozen=True, slots=True)
class _Trial:
    """One replay."""

    contest: Contest
    trace: str
    policy: str
    seed: int


@dataclass(frozen=True, slots=True)
class _BoundAt:
    """One linear program."""

    contest: Contest
    trace: str
    at: int


def tasks_of(contest: Contest) -> list[_Trial | _BoundAt]:
    """All that a contest has to compute: independent of each other."""
    bounds = [_BoundAt(contest, trace, at) for trace in contest.traces for at in contest.at]
    trials = [
        _Trial(contest, trace, policy, seed)
        for trace in contest.traces
        for policy in contest.policies
        for seed in contest.seeds
    ]
    return [*bounds, *trials]


def measure(contest: Contest, jobs: int, advance: Callable[[], None]) -> Outcome:
    """Runs a contest in up to `jobs` processes, whose number changes no figure. Raises InvalidInput for bad files."""
    tasks = tasks_of(contest)
    results = dict(zip(tasks, each(_result, tasks, jobs, advance), strict=True))
    runs: dict[tuple[str, str], list[Run]] = {}
    bounds: dict[tuple[str, int], float] = {}
    for task, result in results.items():
        if isinstance(task, _Trial) and isinstance(result, Run):
            runs.setdefault((task.trace, task.policy), []).append(result)
        elif isinstance(task, _BoundAt) and isinstance(result, float):
            bounds[task.trace, task.at] = result
    return Outcome(contest, runs, bounds, _published(contest.directory))


def _result(task: _Trial | _BoundAt) -> Run | float:
    """Runs in a process of its own, so that tasks carry paths and not thousands of pods."""
    nodes, pods = _read(task.contest.directory, task.trace)
    if isinstance(task, _BoundAt):
        return allocation_bound_percent(nodes, pods, task.at)
    order = arrivals(pods, WHOLE_GPU_MILLI * sum(node.gpus for node in nodes), task.seed)
    return replay(nodes, pods, order, task.policy, task.seed, task.contest.shuffled)


@lru_cache(maxsize=2)
def _read(directory: Path, trace: str) -> tuple[list[TraceNode], list[Pod]]:
    found: Traces = find_traces(directory)
    return read_nodes(found.nodes_file), read_pods(found.pods[trace])


def _published(directory: Path) -> Published:
    """Published results in the directory, or in the folder beside it that the public traces have them in."""
    below = read_published(directory)
    return below if below.runs else read_published(directory.resolve().parent / "fgd_expected")
