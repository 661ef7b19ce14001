"""Earmarking: which nodes to keep for a request that waits too long, because it will fit there soonest."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from noodle_ray.errors import DoesNotFit
from noodle_ray.placement.lack import lack
from noodle_ray.placement.ledger import ResourcePool
from noodle_ray.placement.planner import Decision, Planner
from noodle_ray.placement.request import Request
from noodle_ray.placement.waiting import PATIENCE_S, Turn

EMPTY_POLICY = "best-fit"
"""The policy under which a request is tried on empty nodes: any would do, this one needs no prices."""

EmptyFleet = Callable[[Sequence[str]], ResourcePool]
"""Gives a ledger of these nodes as they would be with nothing of ours on them."""


class Earmark:
    """The nodes that are kept for the first in the queue, once it has waited longer than its patience."""

    def __init__(self, pool: ResourcePool, emptied: EmptyFleet) -> None:
        self._pool = pool
        self._emptied = emptied
        self._kept_for: str | None = None

    def follow(self, first: Turn, request: Request, now: float) -> bool:
        """Keeps nodes for whoever is first now. Says whether others may have some back that were kept before."""
        lifted = False if self._is_good_for(first) else self.lift_any()
        if self._kept_for is None and now - first.since >= PATIENCE_S:
            nodes = choose_nodes(request, self._pool, self._emptied)
            if nodes:
                self._pool.earmark(nodes, first.allocation_id)
                self._kept_for = first.allocation_id
        return lifted

    def _is_good_for(self, first: Turn) -> bool:
        """Whether nodes are kept for it, and all of them still take work."""
        if self._kept_for != first.allocation_id:
            return False
        columns = self._pool.columns
        kept = self._kept_nodes()
        return bool(kept) and all(columns.open[columns.row[node]] for node in kept)

    def _kept_nodes(self) -> list[str]:
        return sorted(node for node, owner in self._pool.earmarks.items() if owner == self._kept_for)

    def lift(self, allocation_id: str) -> bool:
        """Keeps nothing for this one any more. Says whether something was kept for it."""
        return self._kept_for == allocation_id and self.lift_any()

    def lift_any(self) -> bool:
        """Keeps nothing for anybody any more. Says whether something was kept."""
        if self._kept_for is None:
            return False
        self._pool.earmark(self._kept_nodes(), None)
        self._kept_for = None
        return True


def choose_nodes(request: Request, pool: ResourcePool, emptied: EmptyFleet) -> tuple[str, ...]:
    """The nodes on which least must be released before the request fits; () where it fits none even when empty.

    Nodes are taken in the order of what they lack now, as few as the request fits on when they are empty.
    """
    ranked = _open_nodes_by_lack(request, pool)
    count = _fewest(lambda count: _fits(request, emptied(ranked[:count])) is not None, len(ranked))
    decision = _fits(request, emptied(ranked[:count])) if count else None
    return tuple(dict.fromkeys(bundle.node_id for bundle in decision.bundles)) if decision else ()


def _open_nodes_by_lack(request: Request, pool: ResourcePool) -> list[str]:
    demands = {str(demand): demand for demand in request.bundles}.values()
    lacking = np.max([lack(demand, pool) for demand in demands], axis=0)
    is_open = pool.columns.open
    rows = [row for row in range(len(pool.node_ids)) if is_open[row]]
    ids = pool.node_ids
    return [ids[row] for row in sorted(rows, key=lambda row: (lacking[row], ids[row]))]


def _fewest(enough: Callable[[int], bool], most: int) -> int:
    """The smallest count that is enough, where more never hurts; 0 where even all are not."""
    high = 1
    while high < most and not enough(high):
        high *= 2
    high = min(high, most)
    if not high or not enough(high):
        return 0
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _fits(request: Request, pool: ResourcePool) -> Decision | None:
    try:
        return Planner(pool).plan(request, EMPTY_POLICY)
    except DoesNotFit:
        return None


def fits_when_empty(request: Request, pool: ResourcePool) -> bool:
    """Whether the request fits a ledger on which nothing is held."""
    return _fits(request, pool) is not None
