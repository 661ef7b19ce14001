"""Fragmentation: the free GPU that a demand drawn from the workload cannot be expected to use.

The measure F of Weng et al., "Beware of Fragmentation" (USENIX ATC 2023): a GPU's free amount counts for a class of
demands where the class fits it and the node has the class's CPUs free; classes weigh what they weigh in the workload.
It is a property of what is free, whether or not the node is open to new work just now.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from noodle_ray.placement.columns import Columns
from noodle_ray.placement.ledger import ResourcePool
from noodle_ray.placement.prices import FGD_WEIGHTS, SCALE, Floats, PriceInputs, Prices, compute
from noodle_ray.placement.valuation import Rooms, values
from noodle_ray.placement.workload import Workload
from noodle_ray.resources import UNITS


def expectation(columns: Columns, workload: Workload) -> Prices:
    """Prices by which a node's `usable` is the GPU that a demand for GPUs can be expected to use there, no more."""
    inputs = PriceInputs.of(columns, workload, FGD_WEIGHTS)
    wanting = [(kind, share) for kind, share in inputs.classes if kind.gpu_count]
    total = sum(share for _, share in wanting)
    return compute(replace(inputs, classes=tuple((kind, share / total) for kind, share in wanting)))


def fragmentation(pool: ResourcePool, workload: Workload) -> float:
    """The expected unusable GPU of the fleet, in GPUs: between 0 and what is free."""
    return float(unusable(pool, workload).sum())


def unusable(pool: ResourcePool, workload: Workload) -> Floats:
    """The same for each node."""
    return _free(pool) - _usable(pool, expectation(pool.columns, workload))


def _free(pool: ResourcePool) -> Floats:
    return np.asarray(pool.gpu_free.sum(axis=1) / UNITS, np.float64)


def _usable(pool: ResourcePool, prices: Prices) -> Floats:
    rooms = Rooms.of(pool.columns, np.arange(len(pool.columns)))
    # The table's entries are rounded one by one: their sum may be a hair more than there is.
    return np.minimum(values(prices, rooms)["usable"] / SCALE, _free(pool))
