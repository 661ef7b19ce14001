"""Defragmentation: which movable allocations to put elsewhere, so that more of the free GPU can be used."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import numpy as np

from noodle_ray.base_model import Model
from noodle_ray.placement.allocation import Allocation, Bundle
from noodle_ray.placement.chooser import Chooser, Limits
from noodle_ray.placement.columns import CPUS, MEMORY, Columns, Ints
from noodle_ray.placement.fragmentation import expectation, fragmentation
from noodle_ray.placement.ledger import ResourcePool
from noodle_ray.placement.policies import DEFAULT_POLICY, policy_named
from noodle_ray.placement.prices import SCALE
from noodle_ray.placement.request import Request
from noodle_ray.placement.scoreboard import Scoreboard
from noodle_ray.placement.valuation import NEVER, Ask, Rooms, values
from noodle_ray.placement.workload import Workload
from noodle_ray.resources import Demand, from_units

LEAST_GAIN = 0.01
"""GPUs that a move must make usable: less is not worth the restart of what is moved."""

MOVES_AT_MOST = 50


class Move(Model):
    """An allocation that goes from its node to another, and the GPU that is usable after it and was not before."""

    allocation_id: str
    demand: Demand
    source: str
    target: str
    gain_gpus: float


class Cost(Model):
    """What the moves cost: allocations that are started anew, and what they hold."""

    restarts: int
    gpus: float
    memory_bytes: int


class Proposal(Model):
    """Moves to make in this order, with what is free and usable, and free and unusable, before and after, in GPUs."""

    moves: tuple[Move, ...]
    movable: int
    usable_before: float
    usable_after: float
    fragmentation_before: float
    fragmentation_after: float
    cost: Cost


def propose(
    pool: ResourcePool,
    allocations: Iterable[Allocation],
    workload: Workload,
    policy: str = DEFAULT_POLICY,
    most: int = MOVES_AT_MOST,
) -> Proposal:
    """Moves of held, movable allocations of one bundle, each the one that gains most; of equal ones the smallest.

    Each allocation moves once at most, to a node that takes it while it still runs on its own, and off open nodes
    only: room on a closed one is nobody's. Among equally good nodes the policy chooses. Nothing is changed. Raises
    NotFound for an unknown policy.
    """
    policy_named(policy)
    trial = _Trial(copy.deepcopy(pool), allocations, workload, policy)
    movable = len(trial.left)
    moves = tuple(trial.make_moves(most))
    free, before, after = _free_gpus(pool), fragmentation(pool, workload), fragmentation(trial.pool, workload)
    return Proposal(
        moves=moves,
        movable=movable,
        usable_before=free - before,
        usable_after=free - after,
        fragmentation_before=before,
        fragmentation_after=after,
        cost=_cost(moves),
    )


def _free_gpus(pool: ResourcePool) -> float:
    return from_units(int(pool.gpu_free.sum()))


def _cost(moves: tuple[Move, ...]) -> Cost:
    gpus = sum(_gpu_units(move.demand) for move in moves)
    return Cost(restarts=len(moves), gpus=from_units(gpus), memory_bytes=sum(move.demand.memory for move in moves))


def _size(allocation: Allocation) -> tuple[int, int, str]:
    demand = allocation.request.bundles[0]
    return _gpu_units(demand), demand.memory, allocation.id


def _gpu_units(demand: Demand) -> int:
    return demand.gpu_units * demand.gpu_count


class _Trial:
    """Moves tried on a pool of their own; `left` are the allocations that may still be moved."""

    def __init__(self, pool: ResourcePool, allocations: Iterable[Allocation], workload: Workload, policy: str) -> None:
        self.pool, self._policy = pool, policy
        self._chooser = Chooser(pool, workload)
        self._board = Scoreboard(pool.columns, expectation(pool.columns, workload))
        movable = sorted((one for one in allocations if self._may_move(one)), key=_size)
        self.left = {one.id: one.request for one in movable}
        self._shape_of = {one.id: str(one.request) for one in movable}
        self._gain_of_leaving: dict[str, int] = {}
        self._learn(list(self.left))

    def _may_move(self, allocation: Allocation) -> bool:
        if allocation.state != "held" or not allocation.request.movable or not self.pool.holds(allocation.id):
            return False
        bundles = self.pool.bundles(allocation.id)
        alone = len(allocation.request.bundles) == len(bundles) == 1
        return alone and bool(self.pool.columns.open[self.pool.columns.row[bundles[0].node_id]])

    def make_moves(self, most: int) -> Iterable[Move]:
        for _ in range(most):
            move = self._best_move()
            if move is None or move.gain_gpus < LEAST_GAIN:
                return
            self._make(move)
            yield move

    def _make(self, move: Move) -> None:
        key = self.left.pop(move.allocation_id).anti_affinity
        self.pool.deallocate(move.allocation_id)
        self.pool.allocate(move.allocation_id, [(move.target, move.demand)], key)
        neighbours = {*self.pool.on_node(move.source), *self.pool.on_node(move.target)}
        self._learn([key for key in neighbours if key in self.left])

    def _learn(self, ids: list[str]) -> None:
        """What is gained on its own node when each of them leaves it: to be learnt anew when the node has changed."""
        if not ids:
            return
        bundles = [self.pool.bundles(key)[0] for key in ids]
        rows = np.array([self.pool.columns.row[bundle.node_id] for bundle in bundles], np.int64)
        before = values(self._board.prices, Rooms.of(self.pool.columns, rows))["usable"]
        after = values(self._board.prices, _rooms_without(self.pool.columns, rows, bundles))["usable"]
        self._gain_of_leaving.update(zip(ids, map(int, after - before), strict=True))

    def _best_move(self) -> Move | None:
        """The move that gains most; of equal ones that of the least GPU, then memory, then by the allocation's id."""
        ids = list(self.left)  # in the order of their size
        if not ids:
            return None
        gains = np.array([self._gain_of_leaving[key] for key in ids]) + self._gains_of_arriving(ids)
        best = int(gains.argmax())
        return self._move(ids[best], int(gains[best])) if gains[best] > 0 else None

    def _move(self, allocation_id: str, gain: int) -> Move:
        bundle = self.pool.bundles(allocation_id)[0]
        return Move(
            allocation_id=allocation_id,
            demand=bundle.demand,
            source=bundle.node_id,
            target=self._target(self.left[allocation_id], bundle),
            gain_gpus=gain / SCALE,
        )

    def _gains_of_arriving(self, ids: list[str]) -> Ints:
        """For each of them the gain on the best other node: zero or less, and far below zero where there is none."""
        shapes = {self._shape_of[key]: self.left[key] for key in ids}
        best = {shape: _best_two(self._scores(request)) for shape, request in shapes.items()}
        rows = [self.pool.columns.row[self.pool.bundles(key)[0].node_id] for key in ids]
        found = [best[self._shape_of[key]] for key in ids]
        return np.array([second if row == at else first for row, (at, first, second) in zip(rows, found, strict=True)])

    def _scores(self, request: Request) -> Ints:
        """What is gained, zero or less, when the request arrives on each node; NEVER where it cannot."""
        demand = request.bundles[0]
        scores = self._board.scores(Ask.of(demand)).copy()
        for failed in self.pool.failures(demand, anti_affinity=request.anti_affinity).values():
            scores[failed] = NEVER
        return scores

    def _target(self, request: Request, bundle: Bundle) -> str:
        scores = self._scores(request)
        scores[self.pool.columns.row[bundle.node_id]] = NEVER
        equal = frozenset(self.pool.columns.ids[row] for row in np.flatnonzero(scores == scores.max()))
        limits = Limits(only=equal, anti_affinity=request.anti_affinity)
        return self._chooser.explain(bundle.demand, self._policy, limits).chosen


