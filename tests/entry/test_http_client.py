"""The client over several gateways: turns, the one retry, and what it says when nobody answers. Real servers."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from aiohttp import web

from noodle_ray.entry import http_client
from noodle_ray.entry.http_client import NOTHING, Answer, GatewayClient
from noodle_ray.entry.retry_budget import RetryBudget
from noodle_ray.errors import DeadlineExceeded, InvalidInput, NoodleError, Unavailable

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
TOKEN = "a-token-of-the-tests"


class Gateway:
    """A server that answers as it is told to, and notes what it was asked, and how often how it is."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.asked: list[tuple[str, str, str]] = []
        self.looked_at = 0
        self.address = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path == NOTHING:
            self.looked_at += 1
        else:
            self.asked.append((request.method, request.path_qs, await request.text()))
        return await self.handler(request)


@asynccontextmanager
async def gateways(*handlers: Handler) -> AsyncIterator[list[Gateway]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(_served(Gateway(handler))) for handler in handlers]


@asynccontextmanager
async def _served(gateway: Gateway) -> AsyncIterator[Gateway]:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", gateway.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    gateway.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield gateway
    finally:
        await runner.cleanup()


async def fine(request: web.Request) -> web.Response:
    return web.json_response({"token": request.headers["Authorization"]})


async def hangs(request: web.Request) -> web.Response:
    await asyncio.sleep(60)
    raise AssertionError


