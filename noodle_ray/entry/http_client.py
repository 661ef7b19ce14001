"""A client of the gateway over HTTP that knows several addresses, and asks a second time at another one.

    async with GatewayClient(["http://10.0.0.1:8000", "http://10.0.0.2:8000"], token) as gateways:
        answer = await gateways.ask("GET", "/api/distributed/nodes")
        nodes = answer.result()

Requests go to the addresses in turn. What may be repeated is asked once more, at the next address, where the first did
not answer in time, broke off, said that it cannot answer now (429, 502, 503, 504; after Retry-After, if it says so), or
had no gateway behind it; where the next takes no connection, at the one after it, which of two is the first again. The
first is still listened to then: whichever answers first is taken, for it may be what was asked for that takes long.
That doubles the work, so it is done for a share of the requests only (`RetryBudget`), and where another address is
there. An address that failed is passed over until a gateway answers there again; where all have failed, the second try
waits for one that does. With `retries` above one, what has failed twice is asked for again, a second later each time.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import aiohttp

from noodle_ray.entry.gateway_addresses import GatewayAddresses
from noodle_ray.entry.retry_budget import RetryBudget
from noodle_ray.errors import DeadlineExceeded, InvalidInput, NoodleError, Unavailable, shorten

REPEATABLE = frozenset({"GET", "HEAD", "PUT", "DELETE"})
"""Methods that have one effect however often they are asked for."""

LATER = frozenset({429, 502, 503, 504})
DEADLINE_S, FIRST_S = 30.0, 10.0
PAUSE_S = 1.0
"""What has failed at two addresses in a row is not asked for again at once: whoever notes the death of a gateway needs
a moment for it."""

CONNECT_S = 2.0
"""What does not take a connection within this is away: that takes milliseconds, or a second where a packet is lost."""

NOTHING, LOOK_S, HEALTH_S = "/api", 0.5, 3.0
"""What an address that failed is asked for, how often, and how long it may take to answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a gateway answered. address: which one; retried: a second was asked, too.

    is_gateways: a proxy that has no gateway behind it may answer instead, and not in JSON.
    """

    status: int
    body: bytes
    address: str
    retried: bool = False
    retry_after_s: float = 0.0
    is_gateways: bool = True

    def json(self) -> Any:
        """Raises Unavailable where it is not JSON: then it is not from a gateway of ours."""
        try:
            return json.loads(self.body) if self.body else None
        except ValueError:
            raise Unavailable(f"{self.address} answered {self.status} with what is no JSON") from None

    def result(self) -> Any:
        """The JSON of a success. Raises NoodleError with the `code` and the message that the gateway gave."""
        if self.status < 400:
            return self.json()
        told = self.json()
        details = told.get("error", {}) if isinstance(told, dict) else {}
        error = NoodleError(str(details.get("message", f"{self.address} answered {self.status}")))
        error.code = str(details.get("code", "http_error"))
        raise error


class GatewayClient:
    """Asks gateways of one cluster. Use it in an `async with` block, from one event loop.

    deadline_s: within this a request is answered, or given up. first_s: the part of it that the first address has
    where a second may be asked. budget: for how many a second is asked while the first is under way. retries: how many
    times what may be repeated is asked for again where it fails.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        token: str,
        deadline_s: float = DEADLINE_S,
        first_s: float = FIRST_S,
        budget: RetryBudget | None = None,
        retries: int = 1,
    ) -> None:
        """Raises InvalidInput without an address or a retry, or with times that leave none for a second address."""
        self._addresses = GatewayAddresses(addresses)
        if not 0 < first_s < deadline_s:
            raise InvalidInput.of("first_s", "must be above 0 and below deadline_s", f"{first_s:g} of {deadline_s:g}")
        if retries < 1:
            raise InvalidInput.of("retries", "must be 1 or more", str(retries))
        self._retries = retries
        self._headers = {"Authorization": f"Bearer {token}"}
        self._deadline_s, self._first_s = deadline_s, first_s
        self._budget = budget or RetryBudget()
        self._session: aiohttp.ClientSession | None = None
        self._looking: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> GatewayClient:
        # A connection for each request: whether the other end of a kept one is still there, only a request tells.
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        self._session = aiohttp.ClientSession(
            headers=self._headers,
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            middlewares=(_ask_once,),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for looking in self._looking.values():
            looking.cancel()
        await asyncio.gather(*self._looking.values(), return_exceptions=True)
        self._looking.clear()
        self._addresses = GatewayAddresses(self._addresses.all)
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        repeatable: bool | None = None,
        deadline_s: float | None = None,
    ) -> Answer:
        """Asks, and gives whatever was answered; `Answer.result` raises what it says went wrong.

        body: sent as JSON. repeatable: whether asking twice does no harm; None: as the method says. What was never sent
        is asked for again in any case. Raises Unavailable where no address was reached, DeadlineExceeded where the time
        was over; both say what became of each try.
        """
        may_repeat = method in REPEATABLE if repeatable is None else repeatable
        within_s = self._deadline_s if deadline_s is None else deadline_s
        content = None if body is None else json.dumps(body).encode()
        self._opened()
        request = _Request(method, path, content, within_s, time.monotonic() + within_s)
        first_s = min(self._first_s, within_s / 2) if may_repeat else within_s
        async with asyncio.TaskGroup() as tasks:
            came = await self._tries(request, may_repeat, first_s, tasks)
        for _ in range(self._retries - 1 if may_repeat else 0):
            pause_s = max(PAUSE_S, _pause_s(came[-1]))
            if not _is_worth_another(came[-1]) or pause_s >= request.left_s():
                break
            await asyncio.sleep(pause_s)
            await self._until_one_is_there(request)
            came.append(_retried(await self._try(request, self._addresses.first())))
        return _settled(request, came)

    async def _tries(
        self, request: _Request, may_repeat: bool, first_s: float, tasks: asyncio.TaskGroup
    ) -> list[Answer | _Failure]:
        """What became of each try; the one that counts is the last."""
        address = self._addresses.first()
        self._budget.asked()
        first = tasks.create_task(self._try(request, address))
        await asyncio.wait([first], timeout=first_s if may_repeat else None)
        if not first.done():
            self._look_at(address)
            if self._addresses.other(address) is not None and self._budget.take():
                return await _until_answered(first, tasks.create_task(self._again(request, address, first)))
            await asyncio.wait([first])
        came = first.result()
        if not _is_worth_another(came) or not (may_repeat or _is_unsent(came)):
            return [came]
        if _pause_s(came) >= request.left_s():
            return [came]
        await asyncio.sleep(_pause_s(came))
        await self._until_one_is_there(request)
        return await _until_answered(first, tasks.create_task(self._again(request, address, first)))

    async def _until_one_is_there(self, request: _Request) -> None:
        """Where all addresses have failed, half of the time that is left is for one of them to answer again."""
        if len(self._addresses.away) == len(self._addresses.all):
            looking, half_s = self._looking.values(), request.left_s() / 2
            await asyncio.wait(looking, timeout=half_s, return_when=asyncio.FIRST_COMPLETED)

    async def _again(
        self, request: _Request, address: str, first: asyncio.Task[Answer | _Failure]
    ) -> list[Answer | _Failure]:
        """A try at another address than that of the first, and one more where that other takes no connection."""
        other = self._addresses.second(address)
        tries = [await self._try(request, other)]
        was_sent = not (first.done() and _is_unsent(first.result()))
        if _is_unsent(tries[0]) and was_sent and request.left_s() > 0:
            tries.append(await self._try(request, self._addresses.second(other)))
        return tries

    async def _try(self, request: _Request, address: str) -> Answer | _Failure:
        came = await self._send(request.method, request.path, request.content, address, request.left_s())
        if _is_well(came):
            self._addresses.answered(address)
            return came
        if not (isinstance(came, _Failure) and came.timed_out):  # else it may be what was asked for that takes long
            self._addresses.failed(address)
        self._look_at(address)
        return came

    def _look_at(self, address: str) -> None:
        if address not in self._looking:
            self._looking[address] = asyncio.get_running_loop().create_task(self._look(address))

    async def _look(self, address: str) -> None:
        """Asks for nothing in particular until a gateway says that there is no such thing: for that it asks nobody."""
        while not _is_well(await self._send("GET", NOTHING, None, address, HEALTH_S)):
            self._addresses.failed(address)
            await asyncio.sleep(LOOK_S)
        self._addresses.answered(address)
        del self._looking[address]

    def _opened(self) -> aiohttp.ClientSession:
        assert self._session is not None, "use the client in an `async with` block"
        return self._session

    async def _send(
        self, method: str, path: str, content: bytes | None, address: str, within_s: float
    ) -> Answer | _Failure:
        headers = {} if content is None else {"Content-Type": "application/json"}
        asking = self._opened().request(method, address + path, data=content, headers=headers)
        try:
            async with asyncio.timeout(within_s), asking as response:
                body = await response.read()
                is_gateways = response.status < 400 or response.content_type == "application/json"
                return Answer(response.status, body, address, False, _retry_after_s(response), is_gateways)
        except aiohttp.ClientConnectorError as error:
            return _Failure(address, shorten(str(error), 200), unsent=True)
        except aiohttp.ClientError as error:  # before the time that is over: of aiohttp's errors some are both
            return _Failure(address, shorten(str(error) or type(error).__name__, 200))
        except TimeoutError:
            return _Failure(address, f"no answer within {within_s:.3g} s", timed_out=True)
        except OSError as error:
            return _Failure(address, shorten(str(error) or type(error).__name__, 200))


