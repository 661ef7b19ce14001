"""Callers: sessions that call over and over and note what became of every call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

from noodle_ray.entry.aio import AsyncCluster
from noodle_ray.entry.bench.module_versions import ON_PURPOSE
from noodle_ray.entry.bench.swap_log import Call, Outcome
from noodle_ray.errors import CallInterrupted, ModuleFailed

ANSWER_S = 30.0
"""A call without an answer after this long is given up."""

MOST_CALLS = 1_000_000
"""Of one session: none goes on for ever."""

Work = Callable[[str, int], Awaitable[Any]]
"""Calls the function that is measured, for a session, with the call's number in it."""


@dataclass(frozen=True, slots=True)
class Crowd:
    """How many sessions call at once, how many calls each has under way, and how long it rests after an answer."""

    sessions: int = 32
    in_flight: int = 1
    pause_s: float = 0.0


async def call_module(cluster: AsyncCluster, name: str, session: str, function: str, *args: Any) -> Any:
    """A module's function, called in a session; all that this benchmark calls goes through here."""
    return await cluster.modules.get(name, session=session).call(function, *args)


async def call_until(end: float, crowd: Crowd, work: Work) -> list[Call]:
    """All the calls of the crowd until that time on the monotonic clock; returns when the last one has ended."""
    calls: list[Call] = []
    sessions = {f"s{number}": count(1) for number in range(crowd.sessions)}
    await asyncio.gather(
        *(
            _call_on(session, numbers, end, crowd.pause_s, work, calls)
            for session, numbers in sessions.items()
            for _ in range(crowd.in_flight)
        )
    )
    return calls


async def _call_on(
    session: str, numbers: Iterator[int], end: float, pause_s: float, work: Work, calls: list[Call]
) -> None:
    while time.monotonic() < end and (number := next(numbers)) <= MOST_CALLS:
        calls.append(await _call(session, number, work))
        if pause_s:
            await asyncio.sleep(pause_s)


async def _call(session: str, number: int, work: Work) -> Call:
    sent_at = time.monotonic()
    outcome: Outcome = "answered"
    problem = ""
    try:
        async with asyncio.timeout(ANSWER_S):
            await work(session, number)
    except Exception as error:  # whatever it is: it is what this call came to
        outcome, problem = _outcome(error), f"{type(error).__name__}: {error}"
    return Call(session, number, sent_at, time.monotonic(), outcome, problem)


def _outcome(error: Exception) -> Outcome:
    if isinstance(error, CallInterrupted):
        return "interrupted"
    return "failed" if isinstance(error, ModuleFailed) and ON_PURPOSE in error.problem else "unanswered"