async def breaks_off(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def says(status: int, retry_after: str | None = None, kind: str = "application/json") -> Handler:
    async def handle(request: web.Request) -> web.Response:
        headers = {} if retry_after is None else {"Retry-After": retry_after}
        return web.Response(status=status, headers=headers, content_type=kind)

    return handle


def client(
    *addresses: str,
    deadline_s: float = 5.0,
    first_s: float = 0.3,
    budget: RetryBudget | None = None,
    retries: int = 1,
) -> GatewayClient:
    return GatewayClient(addresses, TOKEN, deadline_s, first_s, budget, retries)


def a_dead_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


async def test_addresses_are_asked_in_turn_with_the_token_and_the_body() -> None:
    async with gateways(fine, fine) as (one, two), client(one.address + "/", two.address) as asking:
        answers = [await asking.ask("POST", "/x?y=1", {"number": number}) for number in range(4)]
    assert [answer.address for answer in answers] == [one.address, two.address] * 2
    assert answers[0].result() == {"token": f"Bearer {TOKEN}"}
    assert two.asked == [("POST", "/x?y=1", '{"number": 1}'), ("POST", "/x?y=1", '{"number": 3}')]
    assert not any(answer.retried for answer in answers)


@pytest.mark.parametrize(
    "first",
    [
        hangs,
        breaks_off,
        says(502),
        says(503),
        says(504),
        says(429),
        says(404, kind="text/plain"),
        says(500, kind="a/b"),
    ],
    ids=["hangs", "breaks off", "502", "503", "504", "429", "a proxy's 404", "a proxy's 500"],
)
async def test_what_may_be_repeated_is_asked_once_more_at_the_next_address(first: Handler) -> None:
    async with gateways(first, fine) as (one, two), client(one.address, two.address) as asking:
        answer = await asking.ask("GET", "/x")
    assert (answer.status, answer.address, answer.retried) == (200, two.address, True)
    assert (len(one.asked), len(two.asked)) == (1, 1)


async def test_an_address_where_nobody_listens_is_passed_over() -> None:
    async with gateways(fine) as (two,), client(a_dead_address(), two.address) as asking:
        assert (await asking.ask("DELETE", "/x")).status == 200


@pytest.mark.parametrize("status", [200, 204, 401, 404, 409, 422, 500])
async def test_an_answer_that_another_gateway_would_give_too_is_not_asked_for_again(status: int) -> None:
    async with gateways(says(status), fine) as (one, two), client(one.address, two.address) as asking:
        answer = await asking.ask("GET", "/x")
    assert (answer.status, answer.retried, len(two.asked)) == (status, False, 0)


async def test_a_post_is_not_repeated_unless_it_is_said_to_be_harmless() -> None:
    async with gateways(breaks_off, fine) as (one, two), client(one.address, two.address) as asking:
        with pytest.raises(Unavailable):
            await asking.ask("POST", "/x", {})
        assert two.asked == []
    async with gateways(breaks_off, fine) as (one, two), client(one.address, two.address) as asking:
        assert (await asking.ask("POST", "/x", {}, repeatable=True)).retried
    assert [len(each.asked) for each in (one, two)] == [1, 1]


@pytest.mark.parametrize("failing", [breaks_off, says(404, kind="text/plain")], ids=["breaks", "proxy"])
async def test_an_address_that_failed_is_passed_over_until_it_is_well_again(failing: Handler) -> None:
    async with gateways(failing, fine) as (one, two), client(one.address, two.address) as asking:
        assert (await asking.ask("GET", "/x")).retried
        for _ in range(3):
            answer = await asking.ask("GET", "/x")
            assert (answer.address, answer.retried) == (two.address, False)
        one.handler = fine
        async with asyncio.timeout(10):
            while (await asking.ask("GET", "/x")).address == two.address:  # noqa: ASYNC110  (only asking tells)
                await asyncio.sleep(0.05)
    assert (len(one.asked), one.looked_at) >= (2, 1)


async def test_an_address_that_hangs_altogether_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noodle_ray.entry.http_client.HEALTH_S", 0.2)
    async with gateways(hangs, fine) as (one, two), client(one.address, two.address) as asking:
        assert (await asking.ask("GET", "/x")).retried
        async with asyncio.timeout(10):
            while not one.looked_at:  # noqa: ASYNC110  (the server knows)
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        asked = len(one.asked)
        for _ in range(4):
            assert not (await asking.ask("GET", "/x")).retried
    assert len(one.asked) == asked


async def test_an_address_keeps_its_turn_where_only_what_was_asked_for_takes_long() -> None:
    async def slow(request: web.Request) -> web.Response:
        return await (fine if request.path == NOTHING else hangs)(request)

    async with gateways(slow, fine) as (one, two), client(one.address, two.address) as asking:
        for _ in range(4):
            assert (await asking.ask("GET", "/x")).address == two.address
    assert len(one.asked) == 2


async def test_an_address_that_is_busy_keeps_its_turn() -> None:
    async with gateways(says(503), fine) as (one, two), client(one.address, two.address) as asking:
        for _ in range(4):
            await asking.ask("GET", "/x")
    assert len(one.asked) == 2


async def test_what_was_never_sent_is_asked_for_again_even_if_it_may_not_be_repeated() -> None:
    async with gateways(fine) as (two,), client(a_dead_address(), two.address) as asking:
        answer = await asking.ask("POST", "/x", {})
    assert (answer.status, answer.retried, len(two.asked)) == (200, True, 1)


async def test_where_the_second_address_takes_no_connection_the_first_is_asked_again() -> None:
    slow_once = [hangs]

    async def handle(request: web.Request) -> web.StreamResponse:
        is_asked = request.path != NOTHING
        return await (slow_once.pop() if is_asked and slow_once else fine)(request)

    async with gateways(handle) as (one,), client(one.address, a_dead_address()) as asking:
        answer = await asking.ask("GET", "/x")
    assert (answer.status, answer.address, answer.retried) == (200, one.address, True)
    assert len(one.asked) == 2


async def test_what_was_sent_and_may_not_be_repeated_is_not_asked_for_again_for_want_of_a_second_address() -> None:
    async with gateways(breaks_off) as (one,), client(one.address, a_dead_address()) as asking:
        with pytest.raises(Unavailable):
            await asking.ask("POST", "/x", {})
    assert len(one.asked) == 1


async def test_it_ends_where_no_address_takes_a_connection() -> None:
    dead = [a_dead_address() for _ in range(3)]
    async with client(*dead) as asking:
        with pytest.raises(Unavailable) as raised:
            await asking.ask("GET", "/x")
    assert raised.value.message.count("Cannot connect") == 2


async def test_the_error_tells_of_three_tries_where_one_was_not_sent() -> None:
    dead = a_dead_address()
    async with gateways(hangs) as (one,), client(one.address, dead) as asking:
        with pytest.raises(DeadlineExceeded, match=f"{one.address}: .*; then {dead}: .*; then {one.address}: "):
            await asking.ask("GET", "/x", deadline_s=1)
    assert len(one.asked) == 2


def slowly(handler: Handler, seconds: float = 0.6) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return await handler(request)

    return handle


@pytest.mark.parametrize("second", [hangs, breaks_off, says(503)], ids=["hangs", "breaks off", "503"])
async def test_a_first_that_answers_late_is_taken_where_the_second_has_nothing(second: Handler) -> None:
    async with gateways(slowly(fine), second) as (one, two), client(one.address, two.address) as asking:
        answer = await asking.ask("GET", "/x")
    assert (answer.status, answer.address, answer.retried) == (200, one.address, True)
    assert (len(one.asked), len(two.asked)) == (1, 1)


@pytest.mark.parametrize("first", [breaks_off, says(503)], ids=["breaks off", "503"])
async def test_a_first_that_fails_late_leaves_it_to_the_second(first: Handler) -> None:
    async with gateways(slowly(first), slowly(fine)) as (one, two), client(one.address, two.address) as asking:
        answer = await asking.ask("GET", "/x")
    assert (answer.status, answer.address, answer.retried) == (200, two.address, True)
    assert (len(one.asked), len(two.asked)) == (1, 1)


async def test_where_the_budget_is_spent_no_second_is_asked_while_the_first_is_under_way() -> None:
    budget = RetryBudget(burst=1, share=0)
    async with (
        gateways(slowly(fine), fine) as (one, two),
        client(one.address, two.address, budget=budget) as asking,
    ):
        answers = [await asking.ask("GET", "/x") for _ in range(3)]
    assert [(answer.address, answer.retried) for answer in answers] == [
        (two.address, True),
        (two.address, False),
        (one.address, False),
    ]
    assert (len(one.asked), len(two.asked)) == (2, 2)


async def test_where_no_other_address_is_there_a_first_that_is_under_way_is_not_asked_twice() -> None:
    async with gateways(slowly(fine)) as (one,), client(one.address, a_dead_address()) as asking:
        await asking.ask("GET", "/meets-the-dead-one-in-turn")
        await asking.ask("GET", "/meets-the-dead-one-in-turn")
        asked_before = len(one.asked)
        answer = await asking.ask("GET", "/x")
    assert (answer.status, answer.retried, len(one.asked) - asked_before) == (200, False, 1)


async def test_where_the_budget_is_spent_a_first_that_failed_is_still_asked_for_again() -> None:
    spent = RetryBudget(burst=0, share=0)
    async with (
        gateways(slowly(breaks_off), fine) as (one, two),
        client(one.address, two.address, budget=spent) as asking,
    ):
        answer = await asking.ask("GET", "/x")
    assert (answer.address, answer.retried, len(one.asked)) == (two.address, True, 1)


async def test_where_all_are_away_the_second_try_waits_for_one_that_is_back() -> None:
    away = says(500, kind="text/html")
    async with gateways(away, away) as (one, two), client(one.address, two.address) as asking:
        assert (await asking.ask("GET", "/x", deadline_s=0.5)).status == 500
        asked = asyncio.create_task(asking.ask("GET", "/y"))
        await asyncio.sleep(0.3)
        two.handler = fine
        answer = await asked
    assert (answer.status, answer.address, answer.retried) == (200, two.address, True)


async def test_where_none_comes_back_one_is_asked_all_the_same() -> None:
    away = says(500, kind="text/html")
    async with gateways(away, away) as (one, two), client(one.address, two.address) as asking:
        for _ in range(2):
            answer = await asking.ask("GET", "/x", deadline_s=0.6)
            assert (answer.status, answer.retried) == (500, True)


async def test_where_both_fail_late_the_error_tells_of_both_in_their_order() -> None:
    async with gateways(slowly(breaks_off), breaks_off) as (one, two), client(one.address, two.address) as asking:
        with pytest.raises(Unavailable, match=f"no gateway answered GET /x: {one.address}: .*; then {two.address}: "):
            await asking.ask("GET", "/x")


async def test_a_request_that_is_given_up_leaves_nothing_behind() -> None:
    async with gateways(hangs, hangs) as (one, two), client(one.address, two.address) as asking:
        before = asyncio.all_tasks()
        asked = asyncio.create_task(asking.ask("GET", "/x"))
        async with asyncio.timeout(5):
            while not two.asked:  # noqa: ASYNC110  (the server knows)
                await asyncio.sleep(0.01)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        left = {task.get_coro().__qualname__ for task in asyncio.all_tasks() - before}
    assert not any("_try" in name or "_again" in name for name in left)


async def test_a_body_that_is_no_json_is_the_callers_mistake() -> None:
    async with gateways(fine) as (one,), client(one.address) as asking:
        with pytest.raises(TypeError, match="not JSON serializable"):
            await asking.ask("POST", "/x", {1, 2})
    assert one.asked == []


async def test_it_says_where_it_is_to_be_used() -> None:
    with pytest.raises(AssertionError, match="async with"):
        await client("http://127.0.0.1:1").ask("GET", "/x")


async def test_it_may_be_used_once_more_and_then_asks_every_address_again() -> None:
    async with gateways(breaks_off, fine) as (one, two):
        asking = client(one.address, two.address)
        async with asking:
            await asking.ask("GET", "/x")
        one.handler = fine
        async with asking:
            answers = [await asking.ask("GET", "/x") for _ in range(2)]
    assert {answer.address for answer in answers} == {one.address, two.address}
    assert not any(answer.retried for answer in answers)


async def test_there_is_one_retry_and_no_more_and_the_error_tells_of_both() -> None:
    async with gateways(breaks_off, breaks_off) as (one, two), client(one.address, two.address) as asking:
        with pytest.raises(Unavailable, match=f"no gateway answered GET /x: {one.address}: .*; then {two.address}: "):
            await asking.ask("GET", "/x")
    assert (len(one.asked), len(two.asked)) == (1, 1)


def breaks_off_before(number: int) -> Handler:
    """That request is the first that is answered; that it is there it says all the time."""
    asked = 0

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += request.path != NOTHING
        return await (fine if asked >= number or request.path == NOTHING else breaks_off)(request)

    return handle


async def test_more_retries_are_made_where_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "PAUSE_S", 0.01)
    async with gateways(breaks_off_before(4)) as (one,), client(one.address, retries=9) as asking:
        answer = await asking.ask("GET", "/x")
    assert (answer.status, answer.retried, len(one.asked)) == (200, True, 4)
    async with gateways(breaks_off_before(99)) as (one,), client(one.address, retries=3) as asking:
        with pytest.raises(Unavailable, match=f"({one.address}.*; then ){{3}}{one.address}"):
            await asking.ask("GET", "/x")
        with pytest.raises(Unavailable):
            await asking.ask("POST", "/x")
    assert [method for method, *_ in one.asked] == ["GET"] * 4 + ["POST"]


