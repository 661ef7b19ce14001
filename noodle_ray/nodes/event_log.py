"""The event log: what happened to the cluster of late, numbered, for whoever watches it."""

from __future__ import annotations

from collections import deque
from typing import Any

from noodle_ray.base_model import Model

KEPT = 1000
"""Events that are remembered."""


class ClusterEvent(Model):
    """One thing that happened. `number` grows by one each time and starts anew with a manager; `kind` as in the log."""

    number: int
    at: float
    kind: str
    message: str
    details: dict[str, Any]


class EventLog:
    """The last events, oldest first."""

    def __init__(self) -> None:
        self._events: deque[ClusterEvent] = deque(maxlen=KEPT)
        self._number = 0

    def add(self, kind: str, message: str, details: dict[str, Any], at: float) -> ClusterEvent:
        self._number += 1
        event = ClusterEvent(number=self._number, at=at, kind=kind, message=message, details=details)
        self._events.append(event)
        return event

    def since(self, number: int) -> list[ClusterEvent]:
        """What came after that number; all that is remembered where the number is not ours (another manager's)."""
        return [event for event in self._events if event.number > number or number > self._number]
