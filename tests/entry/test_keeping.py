"""Work that is kept: started again in every home, through failures, until it is released or lost."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from noodle_ray.entry import keeping
from noodle_ray.entry.keeping import Kept
from noodle_ray.errors import NotFound, Unavailable
from noodle_ray.nodes.following import in_second_home
from noodle_ray.placement.allocation import Allocation, Bundle, Spare
from noodle_ray.placement.request import Request
from noodle_ray.resources import Demand


def an_allocation(**fields: Any) -> Allocation:
    bundles = (Bundle(demand=Demand(cpus=1), node_id="n1"),)
    given = {"id": "a", "epoch": 1, "state": "held", "request": Request.of(Demand(cpus=1)), "bundles": bundles}
    return Allocation(**{**given, "policy": "noodle", "created_at": 0.0, "on_loss": "restart", **fields})


class FakeManager:
    """Holds one allocation, which the test changes; a confirmed move takes place."""

    def __init__(self) -> None:
        self.row: Allocation | None = an_allocation()
        self.error: Exception | None = None
        self.confirmed: list[int] = []
        self.released = 0

    async def changed(self, allocation_id: str, mark: str, wait_s: float) -> Allocation:
        for _ in range(int(wait_s * 200)):
            if self.row is None or self.row.mark != mark or self.error is not None:
                break
            await asyncio.sleep(0.005)
        if self.error is not None:
            raise self.error
        if self.row is None:
            raise NotFound("allocation", allocation_id)
        return self.row

    async def move_confirmed(self, allocation_id: str, epoch: int) -> None:
        assert self.row is not None
        self.confirmed.append(epoch)
        self.row = in_second_home(self.row)

    async def release(self, allocation_id: str) -> None:
        self.released += 1
        self.row = None


class Work:
    """The holder's factory: notes where it was started, and fails as often as it is told to."""

    def __init__(self) -> None:
        self.groups: list[str] = []
        self.failures = 0

    def __call__(self, held: Allocation) -> str:
        self.groups.append(held.group)
        if self.failures:
            self.failures -= 1
            raise ValueError("not today")
        return f"work in {held.group}"


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "PAUSES_S", (0.01, 0.02))


@pytest.fixture
def manager() -> FakeManager:
    return FakeManager()


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def kept(manager: FakeManager, work: Work) -> Iterator[Kept[Allocation, str]]:
    kept = Kept(an_allocation(), manager, lambda allocation: allocation, work)
    yield kept
    kept.stop()


def eventually(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_it_is_started_at_once(kept: Kept[Allocation, str]) -> None:
    assert (kept.result, kept.held.group, kept.lost) == ("work in a.1", "a.1", None)


def test_a_first_start_that_fails_is_the_callers(manager: FakeManager, work: Work) -> None:
    work.failures = 1
    with pytest.raises(ValueError, match="not today"):
        Kept(an_allocation(), manager, lambda allocation: allocation, work)


def test_it_is_started_again_in_a_new_home(kept: Kept[Allocation, str], manager: FakeManager) -> None:
    seen: list[str] = []
    kept.on_change = lambda now: seen.append(now.result)
    manager.row = an_allocation(epoch=2, state="reserving")
    manager.row = an_allocation(epoch=2)
    eventually(lambda: seen == ["work in a.2"])
    assert kept.held.group == "a.2"


def test_a_start_that_fails_is_tried_again(kept: Kept[Allocation, str], manager: FakeManager, work: Work) -> None:
    work.failures = 3
    manager.row = an_allocation(epoch=2)
    eventually(lambda: kept.result == "work in a.2")
    assert work.groups == ["a.1", *["a.2"] * 4]


def test_a_home_that_is_lost_while_starting_fails_is_not_insisted_on(
    kept: Kept[Allocation, str], manager: FakeManager, work: Work
) -> None:
    work.failures = 10**6
    manager.row = an_allocation(epoch=2)
    eventually(lambda: len(work.groups) > 3)
    manager.row, work.failures = an_allocation(epoch=3), 0
    eventually(lambda: kept.held.group == "a.3")
    assert (kept.result, kept.lost) == ("work in a.3", None)


def test_a_move_is_started_before_it_is_confirmed(
    kept: Kept[Allocation, str], manager: FakeManager, work: Work
) -> None:
    confirmed_at_start: list[list[int]] = []
    kept.on_change = lambda now: confirmed_at_start.append(list(manager.confirmed))
    manager.row = an_allocation(spare=Spare(epoch=2, bundles=an_allocation().bundles, ready=True))
    eventually(lambda: manager.confirmed == [2])
    assert (confirmed_at_start, work.groups) == ([[]], ["a.1", "a.2"])
    manager.row = an_allocation(epoch=3)
    eventually(lambda: work.groups == ["a.1", "a.2", "a.3"])


def test_a_manager_that_is_away_is_waited_for(kept: Kept[Allocation, str], manager: FakeManager) -> None:
    manager.error = Unavailable("gone")
    eventually(lambda: kept._failures > 3)
    assert (kept.held.group, kept.lost) == ("a.1", None)
    manager.row, manager.error = an_allocation(epoch=2), None
    eventually(lambda: kept.held.group == "a.2")
    assert kept.result == "work in a.2"


def test_a_callback_that_fails_does_not_end_it(kept: Kept[Allocation, str], manager: FakeManager) -> None:
    def fails(now: Kept[Allocation, str]) -> None:
        raise RuntimeError(now.held.group)

    kept.on_change = fails
    for epoch in (2, 3):
        manager.row = an_allocation(epoch=epoch)
        eventually(lambda group=f"a.{epoch}": kept.held.group == group)  # type: ignore[misc]
    assert (kept.result, kept.lost) == ("work in a.3", None)


def test_what_is_lost_is_said_and_its_row_released(kept: Kept[Allocation, str], manager: FakeManager) -> None:
    told = threading.Event()
    kept.on_change = lambda now: told.set()
    manager.row = an_allocation(state="lost")
    assert told.wait(10)
    assert kept.lost == "it was lost with its node"
    eventually(lambda: manager.released == 1)
    kept.close()
    assert kept.lost == "it was lost with its node"


def test_what_another_released_is_gone(kept: Kept[Allocation, str], manager: FakeManager) -> None:
    manager.row = None
    eventually(lambda: kept.lost is not None)
    assert kept.lost == "it was released, or could not be held again"


def test_close_releases_it_once_and_ends_its_thread(kept: Kept[Allocation, str], manager: FakeManager) -> None:
    kept.close()
    kept.close()
    assert (manager.released, kept.lost) == (1, "it was released")
    assert "keep-a" not in [thread.name for thread in threading.enumerate()]


def test_stop_releases_nothing(kept: Kept[Allocation, str], manager: FakeManager) -> None:
    kept.stop()
    assert (manager.released, kept.lost) == (0, None)


def test_it_may_be_closed_from_its_own_callback(kept: Kept[Allocation, str], manager: FakeManager) -> None:
    kept.on_change = lambda now: now.close()
    manager.row = an_allocation(epoch=2)
    eventually(lambda: manager.released == 1)
    eventually(lambda: "keep-a" not in [thread.name for thread in threading.enumerate()])
    assert kept.lost == "it was released"


def test_a_start_may_have_an_event_loop_of_its_own(manager: FakeManager) -> None:
    async def work() -> str:
        return "done"

    def start(held: Allocation) -> str:
        return asyncio.run(work())

    with Kept(an_allocation(), manager, lambda allocation: allocation, start) as kept:
        manager.row = an_allocation(epoch=2)
        eventually(lambda: kept.held.group == "a.2")
        assert kept.result == "done"
