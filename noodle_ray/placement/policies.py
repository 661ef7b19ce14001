"""Placement policies: what makes one node a better home for a demand than another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from noodle_ray.errors import NotFound
from noodle_ray.placement import kernels
from noodle_ray.placement.columns import CPUS, Ints
from noodle_ray.placement.ledger import ResourcePool, amounts_of
from noodle_ray.placement.prices import FGD_WEIGHTS, SCALE, PriceInputs, Prices, Weights, compute
from noodle_ray.placement.valuation import Ask
from noodle_ray.placement.workload import Workload
from noodle_ray.resources import UNITS, Demand

Floats = npt.NDArray[np.float64]
Parts = Mapping[str, npt.NDArray[np.float64] | npt.NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class View:
    """What a policy sees: the fleet as columns, the rows that it is asked about, and a source of chance.

    The demand fits on each of the rows.
    """

    pool: ResourcePool
    rows: Ints
    random: np.random.Generator

    def free(self, dimension: str) -> Ints:
        return self.pool.free(dimension)[self.rows]

    def total(self, dimension: str) -> Ints:
        return self.pool.total(dimension)[self.rows]

    @property
    def gpu_free(self) -> Ints:
        return self.pool.gpu_free[self.rows]

    @property
    def gpu_counts(self) -> Ints:
        return self.pool.columns.vector("gpu_count")[self.rows]


Score = Callable[[View, Demand], Parts]
"""Named penalties out, one number a row: the score is minus their sum."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Either a function of what is free, or weights for the valuation, whose scores are kept (see `scoreboard`)."""

    score: Score | None = None
    weights: Weights | None = None


def leftovers(view: View, demand: Demand) -> dict[str, Floats]:
    """For each dimension that the demand asks for: the share of the node that would be left free, 0 to 1."""
    left: dict[str, Floats] = {
        dimension: (view.free(dimension) - wanted) / np.maximum(view.total(dimension), 1)
        for dimension, wanted in amounts_of(demand).items()
    }
    if demand.gpu_share is not None:
        fitting = np.where(view.gpu_free >= demand.gpu_units, view.gpu_free, 2 * UNITS)
        tightest = fitting.min(axis=1, initial=2 * UNITS)
        left["gpu_share"] = np.asarray((tightest - demand.gpu_units) / UNITS, np.float64)
    elif demand.gpus:
        whole = (view.gpu_free >= UNITS).sum(axis=1)
        left["gpus"] = (whole - demand.gpus) / np.maximum(view.gpu_counts, 1)
    return left


def best_fit(view: View, demand: Demand) -> Parts:
    """Leaves as little as possible free beside the demand, and keeps work without GPUs off nodes that have some."""
    left = leftovers(view, demand)
    parts = {dimension: share / len(left) for dimension, share in left.items()}
    if not demand.gpu_count:
        parts["gpu left idle"] = np.asarray(view.gpu_counts > 0, np.float64)
    return parts


def spread(view: View, demand: Demand) -> Parts:
    """Evens the load out: the node with the most left free is best."""
    left = leftovers(view, demand)
    return {dimension: (1.0 - share) / len(left) for dimension, share in left.items()}


def any_node(view: View, demand: Demand) -> Parts:
    """Any node on which the demand fits: the baseline that others are measured against."""
    return {"draw": view.random.random(len(view.rows))}


def dot_product(view: View, demand: Demand) -> Parts:
    """The node whose free amounts have the smallest dot product with the demand (Tetris; Grandl et al., SIGCOMM 2014).

    Amounts are in parts of the fleet's largest node.
    """
    largest_cpu = max(int(view.pool.total(CPUS).max(initial=1)), 1)
    largest_gpu = max(int(view.pool.gpu_total.sum(axis=1).max(initial=1)), 1)
    cpus = view.free(CPUS) / largest_cpu * (demand.cpu_units / largest_cpu)
    gpus = view.gpu_free.sum(axis=1) / largest_gpu * (demand.gpu_units * demand.gpu_count / largest_gpu)
    return {"cpus": cpus, "gpus": gpus}


