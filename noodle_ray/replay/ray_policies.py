"""Ray's own policies: how Ray chooses a node, as documented and as its source has it, to be measured against.

They are modelled generously: only nodes where the demand really fits, a share on one GPU, are candidates. Ray compares
the sum of a node's free GPU only, so that in Ray a share may be sent to a node where no single GPU can take it. Ray's
order of node ids, which are random there, is the order of the rows. Nobody runs on a node of the caller's: its
preference for the local node does not come in.

Sources: docs.ray.io, "Scheduling"; Ray's `src/ray/raylet/scheduling/policy/`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from noodle_ray.placement.columns import CPUS, MEMORY
from noodle_ray.placement.ledger import amounts_of
from noodle_ray.placement.policies import Floats, View
from noodle_ray.resources import Demand

Rule = Callable[[View, Demand], int]
"""The row of the node that is chosen, of those in the view: the demand fits on each of them, and there is one."""

SPREAD_THRESHOLD = 0.5
"""RAY_scheduler_spread_threshold: nodes that are used less than this count as unused."""

TOP_K_FRACTION = 0.2
"""RAY_scheduler_top_k_fraction: among how many of all nodes chance decides."""


def hybrid(view: View, demand: Demand) -> int:
    """The default: packs up to a threshold, then takes the least used; picks any of the best fifth of the fleet.

    How much a node is used goes by CPUs and memory alone. Work without GPU avoids nodes that have some, if it can.
    Source: `hybrid_scheduling_policy.cc`, `CalculateCriticalResourceUtilization` in `cluster_resource_data.cc`.
    """
    view = _without_gpus(view) if not demand.gpu_count else view
    used = _critical_utilisation(view)
    best_first = np.argsort(np.where(used < SPREAD_THRESHOLD, 0.0, used), kind="stable")
    candidates = max(int(len(view.pool.columns) * TOP_K_FRACTION), 1)
    return int(view.rows[best_first[view.random.integers(min(candidates, len(best_first)))]])


def _without_gpus(view: View) -> View:
    rows = view.rows[view.gpu_counts == 0]
    return replace(view, rows=rows) if len(rows) else view


def _critical_utilisation(view: View) -> Floats:
    """The used share of what is used most on each node, of CPUs and memory."""
    free_shares = [view.free(name) / np.maximum(view.total(name), 1) for name in (CPUS, MEMORY)]
    present = [view.total(name) > 0 for name in (CPUS, MEMORY)]
    used = [np.where(there, 1.0 - share, 0.0) for there, share in zip(present, free_shares, strict=True)]
    return np.asarray(np.maximum(*used), np.float64)


class Spread:
    """scheduling_strategy="SPREAD": one node after the other, in the order of their ids.

    Source: `spread_scheduling_policy.cc`.
    """

    def __init__(self) -> None:
        self._next = 0

    def __call__(self, view: View, demand: Demand) -> int:
        place = int(np.searchsorted(view.rows, self._next))
        row = int(view.rows[place % len(view.rows)])
        self._next = (row + 1) % len(view.pool.columns)
        return row


def pack(view: View, demand: Demand) -> int:
    """A placement group of one bundle (PACK): where the largest part of what is free would stay free.

    Its name promises otherwise: the scorer adds (free - wanted) / free over the resources and takes the highest sum.
    Source: `LeastResourceScorer` in `scorer.cc`, `bundle_scheduling_policy.cc`.
    """
    wanted = amounts_of(demand)
    scores = np.zeros(len(view.rows))
    for name, amount in wanted.items():
        scores += (view.free(name) - amount) / view.free(name)
    if demand.gpu_count:
        free = view.gpu_free.sum(axis=1)
        scores += (free - demand.gpu_units * demand.gpu_count) / free
    return int(view.rows[scores.argmax()])


RAY_POLICIES: dict[str, Callable[[], Rule]] = {
    "ray-hybrid": lambda: hybrid,
    "ray-pack": lambda: pack,
    "ray-spread": Spread,
}
"""By name, what makes a new rule for one fleet."""
