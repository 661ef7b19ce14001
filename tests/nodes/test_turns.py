"""Who comes next where only a few may: what frees, then the others in their order, or the newest where that is late."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from noodle_ray.nodes.turns import LATE_S, Turns


class Line:
    """Turns of which one is taken, and whoever lines up behind it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.turns = Turns(1, clock=lambda: self.now)
        self.served: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.first_ends = asyncio.Event()

    async def add(self, name: str, frees: bool = False) -> None:
        self.tasks[name] = asyncio.create_task(self._take(name, frees))
        await asyncio.sleep(0)

    async def _take(self, name: str, frees: bool) -> None:
        async with self.turns.turn(name, frees) as is_ours:
            self.served.append(name if is_ours else f"not {name}")
            if name == "first":
                await self.first_ends.wait()

    async def end(self) -> list[str]:
        self.first_ends.set()
        await asyncio.wait_for(asyncio.gather(*self.tasks.values(), return_exceptions=True), 5)
        return self.served


def played(play: Callable[[Line], Coroutine[Any, Any, None]]) -> list[str]:
    async def run() -> list[str]:
        line = Line()
        await line.add("first")
        await play(line)
        return await line.end()

    return asyncio.run(run())


@pytest.mark.parametrize(("late_s", "order"), [(0.0, ["a", "b", "c"]), (LATE_S + 0.1, ["c", "b", "a"])])
def test_in_their_order_or_the_newest_first_when_that_is_late(late_s: float, order: list[str]) -> None:
    async def play(line: Line) -> None:
        for name in "abc":
            await line.add(name)
        line.now += late_s

    assert played(play) == ["first", *order]


def test_what_frees_goes_before_all_others() -> None:
    async def play(line: Line) -> None:
        await line.add("makes")
        await line.add("frees", frees=True)
        await line.add("frees too", frees=True)

    assert played(play) == ["first", "frees", "frees too", "makes"]


def test_what_is_called_off_hears_so_at_once_and_keeps_nobody() -> None:
    async def play(line: Line) -> None:
        await line.add("a")
        await line.add("b")
        line.turns.call_off("a")
        line.turns.call_off("first")  # it has its turn
        line.turns.call_off("nobody")
        await line.tasks["a"]
        assert line.served == ["first", "not a"]

    assert played(play) == ["first", "not a", "b"]


@pytest.mark.parametrize("has_its_turn", [False, True])
def test_who_is_cancelled_takes_no_turn_with_it(has_its_turn: bool) -> None:
    async def play(line: Line) -> None:
        await line.add("a")
        await line.add("b")
        if has_its_turn:
            line.first_ends.set()
            await asyncio.sleep(0)  # the first passes its turn on, and "a" has not run yet
        line.tasks["a"].cancel()
        line.turns.call_off("a")

    assert played(play) == ["first", "b"]


def test_who_is_cancelled_as_its_turn_comes_takes_none_with_it() -> None:
    async def play(line: Line) -> None:
        await line.add("a")
        await line.add("b")
        line.tasks["a"].cancel()
        line.first_ends.set()
        await asyncio.sleep(0)  # the first passes its turn on before "a" hears that it was cancelled

    assert played(play) == ["first", "b"]


def test_so_many_at_once_and_no_more() -> None:
    async def run() -> int:
        turns, inside, most = Turns(3), 0, 0

        async def take(number: int) -> None:
            nonlocal inside, most
            async with turns.turn(str(number), frees=number % 3 == 0):
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0)
                inside -= 1

        await asyncio.gather(*map(take, range(50)))
        return most

    assert asyncio.run(run()) == 3
