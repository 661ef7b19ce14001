"""Groups that are given up while they wait for their turn, or for Ray, keep no others from theirs."""

import asyncio
import threading
from types import SimpleNamespace

import pytest

from noodle_ray.actors import groups, ray_state
from noodle_ray.actors.groups import GROUPS_AT_ONCE, Groups
from noodle_ray.nodes.instructions import PinnedBundle

BUNDLES = (PinnedBundle("deaf", {"CPU": 1.0}),)


class _View:
    """A view in which there is always room, and never any group."""

    def __init__(self):
        self.free = {"deaf": {"CPU": 100.0}}

    async def until(self, condition, timeout_s):
        return condition()


class _Ray:
    """Asked for groups, it answers when it is let go."""

    def __init__(self):
        self.asked, self.turns, self.let_go = [], threading.Semaphore(0), threading.Event()

    def create_group(self, name, bundles, timeout_s, called_off):
        self.asked.append(name)
        self.turns.release()
        self.let_go.wait(10)
        return name.encode().hex(), False


@pytest.fixture
def slow_ray(monkeypatch):
    slow = _Ray()
    monkeypatch.setattr(groups.ray_state, "create_group", slow.create_group)
    monkeypatch.setattr(groups.ray_state, "group_named", lambda name: None)
    yield slow
    slow.let_go.set()


def test_what_was_given_up_before_its_turn_is_not_asked_for(slow_ray):
    async def give_up():
        made = Groups(_View())
        first = [asyncio.create_task(made.create(f"first-{one}", BUNDLES)) for one in range(GROUPS_AT_ONCE)]
        last = asyncio.create_task(made.create("last", BUNDLES))
        for _ in first:
            await asyncio.to_thread(slow_ray.turns.acquire)
        removed = asyncio.create_task(made.remove("last"))
        await asyncio.sleep(0)
        slow_ray.let_go.set()
        problem = await last
        assert await removed
        await asyncio.gather(*first)
        return problem

    problem = asyncio.run(give_up())
    assert problem is not None and "given up" in problem.reason
    assert "last" not in slow_ray.asked


@pytest.mark.parametrize(("called_off_after", "waited"), [(0, 0), (2, 2), (9, 5)])
def test_nobody_waits_for_a_group_that_was_given_up(monkeypatch, called_off_after, waited):
    waits = []

    def wait(seconds):
        waits.append(seconds)
        return False

    group = SimpleNamespace(id=b"id", wait=wait)
    monkeypatch.setattr(ray_state, "placement_group", lambda *_, **__: group)
    made = ray_state.create_group("noodle-one.1", BUNDLES, 5.0, lambda: len(waits) >= called_off_after)
    assert made == (b"id".hex(), False)
    assert waits == [1] * waited


def test_a_group_that_ray_reserves_is_not_waited_for_any_longer(monkeypatch):
    answers = iter([False, True])
    group = SimpleNamespace(id=b"id", wait=lambda seconds: next(answers))
    monkeypatch.setattr(ray_state, "placement_group", lambda *_, **__: group)
    assert ray_state.create_group("noodle-one.1", BUNDLES, 5.0) == (b"id".hex(), True)
