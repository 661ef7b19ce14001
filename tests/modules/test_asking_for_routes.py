"""What a caller asks the registry while a module has no host: one question, however many wait and give up."""

import asyncio
from collections.abc import Generator
from concurrent.futures import Future
from typing import Any

import pytest

from noodle_ray.actors.module_calls import ModuleCaller
from noodle_ray.modules.call_route import Endpoint, Routes


class Reference:
    """What Ray gives for a call: anybody may await it, and give up."""

    def __init__(self) -> None:
        self.answer: Future[Any] = Future()

    def __await__(self) -> Generator[Any, None, Any]:
        return asyncio.shield(asyncio.wrap_future(self.answer)).__await__()

    def future(self) -> Future[Any]:
        return self.answer


class Method:
    def __init__(self) -> None:
        self.asked: list[Reference] = []

    def remote(self, *_: Any) -> Reference:
        self.asked.append(Reference())
        return self.asked[-1]


class Registry:
    """It answers when the test has it do so."""

    def __init__(self) -> None:
        self.routes, self.news = Method(), Method()


def table(epoch: int, number: int = 1) -> Routes:
    return Routes(module="m", number=number, serving=(Endpoint(epoch=epoch, version=str(epoch), host=None),))


async def give_up(caller: ModuleCaller) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await caller.version("m")


async def test_those_who_give_up_leave_their_question_to_the_next() -> None:
    registry = Registry()
    caller = ModuleCaller(registry)
    for _ in range(5):
        await give_up(caller)
    assert len(registry.routes.asked) == 1
    waiting = [asyncio.create_task(caller.version("m")) for _ in range(3)]
    await asyncio.sleep(0)
    registry.routes.asked[0].answer.set_result(table(7))
    assert await asyncio.gather(*waiting) == ["7"] * 3
    assert len(registry.routes.asked) == 1


async def test_an_answer_that_nobody_waited_for_is_old() -> None:
    registry = Registry()
    caller = ModuleCaller(registry)
    await give_up(caller)
    registry.routes.asked[0].answer.set_result(table(7))
    waiting = asyncio.create_task(caller.version("m"))
    await asyncio.sleep(0)
    assert len(registry.routes.asked) == 2
    registry.routes.asked[1].answer.set_result(table(8))
    assert await waiting == "8"
