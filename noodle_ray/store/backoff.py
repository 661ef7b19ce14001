"""How long to wait before something that was away is tried again: longer each time, up to a limit."""

from __future__ import annotations

from dataclasses import dataclass

_ENOUGH = 64
"""Doublings after which any first pause has met any limit."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses double from `first_s` up to `most_s` seconds."""

    first_s: float = 0.1
    most_s: float = 5.0

    def pause_s(self, failures: int, chance: float) -> float:
        """Seconds to wait after so many failures in a row, the first included.

        `chance`, from 0 to 1, shortens it by up to a half: those whom one outage met do not come back at one moment.
        """
        doublings = min(max(failures - 1, 0), _ENOUGH)
        return min(self.first_s * 2.0**doublings, self.most_s) * (1 - chance / 2)
