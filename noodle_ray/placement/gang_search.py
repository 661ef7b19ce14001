"""Search: a home for each bundle of a gang, where giving each its best home in turn has left one without."""

from __future__ import annotations

from collections.abc import Sequence

from noodle_ray.placement import gpu_rule
from noodle_ray.placement.columns import Bools, Ints
from noodle_ray.placement.ledger import ResourcePool, amounts_of
from noodle_ray.resources import Demand

STEPS = 2_000
"""Bundles that are put somewhere, in vain or not, before the search gives up: some tens of milliseconds."""

BUNDLES_AT_MOST = 100


def find_homes(pool: ResourcePool, demands: Sequence[Demand], fitting: Sequence[Bools]) -> list[str] | None:
    """A node for each demand, in their order, so that all fit together; None where none was found.

    `fitting`: for each demand the nodes that it fits by itself. Depth first, the demand with the fewest homes first;
    of nodes that have the same left one is tried, and of equal demands none is put before the one ahead of it.
    """
    if len(demands) > BUNDLES_AT_MOST:
        return None
    search = _Search(pool, demands, fitting)
    return [pool.columns.ids[row] for row in search.homes] if search.run(0) else None


class _Search:
    def __init__(self, pool: ResourcePool, demands: Sequence[Demand], fitting: Sequence[Bools]) -> None:
        self._demands = demands
        self._rows = [column.nonzero()[0].tolist() for column in fitting]
        self._order = sorted(
            range(len(demands)), key=lambda n: (len(self._rows[n]), _size(demands[n]), str(demands[n]))
        )
        self._names = sorted({name for demand in demands for name in amounts_of(demand)})
        self._amounts = [[amounts_of(demand).get(name, 0) for name in self._names] for demand in demands]
        rows = sorted({row for rows in self._rows for row in rows})
        free = {name: pool.free(name) for name in self._names}
        self._gpus_before = pool.gpu_free
        self._free = {row: [int(free[name][row]) for name in self._names] for row in rows}
        self._gpus: dict[int, Ints] = {row: pool.gpu_free[row].copy() for row in rows}
        self._steps = 0
        self.homes = [0] * len(demands)

    def _rank(self, number: int) -> tuple[object, ...]:
        """Few homes first, then large ones; equal demands come one after another."""
        demand = self._demands[number]
        return len(self._rows[number]), _size(demand), str(demand)

    def run(self, place: int) -> bool:
        """Finds homes for all from this place of the order on."""
        if place == len(self._order):
            return self._fit_in_order()
        number = self._order[place]
        tried = set()
        for row in self._rows[number]:
            if row < self._least_row(place):
                continue
            state = (*self._free[row], *self._gpus[row].tolist())
            if state in tried or self._steps >= STEPS:
                continue
            tried.add(state)
            if self._put(number, row, place):
                return True
        return False

    def _least_row(self, place: int) -> int:
        """Equal demands may change places: only one order of them is tried."""
        if not place or self._demands[self._order[place - 1]] != self._demands[self._order[place]]:
            return 0
        return self.homes[self._order[place - 1]]

    def _put(self, number: int, row: int, place: int) -> bool:
        """Puts it there and looks on; takes it back where that led nowhere."""
        demand, amounts = self._demands[number], self._amounts[number]
        picked = gpu_rule.pick(self._gpus[row], demand)
        left = [have - wanted for have, wanted in zip(self._free[row], amounts, strict=True)]
        if min(left, default=0) < 0 or len(picked) != demand.gpu_count:
            return False
        self._steps += 1
        before, self._free[row], self.homes[number] = self._free[row], left, row
        self._gpus[row][list(picked)] -= demand.gpu_units
        if self.run(place + 1):
            return True
        self._free[row] = before
        self._gpus[row][list(picked)] += demand.gpu_units
        return False

    def _fit_in_order(self) -> bool:
        """Ray gives out GPUs in the order of the demands: shares must fit in that order too."""
        gpus = {row: self._gpus_before[row].copy() for row in set(self.homes)}
        for demand, row in zip(self._demands, self.homes, strict=True):
            picked = gpu_rule.pick(gpus[row], demand)
            if len(picked) != demand.gpu_count:
                return False
            gpus[row][list(picked)] -= demand.gpu_units
        return True


def _size(demand: Demand) -> tuple[int, int, int]:
    """Larger ones sort first."""
    return -demand.gpu_units * demand.gpu_count, -demand.cpu_units, -demand.memory
