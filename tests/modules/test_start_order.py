"""Hosts that calls wait for start at once; spare ones start one after another, but wait for so long only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from noodle_ray.modules.start_order import StartOrder

LOOK_S = 0.02


class Starts:
    """Starts that last until they are told to end."""

    def __init__(self, spare_wait_s: float = 60.0) -> None:
        self.order = StartOrder(spare_wait_s, LOOK_S)
        self.begun: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.ends: dict[str, asyncio.Event] = {}

    def add(self, name: str, is_spare: Callable[[], bool], calls: int = 0) -> None:
        self.ends[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._start(name, is_spare, calls))

    async def _start(self, name: str, is_spare: Callable[[], bool], calls: int) -> None:
        async with self.order.turn(is_spare, calls):
            self.begun.append(name)
            await self.ends[name].wait()

    async def looked(self) -> list[str]:
        """What has begun after everybody has looked."""
        await asyncio.sleep(3 * LOOK_S)
        return sorted(self.begun)


def needed() -> bool:
    return False


def spare() -> bool:
    return True


async def test_what_calls_wait_for_starts_at_once_and_the_spare_ones_one_after_another() -> None:
    starts = Starts()
    for name in ("spare 1", "spare 2", "spare 3"):
        starts.add(name, spare)
    assert await starts.looked() == ["spare 1"]
    for name in ("needed 1", "needed 2"):
        starts.add(name, needed)
    assert await starts.looked() == ["needed 1", "needed 2", "spare 1"]
    starts.ends["spare 1"].set()
    assert len(await starts.looked()) == 3  # those that are needed go first
    starts.ends["needed 1"].set()
    starts.ends["needed 2"].set()
    assert len(await starts.looked()) == 4
    for end in starts.ends.values():
        end.set()
    await asyncio.gather(*starts.tasks.values())


async def test_of_the_spare_ones_that_which_is_called_most_goes_first() -> None:
    starts = Starts()
    for name, calls in (("seldom", 1), ("often", 9), ("also often", 9), ("never", 0)):
        starts.add(name, spare, calls)
    for name in ("often", "also often", "seldom", "never"):
        await starts.looked()
        assert starts.begun[-1] == name
        starts.ends[name].set()


async def test_one_whose_other_host_dies_meanwhile_waits_no_longer() -> None:
    starts, others = Starts(), {"other"}
    starts.add("first", spare)
    starts.add("second", lambda: bool(others))
    assert await starts.looked() == ["first"]
    others.clear()
    assert await starts.looked() == ["first", "second"]


async def test_nobody_waits_for_ever() -> None:
    starts = Starts(spare_wait_s=LOOK_S)
    starts.add("first", spare)
    starts.add("second", spare)
    assert await starts.looked() == ["first", "second"]


async def test_one_that_is_called_off_holds_up_nobody() -> None:
    starts = Starts()
    for name in ("first", "second", "third"):
        starts.add(name, spare)
    await starts.looked()
    starts.tasks["second"].cancel()  # it waits
    starts.tasks["first"].cancel()  # it starts
    assert await starts.looked() == ["first", "third"]
