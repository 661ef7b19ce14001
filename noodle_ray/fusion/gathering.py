"""Waits for several pieces of work until a deadline, and says which came, which were late and which failed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from noodle_ray.errors import DeadlineExceeded, InvalidInput, TooLarge

Refusal = (InvalidInput, TooLarge)
"""What says that the request itself is wrong: it ends everything, for no part of the answer would be right."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """Results, names of what was late, and exceptions of what failed; all in the order of the given work."""

    results: dict[str, Any] = field(default_factory=dict)
    late: tuple[str, ...] = ()
    failed: dict[str, BaseException] = field(default_factory=dict)


async def gather_until(tasks: Mapping[str, asyncio.Task[Any]], seconds: float) -> Gathered:
    """Waits at most so long; what is not done then goes on, for the caller to keep or to cancel.

    Raises the first refusal; then, and where the caller itself is cancelled, everything is cancelled. Work that ends
    with DeadlineExceeded was late, too.
    """
    try:
        await _wait(tasks, seconds)
        return _sorted_out(tasks)
    except BaseException:
        for task in tasks.values():
            task.cancel()
        raise


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
    results: dict[str, Any] = {}
    late: list[str] = []
    failed: dict[str, BaseException] = {}
    for name, task in tasks.items():
        failure = _failure(task) if task.done() else None
        if isinstance(failure, Refusal):
            raise failure
        if not task.done() or isinstance(failure, DeadlineExceeded):
            late.append(name)
        elif failure is not None:
            failed[name] = failure
        else:
            results[name] = task.result()
    return Gathered(results, tuple(late), failed)


def _failure(task: asyncio.Task[Any]) -> BaseException | None:
    return asyncio.CancelledError() if task.cancelled() else task.exception()


class Latecomers:
    """Work that nobody waits for any more but that is still of use when it ends: kept alive, within bounds."""

    def __init__(self, limit: int, patience_s: float) -> None:
        self._limit, self._patience_s = limit, patience_s
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def keep(self, task: asyncio.Task[Any]) -> None:
        """Lets it end by itself; cancels it where there are too many already, or when it takes too long."""
        if len(self._tasks) >= self._limit:
            task.cancel()
            return
        self._tasks.add(task)
        timer = asyncio.get_running_loop().call_later(self._patience_s, task.cancel)
        task.add_done_callback(lambda _: self._ended(task, timer))

    def _ended(self, task: asyncio.Task[Any], timer: asyncio.TimerHandle) -> None:
        timer.cancel()
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # marks it as seen: the answer that it was for has been given
