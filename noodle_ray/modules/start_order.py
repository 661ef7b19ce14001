"""The order in which hosts start: those that calls wait for at once, those beside which others serve one after another.

Processes that start at once on few processors are all ready late. When a node dies, nearly every module that was there
has another host elsewhere; one that has none must not wait for the spare ones of all others. Of the spare ones, that of
the module which is called most is missed most where the other host dies, too: it goes first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

SPARE_WAIT_S = 30.0
"""How long a spare host waits for others at most: where many are to start, there are many nodes to start them on."""

LOOK_S = 0.5
"""How often those that wait look for their turn, and after how long first: those of a node that dies come together."""


class StartOrder:
    """Which starts are under way in one event loop."""

    def __init__(self, spare_wait_s: float = SPARE_WAIT_S, look_s: float = LOOK_S) -> None:
        self._under_way = 0
        self._waiting: dict[object, int] = {}
        self._spare_wait_s, self._look_s = spare_wait_s, look_s

    @asynccontextmanager
    async def turn(self, is_spare: Callable[[], bool], calls: int = 0) -> AsyncIterator[None]:
        """Waits until this one may start, and counts it as under way for as long as the block lasts.

        is_spare: tells whether another host serves now; asked again and again, for that one may die meanwhile.
        calls: how often its module is called, compared with others.
        """
        await self._wait(is_spare, calls)
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    async def _wait(self, is_spare: Callable[[], bool], calls: int) -> None:
        clock = asyncio.get_running_loop().time
        waits_until, me = clock() + self._spare_wait_s, object()
        self._waiting[me] = calls
        try:
            while is_spare() and clock() < waits_until:
                await asyncio.sleep(self._look_s)
                if not self._under_way and me is max(self._waiting, key=self._waiting.__getitem__):
                    return
        finally:
            del self._waiting[me]
