"""The order in which hosts start: those that calls wait for at once, those beside which others serve one after another.

Processes that start at once on few processors are all ready late. When a node dies, nearly every module that was there
has another host elsewhere; one that has none must not wait for the spare ones of all others.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

SPARE_WAIT_S = 30.0
"""How long a spare host waits for others at most: where many are to start, there are many nodes to start them on."""

LOOK_S = 0.1


class StartOrder:
    """Which starts are under way in one event loop."""

    def __init__(self, spare_wait_s: float = SPARE_WAIT_S) -> None:
        self._under_way = 0
        self._spare_wait_s = spare_wait_s

    @asynccontextmanager
    async def turn(self, is_spare: Callable[[], bool]) -> AsyncIterator[None]:
        """Waits until this one may start, and counts it as under way for as long as the block lasts.

        is_spare: tells whether another host serves now; asked again and again, for that one may die meanwhile.
        """
        clock = asyncio.get_running_loop().time
        waits_until = clock() + self._spare_wait_s
        while self._under_way and is_spare() and clock() < waits_until:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
