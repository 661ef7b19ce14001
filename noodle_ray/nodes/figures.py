"""Figures: the fleet in sums, as people and Prometheus read them."""

from __future__ import annotations

from noodle_ray.placement.columns import MEMORY
from noodle_ray.placement.ledger import ResourcePool
from noodle_ray.resources import UNITS

EFFICIENT = 0.9
"""The held part of the scarcest resource below which it is worth a warning that somebody waits."""

Sums = dict[str, dict[str, float]]


def sums(pool: ResourcePool) -> Sums:
    """For each dimension total, held (by allocations), others (used beside us) and free."""
    amounts = {name: (pool.total(name), pool.held(name), pool.free(name)) for name in pool.dimensions}
    amounts["gpus"] = (pool.gpu_total, pool.gpu_held, pool.gpu_free)
    return {
        "memory_bytes" if name == MEMORY else name: _in_a_persons_units(name, *(int(part.sum()) for part in parts))
        for name, parts in amounts.items()
    }


def allocation_ratio(pool: ResourcePool) -> float:
    """Held ÷ total of the scarcest dimension: GPUs where there are any, else CPUs."""
    totals = sums(pool)
    scarce = totals["gpus"] if totals["gpus"]["total"] else totals["cpus"]
    return scarce["held"] / scarce["total"] if scarce["total"] else 0.0


def _in_a_persons_units(dimension: str, total: int, held: int, free: int) -> dict[str, float]:
    """Bytes stay bytes; everything else is counted in whole CPUs, GPUs or custom resources."""
    parts = 1 if dimension == MEMORY else UNITS
    others = max(total - held - free, 0)
    return {"total": total / parts, "held": held / parts, "others": others / parts, "free": free / parts}