def gpu_packing(view: View, demand: Demand) -> Parts:
    """GPUs in use first, then idle GPUs of nodes in use, then idle nodes (MLaaS; Weng et al., NSDI 2022)."""
    free = view.gpu_free
    started = ((free > 0) & (free < UNITS) & (free >= demand.gpu_units)).any(axis=1) & (demand.gpu_share is not None)
    idle_gpus = (free == UNITS).sum(axis=1)
    idle_node = idle_gpus == view.gpu_counts
    tier = np.where(started, 0.0, np.where(idle_node, 2.0, 1.0))
    return {"tier": tier, "idle gpus": idle_gpus / np.maximum(view.gpu_counts.max(initial=1), 1) / 2}


def clustering(view: View, demand: Demand) -> Parts:
    """Beside work that asks for the same GPU (Gandiva; Xiao et al., OSDI 2018), then as `gpu_packing`."""
    alike = view.pool.alike(demand)[view.rows]
    return {"alike": np.asarray(-3.0 * (alike > 0) - alike / 1000.0, np.float64), **gpu_packing(view, demand)}


DEFAULT_POLICY = "noodle"
POLICIES: dict[str, Policy] = {
    "noodle": Policy(weights=Weights()),
    "best-fit": Policy(score=best_fit),
    "clustering": Policy(score=clustering),
    "dot-product": Policy(score=dot_product),
    "fgd": Policy(weights=FGD_WEIGHTS),
    "gpu-packing": Policy(score=gpu_packing),
    "random": Policy(score=any_node),
    "spread": Policy(score=spread),
}


def policy_named(name: str) -> Policy:
    """The policy of that name. Raises NotFound that lists the known ones."""
    if name not in POLICIES:
        raise NotFound("policy", name, sorted(POLICIES))
    return POLICIES[name]


def custom_penalty(pool: ResourcePool, demand: Demand, weights: Weights) -> Ints | None:
    """What the custom resources that stay free beside the demand cost each node; None where it wants none.

    The valuation does not know them: they go where they fit best.
    """
    wanted = {name: units for name, units in demand.custom_units.items() if units}
    if not wanted or not weights.custom_left:
        return None
    left = [(pool.free(name) - units) / np.maximum(pool.total(name), 1) for name, units in sorted(wanted.items())]
    penalty: Ints = np.rint(np.sum(left, axis=0).clip(min=0) * (weights.custom_left * SCALE)).astype(np.int64)
    return penalty


def valued_parts(
    pool: ResourcePool, rows: Ints, demand: Demand, prices: Prices, surcharges: Ints, penalty: Ints | None = None
) -> dict[str, Floats]:
    """The penalties of a policy by valuation, in GPUs, for rows on which the demand fits; `penalty` by all rows."""
    parts, _ = kernels.cost_parts(rows, prices, pool.columns, Ask.of(demand))
    units = demand.gpu_units * demand.gpu_count
    parts["scarcity"] = surcharges[pool.columns.vector("kind")[rows]] * units
    if penalty is not None:
        parts["custom"] = penalty[rows]
    matrix = np.array(list(parts.values()), np.int64)
    return {name: part for name, part in zip(parts, matrix / SCALE, strict=True) if part.any()}


def calculate_fit_score(
    pool: ResourcePool, node_id: str, demand: Demand, policy: str = DEFAULT_POLICY, prices: Prices | None = None
) -> tuple[float, dict[str, float]]:
    """One node's score (higher is better) and its parts; minus infinity and no parts where the demand does not fit.

    `prices`: of a workload, for policies that go by one; by default of an unknown one. Raises NotFound.
    """
    row = pool.columns.require(node_id)
    chosen = policy_named(policy)
    if not pool.can_allocate(node_id, demand):
        return float("-inf"), {}
    rows = np.array([row], np.int64)
    if chosen.weights is None:
        assert chosen.score is not None
        columns: Parts = chosen.score(View(pool, rows, np.random.default_rng(0)), demand)
    else:
        known = prices or compute(PriceInputs.of(pool.columns, Workload(), chosen.weights))
        none = np.zeros(len(pool.columns.kinds), np.int64)
        columns = valued_parts(pool, rows, demand, known, none, custom_penalty(pool, demand, chosen.weights))
    parts = {name: float(column[0]) for name, column in columns.items()}
    return -sum(parts.values()), parts
