"""Whether clocks agree: this machine's with the head's, and each node's with the head's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from noodle_ray.entry.doctor.finding import Finding, ok, skipped, warn

TOLERATED_S = 1.0
ADVICE = "have the clocks set by the network (chrony, systemd-timesyncd) on every host"


@dataclass(frozen=True, slots=True)
class Offset:
    """How far another clock is ahead of ours, in seconds: at least, and at most."""

    least: float
    most: float

    @property
    def certain_s(self) -> float:
        """By how much it is off at any rate: negative where it is behind, 0 where both may agree."""
        return self.least if self.least > 0 else min(self.most, 0.0)


def offset_of_date(asked_at: float, answered_at: float, date: float) -> Offset:
    """The answer's date has whole seconds, and was taken somewhen between question and answer."""
    return Offset(least=date - answered_at, most=date + 1.0 - asked_at)


def offset_of_report(taken_at: float, heard_at: float, longest_age_s: float) -> Offset:
    """A report was taken before it was heard of, by less than `longest_age_s`."""
    return Offset(least=taken_at - heard_at, most=taken_at - heard_at + longest_age_s)


def check_clock(name: str, offset: Offset | None, why_not: str = "") -> Finding:
    """`offset`: of the head's clock from this machine's; None where it could not be asked, which `why_not` tells."""
    if offset is None:
        return skipped(name, why_not)
    if abs(offset.certain_s) > TOLERATED_S:
        way = "ahead of" if offset.certain_s > 0 else "behind"
        return warn(name, f"the gateway's is {abs(offset.certain_s):.1f} s or more {way} this machine's", ADVICE)
    return ok(name, f"the gateway's agrees with this machine's, as far as seconds show ({_span(offset)})")


def check_node_clocks(name: str, offsets: Sequence[tuple[str, Offset]]) -> Finding:
    """`offsets`: each node's name, and its clock's offset from the head's."""
    if not offsets:
        return skipped(name, "no node has reported yet")
    off = [(node, offset.certain_s) for node, offset in offsets if abs(offset.certain_s) > TOLERATED_S]
    if off:
        return warn(name, ", ".join(f"{node} is off by {by:+.1f} s or more" for node, by in off), ADVICE)
    return ok(name, f"no difference in the reports of nodes: {len(offsets)}")


def _span(offset: Offset) -> str:
    return f"between {offset.least:+.2f} and {offset.most:+.2f} s"