async def test_a_further_retry_that_would_be_too_late_is_not_made() -> None:
    async with gateways(breaks_off) as (one,), client(one.address, retries=9) as asking:
        with pytest.raises(Unavailable):
            await asking.ask("GET", "/x", deadline_s=http_client.PAUSE_S)
    assert len(one.asked) == 2


async def test_the_second_answer_stands_whatever_it_is() -> None:
    async with gateways(says(503), says(504)) as (one, two), client(one.address, two.address) as asking:
        answer = await asking.ask("GET", "/x")
    assert (answer.status, answer.retried) == (504, True)


async def test_a_deadline_holds_for_both_tries_together() -> None:
    async with gateways(hangs, hangs) as (one, two), client(one.address, two.address) as asking:
        start = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=r"GET /x .*no answer within"):
            await asking.ask("GET", "/x", deadline_s=0.5)
        assert 0.4 < time.monotonic() - start < 5
    assert (len(one.asked), len(two.asked)) == (1, 1)


async def test_it_waits_as_long_as_it_was_told_to_unless_that_is_too_long() -> None:
    async with gateways(says(503, "1"), fine) as (one, two), client(one.address, two.address) as asking:
        start = time.monotonic()
        assert (await asking.ask("GET", "/x")).status == 200
        assert time.monotonic() - start >= 1
        await asking.ask("GET", "/turns")
        one.handler = says(503, "3600")
        answer = await asking.ask("GET", "/x", deadline_s=2)
    assert (answer.status, answer.retried) == (503, False)


