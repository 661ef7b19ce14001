"""A refusal: why a request cannot be placed, and what would help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from noodle_ray.placement.columns import Bools
from noodle_ray.placement.ledger import ResourcePool
from noodle_ray.placement.request import Request
from noodle_ray.resources import Demand


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a demand cannot be placed: on how many nodes each condition fails, and the best that any of them has."""

    demand: str
    nodes: int
    failed_on: Mapping[str, int]
    best: Mapping[str, str]
    never: bool

    def __str__(self) -> str:
        help_ = "no node would fit it even when empty" if self.never else "it would fit once something is released"
        return f"cannot place {self.demand}: {self.reasons}; {help_}"

    @property
    def reasons(self) -> str:
        """The conditions with their counts, the most frequent first."""
        reasons = [
            f"{name} fails on {count} of {self.nodes}" + (f" (best: {self.best[name]})" if name in self.best else "")
            for name, count in sorted(self.failed_on.items(), key=lambda item: (-item[1], item[0]))
        ]
        return ", ".join(reasons) or "there is no node"


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
        rows = np.flatnonzero(column)
        if not rows.size:
            continue
        if name in ("gpus", "gpu_share"):
            strength = (pool.gpu_free >= demand.gpu_units).sum(axis=1) * 10**6 + pool.gpu_free.max(axis=1, initial=0)
        elif name in pool.dimensions:
            strength = pool.free(name)
        else:
            continue
        row = int(rows[np.argmax(strength[rows])])
        best[name] = next(s.available for s in pool.shortfalls(pool.node_ids[row], demand) if s.dimension == name)
    return best
