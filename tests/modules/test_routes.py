"""Routes: which host a call finds, what a session keeps to, and what the board tells whom."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noodle_ray.errors import NotFound
from noodle_ray.modules import route_board
from noodle_ray.modules.call_route import Endpoint, Routes
from noodle_ray.modules.route_board import RouteBoard
from noodle_ray.modules.versions import VersionConstraint


def endpoints(*epochs: int, version: str = "1.0") -> tuple[Endpoint, ...]:
    return tuple(Endpoint(epoch, version, f"host-{epoch}") for epoch in epochs)


def chosen(routes: Routes, **asked: object) -> int | None:
    found = routes.choose(asked.pop("outstanding", {}), **asked)  # type: ignore[arg-type]
    return found.epoch if found is not None else None


class TestChoice:
    def test_the_host_with_the_fewest_calls(self) -> None:
        routes = Routes("m", 1, serving=endpoints(1, 2, 3))
        assert chosen(routes, outstanding={1: 2, 2: 1, 3: 2}) == 2
        assert {chosen(routes, outstanding={1: 1}) for _ in range(100)} == {2, 3}

    def test_a_share_of_the_calls_tries_the_new_version(self) -> None:
        routes = Routes("m", 1, serving=endpoints(1), canary=endpoints(2, version="2.0"), share=0.1)
        found = Counter(chosen(routes) for _ in range(5000))
        assert 350 < found[2] < 650

    def test_a_session_is_in_the_share_or_not(self) -> None:
        routes = Routes("m", 1, serving=endpoints(1), canary=endpoints(2, version="2.0"), share=0.3)
        for number in range(20):
            assert len({chosen(routes, session=f"s{number}") for _ in range(20)}) == 1
        found = Counter(chosen(routes, session=f"s{number}") for number in range(2000))
        assert 500 < found[2] < 700

    def test_what_was_found_gone_is_avoided(self) -> None:
        routes = Routes("m", 1, serving=endpoints(1, 2))
        assert chosen(routes, avoid={1}) == 2
        assert chosen(routes, avoid={1, 2}) is None
        assert chosen(Routes("m", 1)) is None

    def test_pins(self) -> None:
        routes = Routes("m", 1, serving=endpoints(3, version="2.0"), pinned=endpoints(1))
        assert chosen(routes, pin=VersionConstraint.parse("==1.0")) == 1
        assert chosen(routes, pin=VersionConstraint.parse(">=1")) == 3
        with pytest.raises(NotFound, match=r"no running version 'm ==3'; known: 2\.0, 1\.0"):
            chosen(routes, pin=VersionConstraint.parse("==3"))
        assert chosen(Routes("m", 1), pin=VersionConstraint.parse("==3")) is None, "it may be on its way"

    @given(hosts=st.sets(st.integers(1, 50), min_size=2, max_size=8), session=st.text(max_size=20))
    def test_a_host_that_goes_moves_no_session_but_its_own(self, hosts: set[int], session: str) -> None:
        before = chosen(Routes("m", 1, serving=endpoints(*hosts)), session=session)
        for gone in hosts - {before}:
            left = endpoints(*(hosts - {gone}))
            assert chosen(Routes("m", 2, serving=left), session=session) == before


class TestBoard:
    async def test_a_table_is_found_once_it_has_a_host_that_is_not_avoided(self) -> None:
        board = RouteBoard(100)
        with pytest.raises(NotFound, match="no loaded module 'm'"):
            await board.find("m")
        board.publish(Routes("m", 0))
        waiting = asyncio.create_task(board.find("m", avoid=(1,)))
        await asyncio.sleep(0)
        board.publish(Routes("m", 0, serving=endpoints(1)))
        await asyncio.sleep(0)
        assert not waiting.done()
        board.publish(Routes("m", 0, serving=endpoints(1, 2)))
        found = await waiting
        assert [each.epoch for each in found.serving] == [1, 2] and found.number == 103

    async def test_a_caller_that_is_wrong_gets_the_table_with_a_new_number(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(route_board, "DOUBT_S", 0.01)
        board = RouteBoard(1)
        board.publish(Routes("m", 0, serving=endpoints(1)))
        first = await board.find("m")
        again = await board.find("m", avoid=(1,))
        assert again.serving == first.serving and again.number > first.number

    async def test_what_is_withdrawn_is_told_to_those_who_wait(self) -> None:
        board = RouteBoard(1)
        board.publish(Routes("m", 0))
        waiting = asyncio.create_task(board.find("m"))
        await asyncio.sleep(0)
        board.withdraw("m")
        with pytest.raises(NotFound):
            await waiting
        board.withdraw("m")

    async def test_news_are_what_has_another_number(self, monkeypatch: pytest.MonkeyPatch) -> None:
        board = RouteBoard(1)
        board.publish(Routes("m", 0, serving=endpoints(1)))
        board.publish(Routes("n", 0, serving=endpoints(2)))
        m, n = await board.find("m"), await board.find("n")
        assert await board.news({"m": 0, "n": n.number, "gone": 7}) == {"m": m, "gone": None}
        waiting = asyncio.create_task(board.news({"n": n.number}))
        await asyncio.sleep(0)
        board.publish(Routes("m", 0, serving=endpoints(3)))
        board.publish(Routes("n", 0, serving=endpoints(2)))
        await asyncio.sleep(0)
        assert not waiting.done(), "the same table is no news"
        board.withdraw("n")
        assert await waiting == {"n": None}
        monkeypatch.setattr(route_board, "NEWS_S", 0.01)
        assert await board.news({}) == {}
