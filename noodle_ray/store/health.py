"""Whether the store answers, as those who keep records in it see it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StoreHealth:
    """`away_s`: for how many seconds it has not answered; None while it does. `error`: what was said last."""

    away_s: float | None = None
    error: str = ""

    @property
    def is_away(self) -> bool:
        return self.away_s is not None
