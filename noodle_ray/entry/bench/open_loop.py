"""Open loops: requests are sent when they are due, whether or not earlier ones have been answered.

Each takes its time from when it was due: a slow answer slows no question, and hides no waiting (Tene, "coordinated
omission").
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import numpy as np

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """Poisson arrivals: seconds from the start, until its end."""
    random = np.random.default_rng(seed)
    times = np.cumsum(random.exponential(1.0 / rate, max(1, int(2 * rate * seconds + 20))))
    return [float(at) for at in times[times < seconds]]


async def open_loop(
    send: Callable[[Asked, float], Awaitable[Answered]],
    requests: Sequence[Asked],
    times: Sequence[float],
    start: float | None = None,
) -> list[Answered]:
    """Sends each when it is due; returns when all are answered.

    `send` gets a request and when it was due, on the monotonic clock. start: when the times begin; None: now.
    """
    began = time.monotonic() if start is None else start
    tasks = []
    for at, request in zip(times, requests, strict=True):
        await asyncio.sleep(max(0.0, began + at - time.monotonic()))
        tasks.append(asyncio.create_task(_sent(send, request, began + at)))
    return list(await asyncio.gather(*tasks))


async def _sent(send: Callable[[Asked, float], Awaitable[Answered]], request: Asked, due: float) -> Answered:
    return await send(request, due)
