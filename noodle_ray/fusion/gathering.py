"""Waits for several pieces of work until a deadline, and says which came, which were late and which failed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from noodle_ray.errors import InvalidInput, TooLarge

Refusal = (InvalidInput, TooLarge)
"""What says that the request itself is wrong: it ends everything, for no part of the answer would be right."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """Results, names of what was late, and exceptions of what failed; all in the order of the given work."""

    results: dict[str, Any] = field(default_factory=dict)
    late: tuple[str, ...] = ()
    failed: dict[str, BaseException] = field(default_factory=dict)


async def gather_until(tasks: Mapping[str, asyncio.Task[Any]], seconds: float) -> Gathered:
    """Waits at most so long; what is not done then is cancelled. Raises the first refusal."""
    try:
        await _wait(tasks, seconds)
        return _sorted_out(tasks)
    finally:
        for task in tasks.values():
            task.cancel()


async def _wait(tasks: Mapping[str, asyncio.Task[Any]], seconds: float) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    pending = set(tasks.values())
    while pending:
        remaining = max(0.0, end - loop.time())
        done, pending = await asyncio.wait(pending, timeout=remaining, return_when=asyncio.FIRST_EXCEPTION)
        if not done or any(isinstance(_failure(task), Refusal) for task in done):
            return


def _sorted_out(tasks: Mapping[str, asyncio.Task[Any]]) -> Gathered:
    gathered = Gathered(late=tuple(name for name, task in tasks.items() if not task.done()))
    for name, task in tasks.items():
        if not task.done():
            continue
        failure = _failure(task)
        if isinstance(failure, Refusal):
            raise failure
        if failure is not None:
            gathered.failed[name] = failure
        else:
            gathered.results[name] = task.result()
    return gathered


def _failure(task: asyncio.Task[Any]) -> BaseException | None:
    return asyncio.CancelledError() if task.cancelled() else task.exception()
