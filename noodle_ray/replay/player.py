"""The player: one contender on one fleet, who gives demands a home and takes it back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from noodle_ray.placement import gpu_rule, kernels
from noodle_ray.placement.allocation import Bundle
from noodle_ray.placement.chooser import Chooser, Limits
from noodle_ray.placement.ledger import ResourcePool
from noodle_ray.placement.policies import View
from noodle_ray.placement.prices import compute
from noodle_ray.placement.repack import find_move
from noodle_ray.placement.valuation import Ask
from noodle_ray.placement.workload import Workload
from noodle_ray.replay.contenders import Contender
from noodle_ray.replay.ray_policies import RAY_POLICIES
from noodle_ray.resources import Demand


class Player:
    """Plays a contender on a pool. `workload`: the demands that it is told of beforehand, where it may know them."""

    def __init__(self, pool: ResourcePool, contender: Contender, workload: Sequence[Demand], seed: int) -> None:
        self.pool = pool
        self.chooser = Chooser(pool, Workload.of(workload) if contender.told else Workload(), seed)
        self._contender = contender
        self._ray_rule = RAY_POLICIES[contender.policy]() if contender.policy in RAY_POLICIES else None
        self._random = np.random.default_rng(seed)
        self._arrived = 0
        self.moved = 0
        self._hopeless: set[int] = set()
        """Demands, by identity, that no move helped; forgotten when something was freed."""

    def note(self, demand: Demand) -> None:
        """A demand has arrived: who was not told of the workload learns from it. Once for each."""
        self._arrived += 1
        if self._contender.told or self._ray_rule is not None:
            return
        self.chooser.workload.note(demand)
        inputs = self.chooser.price_inputs()
        if inputs is not None:
            self.chooser.use(compute(inputs))

    def place(self, key: str, demand: Demand) -> bool:
        """Takes the demand in under the key, if it fits somewhere, or, where moves are allowed, can be made to."""
        row = self._row_for(demand)
        if row is None and self._make_room(demand):
            row = self._row_for(demand)
        if row is None:
            return False
        self._hold(key, row, demand)
        return True

    def _hold(self, key: str, row: int, demand: Demand) -> None:
        bundle = Bundle(demand=demand, node_id=self.pool.columns.ids[row], gpu_indices=self._gpus(row, demand))
        self.pool.restore(key, [bundle])

    def _make_room(self, demand: Demand) -> bool:
        """Moves one pod so that the demand fits, if that helps. No move is spent on work without GPUs."""
        may_move = self.moved + 1 <= self._contender.moved_at_most * self._arrived
        if not (may_move and demand.gpu_count) or id(demand) in self._hopeless:
            return False
        move = find_move(self.pool, self.chooser, demand, self._contender.policy, lambda key: True)
        if move is None:
            self._hopeless.add(id(demand))
            return False
        moved = self.pool.bundles(move.allocation_id)[0].demand
        self.free(move.allocation_id)
        self._hold(move.allocation_id, self.pool.columns.require(move.target), moved)
        self.moved += 1
        return True

    def free(self, key: str) -> None:
        """Takes back what the key holds. Raises NotFound."""
        self.pool.deallocate(key)
        self._hopeless.clear()

    def _row_for(self, demand: Demand) -> int | None:
        if self._ray_rule is None:
            return self.chooser.choose(demand, self._contender.policy, self._contender.own_choice)
        failed = list(self.chooser.failures(demand, Limits()).values())
        rows = np.flatnonzero(~np.logical_or.reduce(failed))
        return self._ray_rule(View(self.pool, rows, self._random), demand) if len(rows) else None

    def _gpus(self, row: int, demand: Demand) -> tuple[int, ...]:
        policy, own_choice = self._contender.policy, self._contender.own_choice
        if not own_choice or demand.gpu_share is None or not self.chooser.is_valued(policy):
            return gpu_rule.pick(self.pool.gpu_free[row], demand)
        prices = self.chooser.board(policy).prices
        _, index = kernels.cost_parts(np.array([row]), prices, self.pool.columns, Ask.of(demand, own_choice=True))
        return (int(index[0]),)