async def test_one_address_is_asked_twice() -> None:
    async with gateways(says(503)) as (one,), client(one.address) as asking:
        assert (await asking.ask("GET", "/x")).retried
    assert len(one.asked) == 2


async def test_a_retry_after_that_is_no_number_is_passed_over() -> None:
    date = "Wed, 21 Oct 2026 07:28:00 GMT"
    async with gateways(says(503, date), fine) as (one, two), client(one.address, two.address) as asking:
        assert (await asking.ask("GET", "/x")).status == 200


def test_an_error_of_the_gateway_is_raised_with_its_code() -> None:
    told = Answer(409, b'{"error": {"code": "does_not_fit", "message": "too much"}}', "http://a")
    with pytest.raises(NoodleError, match="too much") as raised:
        told.result()
    assert raised.value.to_json() == {"error": {"code": "does_not_fit", "message": "too much"}}
    with pytest.raises(NoodleError, match="http://a answered 400"):
        Answer(400, b"[]", "http://a").result()


def test_an_answer_that_is_no_json_is_from_somebody_else() -> None:
    assert Answer(204, b"", "http://a").result() is None
    with pytest.raises(Unavailable, match="http://a answered 200 with what is no JSON"):
        Answer(200, b"<html>", "http://a").result()


def test_no_address_and_no_time_for_a_second_try_are_refused() -> None:
    with pytest.raises(InvalidInput, match="addresses: must name at least one"):
        GatewayClient([], TOKEN)
    with pytest.raises(InvalidInput, match="first_s: must be above 0 and below deadline_s"):
        GatewayClient(["http://a"], TOKEN, deadline_s=1, first_s=1)
    with pytest.raises(InvalidInput, match="retries: must be 1 or more"):
        GatewayClient(["http://a"], TOKEN, retries=0)
