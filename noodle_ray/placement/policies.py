"""Placement policies: what makes one node a better home for a demand than another."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from noodle_ray.errors import NotFound
from noodle_ray.placement.ledger import ResourcePool, amounts_of
from noodle_ray.resources import UNITS, Demand

Floats = npt.NDArray[np.float64]
Parts = Mapping[str, Floats]
Policy = Callable[[ResourcePool, Demand, np.random.Generator], Parts]
"""The fleet as columns and a demand in, named penalties out, one number a node: the score is minus their sum.

Nodes on which the demand does not fit may get any value; they are not looked at.
"""


def leftovers(pool: ResourcePool, demand: Demand) -> dict[str, Floats]:
    """For each dimension that the demand asks for: the share of the node that would be left free, 0 to 1."""
    left: dict[str, Floats] = {
        dimension: (pool.free(dimension) - wanted) / np.maximum(pool.total(dimension), 1)
        for dimension, wanted in amounts_of(demand).items()
    }
    if demand.gpu_share is not None:
        fitting = np.where(pool.gpu_free >= demand.gpu_units, pool.gpu_free, 2 * UNITS)
        tightest = fitting.min(axis=1, initial=2 * UNITS)
        left["gpu_share"] = np.asarray((tightest - demand.gpu_units) / UNITS, np.float64)
    elif demand.gpus:
        whole = (pool.gpu_free >= UNITS).sum(axis=1)
        left["gpus"] = (whole - demand.gpus) / np.maximum((pool.gpu_total > 0).sum(axis=1), 1)
    return left


def best_fit(pool: ResourcePool, demand: Demand, random: np.random.Generator) -> Parts:
    """Leaves as little as possible free beside the demand, and keeps work without GPUs off nodes that have some."""
    left = leftovers(pool, demand)
    parts = {dimension: share / len(left) for dimension, share in left.items()}
    if not demand.gpu_count:
        parts["gpu left idle"] = np.asarray((pool.gpu_total > 0).any(axis=1), np.float64)
    return parts


def spread(pool: ResourcePool, demand: Demand, random: np.random.Generator) -> Parts:
    """Evens the load out: the node with the most left free is best."""
    left = leftovers(pool, demand)
    return {dimension: (1.0 - share) / len(left) for dimension, share in left.items()}


def any_node(pool: ResourcePool, demand: Demand, random: np.random.Generator) -> Parts:
    """Any node on which the demand fits: the baseline that others are measured against."""
    return {"draw": random.random(len(pool.node_ids))}


DEFAULT_POLICY = "best-fit"
POLICIES: dict[str, Policy] = {DEFAULT_POLICY: best_fit, "spread": spread, "random": any_node}


def policy_named(name: str) -> Policy:
    """The policy of that name. Raises NotFound that lists the known ones."""
    if name not in POLICIES:
        raise NotFound("policy", name, sorted(POLICIES))
    return POLICIES[name]


def calculate_fit_score(
    pool: ResourcePool, node_id: str, demand: Demand, policy: str = DEFAULT_POLICY, seed: int = 0
) -> tuple[float, dict[str, float]]:
    """One node's score (higher is better) and its parts. Raises NotFound."""
    if node_id not in pool.node_ids:
        raise NotFound("node", node_id)
    row = pool.node_ids.index(node_id)
    parts = policy_named(policy)(pool, demand, np.random.default_rng(seed))
    chosen = {name: float(column[row]) for name, column in parts.items()}
    return -sum(chosen.values()), chosen
