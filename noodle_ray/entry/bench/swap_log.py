"""What was called and what ran: calls as their callers saw them, beside the log that the modules wrote. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Outcome = Literal["answered", "interrupted", "failed", "unanswered"]
"""`failed`: a version that is broken on purpose raised. `unanswered`: any other error, or no answer in time."""

CallId = tuple[str, int]
"""A session, and the number of the call in it, from 1 in the order of sending."""

NOTICED_S = 3.0
"""So long after a host was killed, a call may still be on its way to it."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call, as its caller saw it. Times are seconds of the monotonic clock, which is one for all processes."""

    session: str
    number: int
    sent_at: float
    ended_at: float
    outcome: Outcome
    problem: str = ""

    @property
    def id(self) -> CallId:
        return self.session, self.number

    @property
    def ms(self) -> float:
        return (self.ended_at - self.sent_at) * 1000


@dataclass(frozen=True, slots=True)
class Execution:
    """One line of a module's log: a call that ran, in which process and version."""

    session: str
    number: int
    pid: int
    version: str
    at_ns: int

    @property
    def id(self) -> CallId:
        return self.session, self.number


@dataclass(frozen=True, slots=True)
class Span:
    """A time in which something happened, in seconds of the monotonic clock."""

    start: float
    end: float

    def overlaps(self, call: Call) -> bool:
        return call.sent_at <= self.end and call.ended_at >= self.start


def read_executions(folder: Path) -> list[Execution]:
    """All that the modules wrote, in the order in which it ran. A line that is cut off, as by a kill, is left out."""
    lines = [line for file in sorted(folder.glob("*.log")) for line in file.read_text().splitlines(keepends=True)]
    found = [_execution(line) for line in lines if line.endswith("\n")]
    return sorted(found, key=lambda execution: execution.at_ns)


def _execution(line: str) -> Execution:
    session, number, pid, version, at_ns = line.split()
    return Execution(session, int(number), int(pid), version, int(at_ns))


def lost(calls: Iterable[Call], executions: Iterable[Execution], kills: Sequence[float]) -> list[Call]:
    """Calls that the system owes an answer: it gave none, or one without running it, or broke off for no reason.

    `kills`: when hosts were killed. A call that was under way then, or on its way soon after, may be interrupted.
    """
    ran = {execution.id for execution in executions}
    return [call for call in calls if _is_lost(call, ran, kills)]


def _is_lost(call: Call, ran: set[CallId], kills: Sequence[float]) -> bool:
    match call.outcome:
        case "answered":
            return call.id not in ran
        case "interrupted":
            return not any(call.sent_at - NOTICED_S <= at <= call.ended_at for at in kills)
        case "failed":
            return False
        case "unanswered":
            return True


def duplicated(executions: Iterable[Execution]) -> int:
    """How many calls ran more than once."""
    return sum(times > 1 for times in Counter(execution.id for execution in executions).values())


def out_of_order(executions: Iterable[Execution]) -> int:
    """How many executions came after one of the same session that was sent later. They are given as they ran."""
    latest: dict[str, int] = {}
    late = 0
    for execution in executions:
        late += execution.number < latest.get(execution.session, 0)
        latest[execution.session] = max(latest.get(execution.session, 0), execution.number)
    return late


def missing(calls: Iterable[Call], kept: Mapping[str, Sequence[Sequence[int]]]) -> int:
    """How many answered calls the module's state does not know any more. `kept`: ranges of numbers, by session."""
    by_session = {session: sorted((first, last) for first, last in ranges) for session, ranges in kept.items()}
    return sum(call.outcome == "answered" and not _is_kept(call, by_session) for call in calls)


def _is_kept(call: Call, kept: Mapping[str, Sequence[tuple[int, int]]]) -> bool:
    ranges = kept.get(call.session, [])
    place = bisect_right(ranges, call.number, key=lambda one: one[0])
    return place > 0 and call.number <= ranges[place - 1][1]


def split_times(calls: Iterable[Call], swaps: Sequence[Span], kills: Sequence[Span]) -> dict[str, list[float]]:
    """Milliseconds of the answered calls that met a killed host, else a swap, else neither ("steady")."""
    taken: dict[str, list[float]] = {"steady": [], "swap": [], "kill": []}
    for call in calls:
        if call.outcome == "answered":
            taken[_during(call, swaps, kills)].append(call.ms)
    return taken


def _during(call: Call, swaps: Sequence[Span], kills: Sequence[Span]) -> str:
    if any(span.overlaps(call) for span in kills):
        return "kill"
    return "swap" if any(span.overlaps(call) for span in swaps) else "steady"
