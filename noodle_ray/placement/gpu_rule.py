"""Ray's rule for GPU indices: which of a node's GPUs a bundle gets when Ray prepares it.

Source: `NodeResourceInstanceSet::TryAllocate` in Ray's `src/ray/common/scheduling/resource_instance_set.cc`: whole
GPUs are the lowest free indices, not necessarily neighbours; a share goes to the GPU that is left with the least, the
lowest index where several are. The pick is made when the bundle is prepared, not at its first use.
"""

from __future__ import annotations

import numpy as np

from noodle_ray.placement.columns import Ints
from noodle_ray.resources import UNITS, Demand


def pick(free: Ints, demand: Demand) -> tuple[int, ...]:
    """The indices for the demand among one node's free units by index; empty where it does not fit, or wants none."""
    if not demand.gpu_count:
        return ()
    if demand.gpu_share is None:
        whole = np.flatnonzero(free >= UNITS)[: demand.gpus]
        return tuple(int(index) for index in whole) if len(whole) == demand.gpus else ()
    index = tightest(free, demand.gpu_units)
    return () if index is None else (index,)


def tightest(free: Ints, units: int) -> int | None:
    """The fullest GPU that the share fits on; the lowest index where several are; None where there is none."""
    fitting = np.flatnonzero(free >= units)
    return int(fitting[np.argmin(free[fitting])]) if fitting.size else None


def lay_out(free: Ints, units: int) -> Ints:
    """A sum of units as Ray lays it onto one node's GPUs: whole ones first, the rest on the fullest that fits."""
    used = np.zeros_like(free)
    for index in np.flatnonzero(free >= UNITS)[: units // UNITS]:
        used[index] = UNITS
    rest = units - int(used.sum())
    if rest <= 0:
        return used
    index = tightest(free - used, rest)
    if index is None:
        return np.minimum(free, used + rest)  # more small pieces than one GPU holds: count them everywhere they may be
    used[index] += rest
    return used