@dataclass(frozen=True, slots=True)
class _Request:
    """What is asked for. end: when nobody waits for an answer any more, on the monotonic clock."""

    method: str
    path: str
    content: bytes | None
    within_s: float
    end: float

    def left_s(self) -> float:
        return self.end - time.monotonic()


@dataclass(frozen=True, slots=True)
class _Failure:
    """A try without an answer. unsent: nobody there took a connection, so nothing was asked of anybody."""

    address: str
    problem: str
    timed_out: bool = False
    unsent: bool = False

    def __str__(self) -> str:
        return f"{self.address}: {self.problem}"


def _is_well(came: Answer | _Failure) -> bool:
    return isinstance(came, Answer) and came.is_gateways


def _is_unsent(came: Answer | _Failure) -> bool:
    return isinstance(came, _Failure) and came.unsent


def _is_worth_another(first: Answer | _Failure) -> bool:
    return isinstance(first, _Failure) or first.status in LATER or not first.is_gateways


def _pause_s(came: Answer | _Failure) -> float:
    return came.retry_after_s if isinstance(came, Answer) else 0.0


async def _until_answered(
    first: asyncio.Task[Answer | _Failure], again: asyncio.Task[list[Answer | _Failure]]
) -> list[Answer | _Failure]:
    """Waits until one of them has an answer that settles it, which ends the other; else for both, in their order."""
    await asyncio.wait([again] if first.done() else [first, again], return_when=asyncio.FIRST_COMPLETED)
    if not again.done() and not _is_worth_another(first.result()):
        again.cancel()
        return [_retried(first.result())]
    tries = [_retried(one) for one in await again]
    if not _is_worth_another(tries[-1]):
        first.cancel()
        return tries
    late = _retried(await first)
    return [late, *tries] if _is_worth_another(late) else [*tries, late]


def _retried(came: Answer | _Failure) -> Answer | _Failure:
    return replace(came, retried=True) if isinstance(came, Answer) else came


def _settled(request: _Request, tries: Sequence[Answer | _Failure]) -> Answer:
    """The last try's answer. Raises DeadlineExceeded, Unavailable."""
    last = tries[-1]
    if isinstance(last, Answer):
        return last
    asked = f"{request.method} {request.path}"
    told = "; then ".join(f"{one.address}: {one.status}" if isinstance(one, Answer) else str(one) for one in tries)
    if last.timed_out:
        raise DeadlineExceeded(f"{asked} ({told})", request.within_s * 1000)
    raise Unavailable(f"no gateway answered {asked}: {told}")


def _retry_after_s(response: aiohttp.ClientResponse) -> float:
    """Seconds; 0 where it says none. A date, which the standard allows too, is none of ours."""
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0.0


async def _ask_once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """aiohttp asks again by itself after some errors, at the same address: told so, it does not."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise  # which it leaves to us
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise aiohttp.ClientConnectionError(str(error) or type(error).__name__) from error
