"""`noodle bench chaos`: the watcher says what is missing, also of a system that does not answer."""

import asyncio
import time
from collections.abc import Sequence

import pytest

from noodle_ray.entry.bench.chaos import watcher
from noodle_ray.entry.bench.chaos.watcher import Watcher
from noodle_ray.errors import DeadlineExceeded, Unavailable

ADDRESSES = ("http://a", "http://b")


class System:
    """Whole, until told otherwise."""

    def __init__(self) -> None:
        self.nodes = 3
        self.unready: list[str] = []
        self.healthy = set(ADDRESSES)
        self.answers = True
        self.hangs = False
        self.error: Exception | None = None

    async def alive_nodes(self) -> int:
        if self.hangs:
            await asyncio.sleep(60)
        return self.nodes

    async def unready_encoders(self) -> Sequence[str]:
        return self.unready

    async def is_healthy(self, address: str) -> bool:
        return address in self.healthy

    async def module_answers(self) -> bool:
        if self.error is not None:
            raise self.error
        return self.answers


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "LOOK_S", 0.02)
    monkeypatch.setattr(watcher, "ANSWER_S", 0.2)


def watching(system: System) -> Watcher:
    return Watcher(system, 3, ADDRESSES, time.monotonic())


async def test_a_whole_system_lacks_nothing() -> None:
    seen = await watching(System()).look()
    assert seen.is_whole and seen.missing == () and 0 <= seen.at_s < 1


async def test_all_that_is_missing_is_named() -> None:
    system = System()
    system.nodes, system.unready, system.healthy, system.answers = 2, ["text", "audio"], {"http://a"}, False
    seen = await watching(system).look()
    assert seen.missing == ("nodes: 2 of 3", "encoders: text, audio", "module", "http://b")


async def test_what_raises_or_does_not_answer_is_missing() -> None:
    system = System()
    system.hangs, system.error = True, Unavailable("nobody is there")
    assert (await watching(system).look()).missing == ("nodes", "module")


async def test_an_error_that_is_no_answer_of_the_system_is_not_hidden() -> None:
    system = System()
    system.error = KeyError("result")
    with pytest.raises(KeyError):
        await watching(system).look()


async def test_it_looks_until_it_is_over_and_a_look_that_waits_holds_none_up() -> None:
    system, over = System(), asyncio.Event()
    system.hangs = True
    looking = watching(system)
    task = asyncio.create_task(looking.watch(over))
    await asyncio.sleep(0.15)
    system.hangs = False
    await asyncio.sleep(0.15)
    over.set()
    await task
    at = [seen.at_s for seen in looking.seen]
    assert len(at) >= 4 and at == sorted(at)
    assert looking.seen[0].missing == ("nodes",) and looking.seen[-1].is_whole


async def test_it_waits_for_a_whole_system_or_says_what_it_lacks() -> None:
    system = System()
    system.nodes = 1
    looking = watching(system)
    with pytest.raises(DeadlineExceeded, match="nodes: 1 of 3"):
        await looking.until_whole(0.1)
    asyncio.get_running_loop().call_later(0.05, lambda: setattr(system, "nodes", 3))
    await looking.until_whole(10)
    assert looking.seen[-1].is_whole
