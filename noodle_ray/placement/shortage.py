"""Shortage: what a demand that fits nowhere is short of, and where it comes nearest."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from noodle_ray.placement.columns import Bools, Ints
from noodle_ray.placement.ledger import ResourcePool
from noodle_ray.placement.refusal import Refusal
from noodle_ray.placement.request import Request
from noodle_ray.resources import Demand


def refuse(pool: ResourcePool, request: Request, demand: Demand, failed: Mapping[str, Bools]) -> Refusal:
    """The refusal of a request because of one of its demands; `failed`: for each condition on which nodes it fails."""
    impossible = pool.failures(demand, empty=True)
    nobody = np.zeros(len(pool.columns), np.bool_)
    never = bool(np.logical_or.reduce([*impossible.values(), nobody]).all())
    return Refusal(
        demand=str(request),
        nodes=len(pool.columns),
        failed_on={name: int(column.sum()) for name, column in failed.items() if column.any()},
        best=_best_available(pool, demand, failed),
        never=never,
    )


def _best_available(pool: ResourcePool, demand: Demand, failed: Mapping[str, Bools]) -> dict[str, str]:
    """For each failing amount, the most that any one node could give now."""
    best = {}
    for name, column in failed.items():
        strength = _strength(pool, name)
        if strength is None or not column.any():
            continue
        row = int(np.where(column, strength, -1).argmax())
        best[name] = next(s.available for s in pool.shortfalls(pool.columns.ids[row], demand) if s.dimension == name)
    return best


def _strength(pool: ResourcePool, name: str) -> Ints | None:
    """How much each node has of an amount; None for a condition that is no amount."""
    if name == "gpus":
        return pool.columns.vector("gpu_whole")
    if name == "gpu_share":
        return pool.columns.vector("gpu_largest")
    return pool.free(name) if name in pool.dimensions else None
