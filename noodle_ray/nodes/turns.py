"""Turns: a few at a time, and who comes next where more want to be: what frees goes first, what is late goes last.

A queue that is served in its order turns every asker away late, once it is longer than they wait: all are served when
they have gone. Serving the newest first then keeps some of them (adaptive LIFO; Maurer 2015, "Fail at Scale", ACM Queue
13(8)).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

LATE_S = 1.0
"""When the oldest has waited for so long, the newest goes first."""


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    name: str
    since: float
    turn: asyncio.Future[bool]


class Turns:
    """So many turns at once, for one event loop."""

    def __init__(self, at_once: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._free = at_once
        self._clock = clock
        self._freeing: list[_Waiting] = []
        self._others: list[_Waiting] = []

    @asynccontextmanager
    async def turn(self, name: str, frees: bool = False) -> AsyncIterator[bool]:
        """A turn, for as long as the block lasts; False where it was called off before it came."""
        is_ours = await self._wait(name, frees)
        try:
            yield is_ours
        finally:
            if is_ours:
                self._pass_on()

    def call_off(self, name: str) -> None:
        """What waits by this name, and frees nothing, waits no longer; who has a turn keeps it."""
        for one in [one for one in self._others if one.name == name]:
            self._others.remove(one)
            if not one.turn.done():
                one.turn.set_result(False)

    async def _wait(self, name: str, frees: bool) -> bool:
        if self._free:
            self._free -= 1
            return True
        line = self._freeing if frees else self._others
        one = _Waiting(name, self._clock(), asyncio.get_running_loop().create_future())
        line.append(one)
        try:
            return await one.turn
        except asyncio.CancelledError:
            if one in line:
                line.remove(one)
            elif not one.turn.cancelled() and one.turn.result():
                self._pass_on()  # it came at the same moment
            raise

    def _pass_on(self) -> None:
        while (one := self._next()) is not None:
            if not one.turn.done():  # else it was cancelled, and has not heard of it yet
                one.turn.set_result(True)
                return
        self._free += 1

    def _next(self) -> _Waiting | None:
        if self._freeing:
            return self._freeing.pop(0)
        if not self._others:
            return None
        is_late = self._clock() - self._others[0].since > LATE_S
        return self._others.pop(-1 if is_late else 0)
