"""Churn: work that comes and goes on a fleet, and waits where it does not fit."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from noodle_ray.placement.ledger import ResourcePool
from noodle_ray.replay.contenders import contender_named
from noodle_ray.replay.instances import Instance, levels
from noodle_ray.replay.player import Player
from noodle_ray.resources import Demand

PATIENCE_S = 3600.0
"""What has waited so long is not wanted any more."""


@dataclass(frozen=True, slots=True)
class ChurnRun:
    """What came of it, from the trace's beginning to its last event.

    `gpu_allocated_percent` and `gpu_asked_percent` are means over time, in % of the fleet; the latter is what would be
    held if nobody ever had to wait, never more than there is.
    """

    gpu_allocated_percent: float
    gpu_asked_percent: float
    with_gpus: Queueing
    without_gpus: Queueing


@dataclass(frozen=True, slots=True)
class Queueing:
    """How long instances waited, also those who gave up; what ran from the beginning may have waited there, too."""

    instances: int
    waited_mean_s: float
    waited_p99_s: float
    rejected_percent: float


def replay_churn(
    instances: Sequence[Instance], pool: ResourcePool, contender: str, seed: int, patience_s: float = PATIENCE_S
) -> ChurnRun:
    """Plays arrivals and departures on an empty pool. Raises NotFound where there is no such contender.

    What does not fit waits: first come, first served, but whoever fits may overtake. It gives up after `patience_s`.
    What ran from the beginning comes first, in an order by the seed.
    """
    player = Player(pool, contender_named(contender), [instance.demand for instance in instances], seed)
    return _Churn(instances, player, seed, patience_s).play()


def horizon_s(instances: Sequence[Instance]) -> float:
    """The last event of the trace."""
    starts = [(instance.arrives_s or 0.0, instance.runs_s) for instance in instances]
    return max((start + (runs if math.isfinite(runs) else 0.0) for start, runs in starts), default=0.0)


class _Churn:
    """One replay on its way. Instances are known by their place in the trace."""

    def __init__(self, instances: Sequence[Instance], player: Player, seed: int, patience_s: float) -> None:
        self._instances, self._player, self._patience = instances, player, patience_s
        self._order = self._arrivals(seed)
        self._leaving: list[tuple[float, int]] = []
        self._waiting: deque[int] = deque()
        self._waited: dict[int, float] = {}
        self._rejected: set[int] = set()
        self._gpus_held, self._gpu_seconds, self._now = 0, 0.0, 0.0

    def _arrivals(self, seed: int) -> list[int]:
        mixed = [int(place) for place in np.random.default_rng(seed).permutation(len(self._instances))]
        return sorted(mixed, key=lambda place: (self._arrives(place), self._instances[place].arrives_s is not None))

    def _arrives(self, place: int) -> float:
        return self._instances[place].arrives_s or 0.0

    def play(self) -> ChurnRun:
        end = horizon_s(self._instances)
        for place in self._order:
            self._leave_until(self._arrives(place))
            self._pass_to(self._arrives(place))
            self._arrive(place)
        self._leave_until(end)
        self._pass_to(end)
        self._give_up(math.inf)
        return self._result(end)

    def _pass_to(self, moment: float) -> None:
        self._gpu_seconds += self._gpus_held * (moment - self._now)
        self._now = moment

    def _arrive(self, place: int) -> None:
        self._player.note(self._instances[place].demand)
        if not self._start(place):
            self._waiting.append(place)

    def _start(self, place: int) -> bool:
        demand = self._instances[place].demand
        if not self._player.place(str(place), demand):
            return False
        self._gpus_held += demand.gpus
        self._waited[place] = self._now - self._arrives(place)
        heapq.heappush(self._leaving, (self._now + self._instances[place].runs_s, place))
        return True

    def _leave_until(self, moment: float) -> None:
        """Everything that ends by then leaves, and each time those who wait are asked again."""
        while self._leaving and self._leaving[0][0] <= moment:
            ends = self._leaving[0][0]
            self._pass_to(ends)
            while self._leaving and self._leaving[0][0] == ends:
                place = heapq.heappop(self._leaving)[1]
                self._player.free(str(place))
                self._gpus_held -= self._instances[place].demand.gpus
            self._give_up(ends)
            self._start_waiting()

    def _start_waiting(self) -> None:
        """Starts whoever fits, first come first; of equal demands the first one's failure speaks for all."""
        failed: set[int] = set()
        left: deque[int] = deque()
        for place in self._waiting:
            kind = id(self._instances[place].demand)
            if kind in failed or not self._start(place):
                failed.add(kind)
                left.append(place)
        self._waiting = left

    def _give_up(self, moment: float) -> None:
        while self._waiting and self._arrives(self._waiting[0]) + self._patience < moment:
            place = self._waiting.popleft()
            self._rejected.add(place)
            self._waited[place] = min(self._patience, self._now - self._arrives(place))

    def _result(self, end: float) -> ChurnRun:
        capacity = int(self._player.pool.columns.vector("gpu_count").sum())
        return ChurnRun(
            gpu_allocated_percent=_percent(self._gpu_seconds, capacity * end),
            gpu_asked_percent=_percent(_asked_seconds(self._instances, capacity, end), capacity * end),
            with_gpus=self._queueing(lambda demand: demand.gpus > 0),
            without_gpus=self._queueing(lambda demand: demand.gpus == 0),
        )

    def _queueing(self, counts: Callable[[Demand], bool]) -> Queueing:
        asked = [place for place, instance in enumerate(self._instances) if counts(instance.demand)]
        waited = np.array([self._waited[place] for place in asked] or [0.0])
        return Queueing(
            instances=len(asked),
            waited_mean_s=float(waited.mean()),
            waited_p99_s=float(np.percentile(waited, 99, method="inverted_cdf")),
            rejected_percent=_percent(len(self._rejected.intersection(asked)), len(asked)),
        )


def _percent(part: float, whole: float) -> float:
    return 100 * part / whole if whole else 0.0


def _asked_seconds(instances: Sequence[Instance], capacity: int, end: float) -> float:
    """GPU-seconds that were asked for, no more at a time than there are GPUs."""
    known = levels(instances, [instance.demand.gpus for instance in instances])
    moments = [moment for moment, _ in known] + [end]
    lengths = np.diff(np.minimum(moments, end))
    return float(lengths @ np.minimum([level for _, level in known], capacity))
