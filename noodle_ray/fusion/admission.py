"""Admission: what cannot be read in time is not begun, so that queues never grow past the deadline."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from noodle_ray.errors import Overloaded

SMOOTHING = 0.1
"""How much the latest reading counts in an encoder's time."""


@dataclass(slots=True)
class _Queue:
    """The readings of one modality under way, and how long one takes once its turn has come."""

    under_way: int = 0
    each_s: float = 0.0

    def wait_s(self) -> float:
        """When one more would be done. An idle encoder always gets it: its time may have changed."""
        return (self.under_way + 1) * self.each_s if self.under_way else 0.0


@dataclass(slots=True)
class Turn:
    """A reading under way: how many it found before it, and since when it waits."""

    modality: str
    before: int
    since_s: float


@dataclass(slots=True)
class Admission:
    """Follows the readings that one engine has under way."""

    _queues: dict[str, _Queue] = field(default_factory=dict)

    def admit(self, modalities: Iterable[str], within_s: float) -> tuple[str, ...]:
        """Those that can be read in time; the others are not to be asked.

        Raises Overloaded where that is none: nothing could be answered.
        """
        asked = list(modalities)
        waits = {modality: self._queue(modality).wait_s() for modality in asked}
        admitted = tuple(modality for modality in asked if waits[modality] <= within_s)
        if asked and not admitted:
            raise Overloaded("fusion", max(0.001, min(waits.values()) - within_s))
        return admitted

    def busy_s(self, modalities: Iterable[str]) -> float:
        """When the busiest of them will have read what is under way; 0 where nothing is."""
        queues = map(self._queue, modalities)
        return max((queue.under_way * queue.each_s for queue in queues), default=0.0)

    def begin(self, modality: str, now_s: float) -> Turn:
        queue = self._queue(modality)
        queue.under_way += 1
        return Turn(modality, queue.under_way - 1, now_s)

    def end(self, turn: Turn, now_s: float, is_read: bool) -> None:
        """`is_read`: whether it was read; what was given up or failed tells nothing of how long reading takes."""
        queue = self._queue(turn.modality)
        queue.under_way -= 1
        if is_read:
            took_s = (now_s - turn.since_s) / (turn.before + 1)
            queue.each_s += (took_s - queue.each_s) * (SMOOTHING if queue.each_s else 1.0)

    def _queue(self, modality: str) -> _Queue:
        return self._queues.setdefault(modality, _Queue())
