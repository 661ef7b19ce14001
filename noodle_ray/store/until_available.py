"""Waiting for a store that is away: what is decided is kept when it is back, and who starts waits for it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from noodle_ray.errors import Unavailable
from noodle_ray.store.backoff import Backoff

T = TypeVar("T")
log = structlog.get_logger()

BACKOFF = Backoff()


async def until_available(
    work: Callable[[], Awaitable[T]],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    chance: Callable[[], float] = random.random,
) -> T:
    """Does the work again, after longer and longer pauses, until it does not raise Unavailable any more.

    For work that may be done twice. Ray does not start an actor again that failed to start: openers wait so, too.
    """
    failures = 0
    while True:
        try:
            return await work()
        except Unavailable as error:
            failures += 1
            pause_s = BACKOFF.pause_s(failures, chance())
            log.warning("store_away", error=error.message, again_in_s=round(pause_s, 3))
        await sleep(pause_s)
