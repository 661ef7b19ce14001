"""How much of a request's time is left, and for what."""

from __future__ import annotations

from dataclasses import dataclass

RESERVE_S = 0.005
"""Kept back from the encoders: fusing, and sending the answer."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point in time on some clock, in seconds, and the limit that led to it."""

    at_s: float
    limit_ms: float

    @classmethod
    def after(cls, now_s: float, limit_ms: float, requested_ms: float | None = None) -> Deadline:
        """The service's limit from now on, or the request's own where that is shorter."""
        limit = limit_ms if requested_ms is None else min(limit_ms, requested_ms)
        return cls(now_s + limit / 1000.0, limit)

    def remaining_s(self, now_s: float) -> float:
        return max(0.0, self.at_s - now_s)

    def for_encoders_s(self, now_s: float) -> float:
        """What encoders may still use; at most half of what remains is kept back."""
        remaining = self.remaining_s(now_s)
        return remaining - min(RESERVE_S, remaining / 2.0)
