"""Batches: nothing waits for an idle encoder, and what waits for a busy one is read together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from noodle_ray.errors import DeadlineExceeded
from noodle_ray.fusion_models.batching import Batcher


class Work:
    """Doubles numbers, once it is let; notes the batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.may_go = threading.Event()
        self.may_go.set()

    def __call__(self, orders: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(orders))
        self.may_go.wait(10)
        return [ValueError("odd one out") if order == 13 else order * 2 for order in orders]


async def until(work: Work, count: int = 1) -> None:
    while len(work.batches) < count:  # noqa: ASYNC110
        await asyncio.sleep(0.001)


async def test_a_lone_order_is_run_at_once() -> None:
    work = Work()
    batcher = Batcher("numbers", work, 4)
    assert await batcher.run(3, 10.0) == 6
    assert await batcher.run(4, 10.0) == 8
    assert work.batches == [[3], [4]]


async def test_what_waits_is_run_together_in_order_and_up_to_the_limit() -> None:
    work = Work()
    work.may_go.clear()
    batcher = Batcher("numbers", work, 3)
    tasks = [asyncio.ensure_future(batcher.run(0, 10.0))]
    await until(work)
    tasks += [asyncio.ensure_future(batcher.run(number, 10.0)) for number in range(1, 6)]
    await asyncio.sleep(0)
    work.may_go.set()
    assert await asyncio.gather(*tasks) == [0, 2, 4, 6, 8, 10]
    assert work.batches == [[0], [1, 2, 3], [4, 5]]


async def test_one_orders_error_is_no_others() -> None:
    work = Work()
    work.may_go.clear()
    batcher = Batcher("numbers", work, 8)
    first = asyncio.ensure_future(batcher.run(0, 10.0))
    await until(work)
    others = [asyncio.ensure_future(batcher.run(number, 10.0)) for number in (1, 13, 2)]
    await asyncio.sleep(0)
    work.may_go.set()
    await first
    results = await asyncio.gather(*others, return_exceptions=True)
    assert [results[0], results[2]] == [2, 4]
    assert isinstance(results[1], ValueError)


async def test_where_the_work_breaks_all_who_wait_are_told() -> None:
    def broken(orders: Sequence[int]) -> list[int | Exception]:
        raise RuntimeError("out of memory")

    batcher = Batcher("numbers", broken, 8)
    results = await asyncio.gather(*(batcher.run(number, 10.0) for number in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [RuntimeError] * 3


async def test_what_could_not_be_begun_in_time_is_not_run() -> None:
    work = Work()
    work.may_go.clear()
    batcher = Batcher("numbers", work, 8)
    first = asyncio.ensure_future(batcher.run(0, 10.0))
    await until(work)
    late, gone = asyncio.ensure_future(batcher.run(1, 0.0)), asyncio.ensure_future(batcher.run(2, 10.0))
    await asyncio.sleep(0.01)
    gone.cancel()
    await asyncio.sleep(0)
    work.may_go.set()
    await first
    with pytest.raises(DeadlineExceeded, match="numbers"):
        await late
    assert work.batches == [[0]]