def _best_two(scores: Ints) -> tuple[int, int, int]:
    """The row of the best score, that score, and the best of all other rows."""
    row = int(scores.argmax())
    others = np.delete(scores, row)
    return row, int(scores[row]), int(others.max(initial=NEVER))


def _rooms_without(columns: Columns, rows: Ints, bundles: list[Bundle]) -> Rooms:
    """The nodes' free amounts, each without one of the bundles that are on it."""
    cpus = _left(columns, CPUS, rows) + np.array([bundle.demand.cpu_units for bundle in bundles])
    memory = _left(columns, MEMORY, rows) + np.array([bundle.demand.memory for bundle in bundles])
    there = columns.gpus("total")[rows]
    gpus = there - columns.gpus("held")[rows] - columns.gpus("foreign")[rows]
    for place, bundle in enumerate(bundles):
        gpus[place, list(bundle.gpu_indices)] += bundle.demand.gpu_units
    return Rooms(columns.vector("kind")[rows], cpus.clip(min=0), memory.clip(min=0), gpus.clip(0, there))


def _left(columns: Columns, dimension: str, rows: Ints) -> Ints:
    """What is free there, below zero where others use what we hold."""
    total, held, foreign = (columns.amounts(part, dimension)[rows] for part in ("total", "held", "foreign"))
    return total - held - foreign
