"""How many calls a module answered, how many it failed at, and how long they took: counts that can be added up."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from dataclasses import dataclass, field

FIRST_MS = 0.1
RATIO = 1.25
BUCKETS = 64
"""Bucket 0 is for what took up to FIRST_MS, each next one for RATIO times as much (up to 102 s), the last for more."""

UPPER_MS = tuple(FIRST_MS * RATIO**bucket for bucket in range(BUCKETS - 1))


@dataclass(frozen=True, slots=True)
class CallStats:
    """Calls since some beginning: answered with a result, failed (the module's own code raised), and still running.

    `milliseconds` counts those that were answered, by how long they took. Calls with wrong arguments or of an unknown
    function are the caller's fault and count as neither.
    """

    answered: int = 0
    failed: int = 0
    in_flight: int = 0
    milliseconds: tuple[int, ...] = (0,) * BUCKETS

    def __add__(self, other: CallStats) -> CallStats:
        """Both together: of several hosts, say."""
        buckets = zip(self.milliseconds, other.milliseconds, strict=True)
        return CallStats(
            self.answered + other.answered,
            self.failed + other.failed,
            self.in_flight + other.in_flight,
            tuple(itertools.starmap(int.__add__, buckets)),
        )

    def since(self, earlier: CallStats) -> CallStats:
        """What came after an earlier look at the same host; still running is what runs now."""
        buckets = zip(self.milliseconds, earlier.milliseconds, strict=True)
        return CallStats(
            self.answered - earlier.answered,
            self.failed - earlier.failed,
            self.in_flight,
            tuple(itertools.starmap(int.__sub__, buckets)),
        )

    @property
    def median_ms(self) -> float | None:
        return self.quantile_ms(0.5)

    def quantile_ms(self, q: float) -> float | None:
        """What a share `q` (0 to 1) of the answered calls took at most, in ms; None where there were none.

        It is in the middle (geometrically) of the bucket that it falls into: up to 12 % off between the first and the
        last bucket.
        """
        total = sum(self.milliseconds)
        if not total:
            return None
        rank = max(1, math.ceil(q * total))
        below = list(itertools.accumulate(self.milliseconds))
        return _middle_ms(bisect_left(below, rank))


def _middle_ms(bucket: int) -> float:
    return FIRST_MS * math.pow(RATIO, bucket - 0.5)


@dataclass(slots=True)
class CallCounter:
    """Counts the calls of one host as they come and go."""

    answered: int = 0
    failed: int = 0
    in_flight: int = 0
    buckets: list[int] = field(default_factory=lambda: [0] * BUCKETS)

    def began(self) -> None:
        self.in_flight += 1

    def ended(self, seconds: float, failed: bool | None) -> None:
        """`failed`: whether ModuleFailed came out of it, or None where the call was refused and does not count."""
        self.in_flight -= 1
        if failed:
            self.failed += 1
        elif failed is not None:
            self.answered += 1
            self.buckets[bisect_left(UPPER_MS, seconds * 1000)] += 1

    def stats(self) -> CallStats:
        return CallStats(self.answered, self.failed, self.in_flight, tuple(self.buckets))
