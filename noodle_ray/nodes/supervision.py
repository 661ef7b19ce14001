"""What is done about a process of a Ray node that has ended: it alone is started again, or the whole node is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

NODE, RAYLET = "node", "raylet"

STEADY_S = 60.0
"""What ended again within this has not recovered: it is started again after a pause, and that grows."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 15.0

Ending = Literal["asked", "died"]
"""Whether it ended in good order, as when it is told to, or in another way."""


@dataclass(frozen=True, slots=True)
class Restart:
    """Start this again in so many seconds: a process by its role, or NODE."""

    what: str
    after_s: float


@dataclass(frozen=True, slots=True)
class Leave:
    """The node was told to leave its cluster: end what is left of it."""


class Supervision:
    """Decides for one node. What a raylet ran is gone with it, so its node starts anew; anything else starts alone."""

    def __init__(self) -> None:
        self._last_s: dict[str, float] = {}
        self._pause_s: dict[str, float] = {}

    def ended(self, roles: Mapping[str, Ending], now: float) -> tuple[Restart | Leave, ...]:
        """What to do about all that ended since the last look; `now` in seconds of any clock that does not jump."""
        if roles.get(RAYLET) == "asked":
            return (Leave(),)
        if RAYLET in roles:
            return (self._again(NODE, now),)
        return tuple(self._again(role, now) for role in sorted(roles))

    def failed(self, what: str, now: float) -> Restart:
        """It could not be started: it is tried again."""
        return self._again(what, now)

    def _again(self, what: str, now: float) -> Restart:
        before = self._pause_s.get(what, 0.0)
        is_steady = now - self._last_s.get(what, float("-inf")) - before > STEADY_S
        pause = 0.0 if is_steady else min(max(before * 2, FIRST_PAUSE_S), LONGEST_PAUSE_S)
        self._last_s[what], self._pause_s[what] = now, pause
        return Restart(what, pause)
