"""What is measured of a latency benchmark: each phase, what it asked and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from noodle_ray.entry.bench.fusion.load_generator import Asked, Load
from noodle_ray.entry.bench.timing import percentile

DEADLINE_MS = 200.0
"""NOODLE_FUSION_MAX_PROCESSING_TIME's default: what an answer may take."""

LONE = "lone"
COLD, WARM = "cold", "warm"


@dataclass(frozen=True, slots=True)
class Phase:
    """One load on one system. what: "lone", "4 at once", "60 % of capacity"; fault: what was done meanwhile."""

    system: str
    what: str
    load: Load
    fault: str = ""
    share: float = 0.0

    @property
    def cache(self) -> str:
        return WARM if self.load.different else COLD


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of a phase. cpu_ms: of the system's processes; None where it was not measured or makes no sense.

    left_out: why it was not played; then there is nothing else.
    """

    phase: Phase
    asked: Sequence[Asked] = ()
    cpu_ms: float | None = None
    left_out: str = ""
    answered: Sequence[Asked] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "answered", [one for one in self.asked if one.status == 200])

    def ms(self, percent: float) -> float | None:
        """Of those that were answered."""
        return percentile([one.ms for one in self.answered], percent) if self.answered else None

    @property
    def in_time(self) -> list[Asked]:
        return [one for one in self.answered if one.ms <= DEADLINE_MS]

    @property
    def full(self) -> list[Asked]:
        """Answers that rest on all that was given."""
        return [one for one in self.answered if set(one.used) == set(self.phase.load.modalities)]

    @property
    def lost(self) -> list[Asked]:
        """Neither answered nor refused early with a time after which to try again."""
        return [one for one in self.asked if one.status != 200 and not one.shed]

    @property
    def lasted_s(self) -> float:
        """From the first request to the last answer; of a closed loop, how long each of its workers was busy."""
        if not self.asked:
            return 0.0
        if self.phase.load.rate is None:
            return sum(one.ms for one in self.asked) / self.phase.load.workers / 1000
        return max(one.at_s + one.ms / 1000 for one in self.asked) - min(one.at_s for one in self.asked)

    def a_second(self, asked: Sequence[Asked]) -> float:
        return len(asked) / self.lasted_s if self.lasted_s else 0.0

    def percent(self, part: Sequence[Asked], whole: Sequence[Asked] | None = None) -> float | None:
        """The part's share of the whole, which is all that was asked unless it is given."""
        of = self.asked if whole is None else whole
        return 100.0 * len(part) / len(of) if of else None


def capacity(measured: Sequence[Measured]) -> float:
    """The most full answers a second, whatever the number of workers. Raises ValueError where there are none."""
    return max(one.a_second(one.full) for one in measured)
