"""What a run came to: how much was answered, the longest gaps, how soon all was well again after each fault. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from noodle_ray.entry.bench.chaos.records import Inflicted, Probe, Seen


@dataclass(frozen=True, slots=True)
class Recovery:
    """A fault and what came after it.

    seconds: from its beginning until the system was whole again and stayed so until the next fault; 0 where nothing
    was ever seen missing, None where it did not become whole before the end. missing: what was, each once. What an
    earlier fault left missing counts for both.
    """

    inflicted: Inflicted
    seconds: float | None
    missing: tuple[str, ...] = ()

    @property
    def end_s(self) -> float:
        """Until when it may have been felt: until it was undone, and all was well."""
        whole_s = float("inf") if self.seconds is None else self.inflicted.injected_s + self.seconds
        return max(whole_s, self.inflicted.healed_s)


@dataclass(frozen=True, slots=True)
class Loss:
    """A request that was not answered, and the faults that were there between when it was due and when it ended."""

    probe: Probe
    during: tuple[Inflicted, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A whole run of `seconds`. Probes in any order; faults and looks in the order of time."""

    seconds: float
    probes: tuple[Probe, ...]
    inflicted: tuple[Inflicted, ...]
    seen: tuple[Seen, ...]

    @property
    def routes(self) -> tuple[str, ...]:
        return tuple(sorted({probe.route for probe in self.probes}))

    def of(self, route: str) -> tuple[Probe, ...]:
        """The route's requests; "": all."""
        return tuple(probe for probe in self.probes if route in ("", probe.route))

    def recoveries(self) -> list[Recovery]:
        """One for each fault that was inflicted."""
        done = [one for one in self.inflicted if not one.problem]
        starts = [*(one.injected_s for one in done), float("inf")]
        return [recovery(one, next_s, self.seen) for one, next_s in zip(done, starts[1:], strict=True)]

    def losses(self) -> list[Loss]:
        """What was not answered, in the order in which it was due."""
        recoveries = self.recoveries()
        lost = sorted((probe for probe in self.probes if not probe.answered), key=lambda probe: probe.due_s)
        return [Loss(probe, _during(probe, recoveries)) for probe in lost]


def answered_percent(probes: Sequence[Probe]) -> float | None:
    """None where nothing was asked."""
    return 100 * sum(probe.answered for probe in probes) / len(probes) if probes else None


def longest_gap_s(probes: Sequence[Probe], seconds: float) -> float:
    """The longest time without an answer, between the start of the run and its end.

    Answers count when they came, those after the end as at the end. The start and the end are where a gap may begin
    and end, as any answer is: without any the gap is the whole run.
    """
    came = sorted(min(probe.ended_s, seconds) for probe in probes if probe.answered)
    return max(later - earlier for earlier, later in pairwise([0.0, *came, seconds]))


def recovery(inflicted: Inflicted, next_s: float, seen: Sequence[Seen]) -> Recovery:
    """What came after a fault. next_s: when the next one began."""
    spell = [one for one in seen if inflicted.injected_s <= one.at_s < next_s]
    broken = [one for one in spell if not one.is_whole]
    if not broken:
        return Recovery(inflicted, 0.0 if spell else None)
    whole_s = next((one.at_s for one in seen if one.is_whole and one.at_s > broken[-1].at_s), None)
    missing = tuple(dict.fromkeys(name for one in broken for name in one.missing))
    return Recovery(inflicted, None if whole_s is None else whole_s - inflicted.injected_s, missing)


def _during(probe: Probe, recoveries: Sequence[Recovery]) -> tuple[Inflicted, ...]:
    return tuple(
        one.inflicted for one in recoveries if one.inflicted.injected_s <= probe.ended_s and probe.due_s <= one.end_s
    )
