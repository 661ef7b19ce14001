"""Gangs: several bundles that are placed together or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from noodle_ray.errors import DoesNotFit
from noodle_ray.placement.allocation import Bundle
from noodle_ray.placement.chooser import Chooser, Limits
from noodle_ray.placement.columns import Bools
from noodle_ray.placement.explanation import Explanation
from noodle_ray.placement.gang_search import find_homes
from noodle_ray.placement.ledger import ResourcePool, amounts_of
from noodle_ray.placement.request import Request
from noodle_ray.resources import Demand

_TRIAL = "\0trial"
"""Starts the id under which a bundle is held while the others look for a home; no real id starts with it."""


def place(chooser: Chooser, request: Request, policy: str, limits: Limits) -> tuple[tuple[Bundle, ...], Explanation]:
    """Homes for all bundles of a request, and why the first is where it is. The pool is as it was afterwards.

    Raises DoesNotFit, NotFound for an unknown policy.
    """
    trial = _Trial(chooser, request, policy, limits)
    try:
        with _put_back(chooser.pool, len(request.bundles)):
            trial.place()
            held = [chooser.pool.bundles(f"{_TRIAL}{number}")[0] for number in range(len(request.bundles))]
    except DoesNotFit as error:
        never = error.refusal.never or _fits_not_even_empty(chooser, request, limits)
        raise DoesNotFit(replace(error.refusal, demand=str(request), never=never)) from None
    assert trial.explanation is not None
    return tuple(held), trial.explanation


@contextmanager
def _put_back(pool: ResourcePool, count: int) -> Iterator[None]:
    try:
        yield
    finally:
        for number in range(count):
            if pool.holds(f"{_TRIAL}{number}"):
                pool.deallocate(f"{_TRIAL}{number}")


def _fits_not_even_empty(chooser: Chooser, request: Request, limits: Limits) -> bool:
    if limits.for_id == _TRIAL:
        return True  # this is the trial on the empty fleet
    try:
        place(chooser.on_empty_fleet(), request, "best-fit", Limits(for_id=_TRIAL))
    except DoesNotFit:
        return True
    return False


class _Trial:
    """One gang on its way into the pool, bundle by bundle, each held under an id of its own meanwhile."""

    def __init__(self, chooser: Chooser, request: Request, policy: str, limits: Limits) -> None:
        self._chooser, self._pool = chooser, chooser.pool
        self._request, self._policy, self._limits = request, policy, limits
        self.explanation: Explanation | None = None

    def place(self) -> None:
        match self._request.strategy:
            case "strict-pack":
                self._place_on_one()
            case "pack":
                self._or_search(self._place_packed)
            case "spread":
                self._or_search(self._place_spread)
            case "strict-spread":
                self._place_strictly_spread()

    def _largest_first(self) -> list[int]:
        def size(number: int) -> tuple[int, int, int]:
            demand = self._request.bundles[number]
            return -demand.gpu_units * demand.gpu_count, -demand.cpu_units, -demand.memory

        return sorted(range(len(self._request.bundles)), key=size)

    # -- all on one node

    def _place_on_one(self) -> None:
        candidates = frozenset(np.array(self._pool.columns.ids, object)[~self._too_small_for_all()])
        largest = self._request.bundles[self._largest_first()[0]]
        while True:
            found = self._chooser.explain(largest, self._policy, replace(self._limits, only=candidates))
            if self._hold_all_on(found.chosen):
                self.explanation = found
                return
            candidates -= {found.chosen}

    def _too_small_for_all(self) -> Bools:
        """Nodes on which one of the bundles does not fit, or the sums do not."""
        unfit = np.zeros(len(self._pool.columns), np.bool_)
        sums: dict[str, int] = {}
        gpu_units = 0
        for demand in self._request.bundles:
            for failed in self._chooser.failures(demand, self._limits).values():
                unfit |= failed
            for dimension, amount in amounts_of(demand).items():
                sums[dimension] = sums.get(dimension, 0) + amount
            gpu_units += demand.gpu_units * demand.gpu_count
        for dimension, amount in sums.items():
            unfit |= self._pool.free(dimension) < amount
        return np.asarray(unfit | (self._pool.gpu_free.sum(axis=1) < gpu_units), np.bool_)

    def _hold_all_on(self, node_id: str) -> bool:
        held: list[str] = []
        for number, demand in enumerate(self._request.bundles):
            if not self._pool.can_allocate(node_id, demand):
                for key in held:
                    self._pool.deallocate(key)
                return False
            self._pool.allocate(f"{_TRIAL}{number}", [(node_id, demand)])
            held.append(f"{_TRIAL}{number}")
        return True

    # -- on several

    def _place_packed(self) -> None:
        try:
            self._place_on_one()
        except DoesNotFit:
            self._place_on_few()

    def _place_on_few(self) -> None:
        used: set[str] = set()
        for number in self._largest_first():
            try:
                found = self._find(number, only=frozenset(used)) if used else self._find(number)
            except DoesNotFit:
                found = self._find(number)
            used.add(self._hold(number, found))

    def _or_search(self, place: Callable[[], None]) -> None:
        """Greed may leave a bundle without a home where another order of homes has one for each."""
        try:
            place()
            self._hold_in_order()
        except DoesNotFit:
            self._take_back()
            fitting = [self._fitting(demand) for demand in self._request.bundles]
            homes = find_homes(self._pool, self._request.bundles, fitting)
            if homes is None:
                raise
            self._hold_on(homes)

    def _hold_in_order(self) -> None:
        """Ray gives out GPUs in the order of the bundles: shares must lie on them in that order too."""
        if any(demand.gpu_share is not None for demand in self._request.bundles):
            homes = [self._pool.bundles(f"{_TRIAL}{number}")[0].node_id for number in range(len(self._request.bundles))]
            self._take_back()
            self._hold_on(homes)

    def _take_back(self) -> None:
        for number in range(len(self._request.bundles)):
            if self._pool.holds(f"{_TRIAL}{number}"):
                self._pool.deallocate(f"{_TRIAL}{number}")

    def _place_spread(self) -> None:
        self._place_each(self._largest_first(), strict=False)

    def _place_each(self, order: Sequence[int], strict: bool) -> None:
        used: set[str] = set()
        for number in order:
            apart = replace(self._limits, taken=frozenset(used))
            try:
                found = self._chooser.explain(self._request.bundles[number], self._policy, apart)
            except DoesNotFit:
                if strict:
                    raise
                found = self._find(number)
            used.add(self._hold(number, found))

    def _place_strictly_spread(self) -> None:
        ids = np.array(self._pool.columns.ids, object)
        fitting = [frozenset(ids[self._fitting(demand)]) for demand in self._request.bundles]
        order = sorted(range(len(fitting)), key=lambda number: (len(fitting[number]), number))
        try:
            self._place_each(order, strict=True)
        except DoesNotFit as error:
            self._place_as_matched(fitting, error)

    def _fitting(self, demand: Demand) -> Bools:
        """The nodes that it fits by itself."""
        failed = [*self._chooser.failures(demand, self._limits).values(), np.zeros(len(self._pool.columns), np.bool_)]
        return np.asarray(~np.logical_or.reduce(failed), np.bool_)

    def _place_as_matched(self, fitting: list[frozenset[str]], error: DoesNotFit) -> None:
        """Greed may take a node that only another bundle could use: a matching finds a way where there is one."""
        import networkx  # a sixth of a second: a manager that is brought back must not wait for it

        self._take_back()
        graph = networkx.Graph([(number, node) for number, nodes in enumerate(fitting) for node in sorted(nodes)])
        graph.add_nodes_from(range(len(fitting)))
        matched = networkx.bipartite.hopcroft_karp_matching(graph, range(len(fitting)))
        if any(number not in matched for number in range(len(fitting))):
            raise error
        self._hold_on([matched[number] for number in range(len(fitting))])

    def _hold_on(self, homes: Sequence[str]) -> None:
        for number, home in enumerate(homes):
            self._hold(number, self._find(number, only=frozenset({home})))

    # -- one bundle

    def _find(self, number: int, only: frozenset[str] | None = None) -> Explanation:
        limits = replace(self._limits, only=only)
        return self._chooser.explain(self._request.bundles[number], self._policy, limits)

    def _hold(self, number: int, found: Explanation) -> str:
        self.explanation = self.explanation or found
        self._pool.allocate(f"{_TRIAL}{number}", [(found.chosen, self._request.bundles[number])])
        return found.chosen
