"""The replay: pods arrive one by one on a fleet, and what does not fit is dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from noodle_ray.replay.contenders import contender_named
from noodle_ray.replay.fleet import demands_of, fleet_of
from noodle_ray.replay.player import Player
from noodle_ray.replay.traces import WHOLE_GPU_MILLI, Pod, TraceNode

LEVELS = 131
"""Arrived GPU requests in % of the capacity, 0 to 130."""


@dataclass(frozen=True, slots=True)
class Run:
    """What came of one replay. `allocated_percent` (131): the mean GPU allocation while so much had been asked for."""

    allocated_percent: npt.NDArray[np.float64]
    arrived: int
    dropped: int
    moved: int

    @property
    def moved_percent(self) -> float:
        """Moves for each 100 pods that arrived."""
        return 100 * self.moved / self.arrived


def replay(
    nodes: Sequence[TraceNode],
    pods: Sequence[Pod],
    order: Sequence[int],
    contender: str,
    seed: int,
    shuffled: bool = True,
) -> Run:
    """Plays the pods in that order (indices into `pods`) onto the nodes under a contender's name. No pod leaves.

    `shuffled`: nodes come in a random order under names that say nothing, anew for each seed. Raises NotFound where
    there is no such contender.
    """
    demands = demands_of(pods)
    player = Player(fleet_of(nodes, seed if shuffled else None), contender_named(contender), demands, seed)
    tally = Tally(WHOLE_GPU_MILLI * sum(node.gpus for node in nodes))
    dropped = 0
    for number, index in enumerate(order):
        player.note(demands[index])
        placed = player.place(str(number), demands[index])
        dropped += not placed
        tally.note(pods[index].requested_milli, placed)
    return Run(tally.curve(), len(order), dropped, player.moved)


class Tally:
    """Allocated GPU by arrived GPU: `alloc@x` is the mean over arrivals whose cumulative request rounds to x %."""

    def __init__(self, capacity_milli: int) -> None:
        self._capacity = capacity_milli
        self._arrived = self._held = 0
        self._sums, self._counts = np.zeros(LEVELS + 1), np.zeros(LEVELS + 1)

    def note(self, requested_milli: int, placed: bool) -> None:
        """One pod has arrived, and was placed or dropped."""
        self._arrived += requested_milli
        self._held += requested_milli if placed else 0
        level = min((200 * self._arrived + self._capacity) // (2 * self._capacity), LEVELS)
        self._sums[level] += self._held / self._capacity * 100
        self._counts[level] += 1

    def curve(self) -> npt.NDArray[np.float64]:
        """Percent by level, 0 to 130. A level on which no arrival fell has the figure of the last one before."""
        levels = np.where(self._counts > 0, np.arange(LEVELS + 1), -1)
        known = np.maximum.accumulate(levels)
        means = self._sums / np.maximum(self._counts, 1)
        curve: npt.NDArray[np.float64] = np.where(known >= 0, means[known], 0.0)[:LEVELS]
        return curve
