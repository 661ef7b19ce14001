"""Lack: how much must be released on each node before a demand fits there."""

from __future__ import annotations

import numpy as np

from noodle_ray.placement.ledger import ResourcePool, amounts_of
from noodle_ray.placement.prices import Floats
from noodle_ray.resources import UNITS, Demand


def lack(demand: Demand, pool: ResourcePool) -> Floats:
    """For each node the largest part of itself, 0 to 1, that is missing in any dimension; rounded, to compare."""
    parts = [
        (wanted - pool.free(dimension)) / np.maximum(pool.total(dimension), 1)
        for dimension, wanted in amounts_of(demand).items()
    ]
    if demand.gpu_share is not None:
        parts.append((demand.gpu_units - pool.columns.vector("gpu_largest")) / UNITS)
    elif demand.gpus:
        missing = demand.gpus - pool.columns.vector("gpu_whole")
        parts.append(missing / np.maximum(pool.columns.vector("gpu_count"), 1))
    largest: Floats = np.round(np.max(parts, axis=0), 9).clip(min=0.0)
    return largest
