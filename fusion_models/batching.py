"""Batches: what waits while an encoder is busy is read together when it is free; where it is idle, nothing waits.

Ray Serve's own `@serve.batch` takes a batch out of its queue before the one ahead has ended: with no waiting time its
batches have one order each however long the queue is, and with a waiting time a lone order pays for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from noodle_ray.errors import DeadlineExceeded

Order = TypeVar("Order")
Answer = TypeVar("Answer")


@dataclass(slots=True)
class _Waiting(Generic[Order, Answer]):
    order: Order
    future: asyncio.Future[Answer]
    until_s: float
    within_s: float


class Batcher(Generic[Order, Answer]):
    """Runs `work` on at most `limit` orders at a time, in one thread; an exception among its answers is raised.

    `work` gives one answer for each order, in their order.
    """

    def __init__(self, name: str, work: Callable[[Sequence[Order]], Sequence[Answer | Exception]], limit: int) -> None:
        self._name, self._work, self._limit = name, work, limit
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._queue: deque[_Waiting[Order, Answer]] = deque()
        self._running: asyncio.Task[None] | None = None

    async def run(self, order: Order, within_s: float) -> Answer:
        """The order's answer. Raises DeadlineExceeded where it could not be begun within so many seconds."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._queue.append(_Waiting(order, future, loop.time() + within_s, within_s))
        if self._running is None:
            self._running = loop.create_task(self._empty_queue())
        return await future

    async def _empty_queue(self) -> None:
        try:
            while batch := self._next_batch():
                await self._answer(batch)
        finally:
            self._running = None

    def _next_batch(self) -> list[_Waiting[Order, Answer]]:
        now_s = asyncio.get_running_loop().time()
        batch: list[_Waiting[Order, Answer]] = []
        while self._queue and len(batch) < self._limit:
            waiting = self._queue.popleft()
            if waiting.future.done():  # nobody waits for it any more
                continue
            if now_s > waiting.until_s:
                waiting.future.set_exception(
                    DeadlineExceeded(f"{self._name} (others were before it)", waiting.within_s * 1000)
                )
                continue
            batch.append(waiting)
        return batch

    async def _answer(self, batch: Sequence[_Waiting[Order, Answer]]) -> None:
        answers = await asyncio.get_running_loop().run_in_executor(self._thread, self._run, batch)
        for waiting, answer in zip(batch, answers, strict=True):
            if waiting.future.done():
                continue
            if isinstance(answer, Exception):
                waiting.future.set_exception(answer)
            else:
                waiting.future.set_result(answer)

    def _run(self, batch: Sequence[_Waiting[Order, Answer]]) -> Sequence[Answer | Exception]:
        try:
            return self._work([waiting.order for waiting in batch])
        except Exception as error:  # whatever it is, those who wait are told
            return [error] * len(batch)
