"""`noodle bench chaos`: the prober asks real gateways over fakes, two servers of which one dies or hangs."""

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from gateway_fakes import TOKEN, FakeModules, FakePorts, FakeResources

from noodle_ray.entry.bench.chaos.prober import Probing, due, from_lines, probe, to_lines
from noodle_ray.entry.bench.chaos.probes import ALLOCATIONS, free_leftovers
from noodle_ray.entry.http_client import GatewayClient
from noodle_ray.errors import Overloaded, Unavailable
from noodle_ray.gateway.app import set_ports
from noodle_ray.modules.call_route import CallTarget
from noodle_ray.placement.allocation import Allocation
from noodle_ray.placement.claim import Claim


class Echo(FakeModules):
    async def call(self, target: CallTarget, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        await super().call(target, args, kwargs)
        return args[0]


@dataclass
class Holding(FakeResources):
    """Whose allocations have ids of their own, and which loses answers after having held."""

    numbers: Any = field(default_factory=count)
    lost_answers: int = 0
    lost_releases: int = 0

    async def allocate(self, claim: Claim, until_held: bool = True) -> Allocation:
        made = (await super().allocate(claim, until_held)).model_copy(update={"id": f"h-{next(self.numbers)}"})
        if self.held:  # under its own id
            self.held.popitem()
            self.held[made.id] = made
        if self.lost_answers:
            self.lost_answers -= 1
            raise Unavailable("the answer is lost")
        return made

    async def release(self, allocation_id: str, fence: str | None = None) -> None:
        await super().release(allocation_id, fence)
        if self.lost_releases:
            self.lost_releases -= 1
            raise Unavailable("the answer is lost")


class Forgetting(dict[str, Allocation]):
    """Keeps nothing."""

    def __setitem__(self, key: str, value: Allocation) -> None:
        return


@pytest.fixture
def cluster(fakes: FakePorts) -> FakePorts:
    fakes.modules = Echo(published={"bench-echo": {"name": "bench-echo"}})
    fakes.resources = Holding(cpus=100)
    return fakes


@pytest.fixture
async def servers(one_app: FastAPI, cluster: FakePorts) -> AsyncIterator[list["Server"]]:
    set_ports(one_app, cluster.ports())
    async with serving(one_app) as one, serving(one_app) as two:
        yield [one, two]


class Server:
    """A gateway on a port of its own, in this event loop."""

    def __init__(self, app: FastAPI) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        config = uvicorn.Config(app, log_config=None, lifespan="off", ws="none", timeout_graceful_shutdown=1)
        self.server = uvicorn.Server(config)

    async def kill(self) -> None:
        """What it was answering breaks off, and nobody listens there any more."""
        for listening in self.server.servers:
            listening.close()
        for connection in list(self.server.server_state.connections):
            connection.transport.abort()  # type: ignore[union-attr]


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[Server]:
    server = Server(app)
    with server.listener:
        task = asyncio.create_task(server.server._serve([server.listener]))
        for _ in range(500):
            if not server.server.started:
                await asyncio.sleep(0.01)
        try:
            yield server
        finally:
            server.server.should_exit = True
            await task


def probing(servers: Sequence[Server], **more: Any) -> Probing:
    given = {"seconds": 1.0, "rate": 40.0, "deadline_s": 4.0, "first_s": 0.3, **more}
    return Probing(addresses=tuple(one.address for one in servers), token=TOKEN, **given)


def test_what_is_asked_when_is_the_same_for_a_seed_and_routes_take_turns() -> None:
    asked = Probing(addresses=("http://a",), token=TOKEN, seconds=60)
    routes, times = due(asked)
    assert (routes, times) == due(asked)
    assert due(asked.model_copy(update={"seed": 2})) != (routes, times)
    assert all(len(set(routes[first : first + 4])) == 4 for first in range(0, len(routes) - 4, 4))
    assert 20 * 60 < len(times) < 28 * 60


async def test_everything_is_answered_by_both_gateways_and_nothing_is_left_held(
    servers: list[Server], cluster: FakePorts
) -> None:
    probes = await probe(probing(servers))
    assert [one for one in probes if not one.answered] == []
    assert {one.route for one in probes} == {"nodes", "allocate", "module", "fusion"}
    assert {one.address for one in probes} == {one.address for one in servers}
    assert not any(one.retried for one in probes)
    assert all(one.due_s <= one.sent_s <= one.ended_s for one in probes)
    assert cluster.resources.held == {}
    assert len({one.due_s for one in probes}) == len(probes)


async def test_a_gateway_that_dies_costs_retries_and_no_answers(servers: list[Server]) -> None:
    asking = asyncio.create_task(probe(probing(servers)))
    await asyncio.sleep(0.4)
    await servers[0].kill()
    probes = await asking
    assert [one.problem for one in probes if not one.answered] == []
    late = [one for one in probes if one.sent_s > 0.5]
    assert {one.address for one in late} == {servers[1].address}
    assert not all(one.retried for one in late)


async def test_a_gateway_that_hangs_costs_time_and_no_answers(servers: list[Server]) -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.read()
        writer.close()

    hanging = await asyncio.start_server(never, "127.0.0.1", 0)
    async with hanging:
        address = f"http://127.0.0.1:{hanging.sockets[0].getsockname()[1]}"
        asked = probing(servers[:1], routes=("nodes",))
        probes = await probe(asked.model_copy(update={"addresses": (address, *asked.addresses)}))
    assert all(one.answered and one.address == servers[0].address for one in probes)
    assert all(one.ms >= 300 for one in probes if one.retried)
    # Arrivals wait for nobody: what is sent late is late by a moment, not by the time that others hang.
    assert any(one.retried for one in probes) and min(one.sent_s - one.due_s for one in probes) < 0.1


async def test_errors_and_answers_without_what_was_asked_for_are_lost(
    servers: list[Server], cluster: FakePorts
) -> None:
    cluster.nodes.known = {}
    cluster.modules.error = Unavailable("nobody is there")
    cluster.fusion.error = Overloaded("fusion", 60)
    cluster.resources.cpus = 0.001
    probes = await probe(probing(servers, seconds=0.5, deadline_s=2.0))
    problems = {one.route: (one.status, one.answered, one.problem[:35]) for one in probes}
    assert problems["nodes"] == (200, False, "200, but not what was asked for: []")
    assert problems["fusion"][:2] == (429, False)
    assert problems["module"][:2] == (503, False)
    assert problems["allocate"][2].startswith("409: does_not_fit: ")


async def test_a_cluster_that_is_gone_is_noted_with_what_was_tried(servers: list[Server]) -> None:
    for server in servers:
        await server.kill()
    probes = await probe(probing(servers, seconds=0.2))
    assert probes and not any(one.answered or one.status for one in probes)
    assert all("no gateway answered" in one.problem for one in probes)


async def test_requests_over_the_bound_are_lost_unsent(servers: list[Server], cluster: FakePorts) -> None:
    cluster.nodes.hangs = True
    probes = await probe(probing(servers, seconds=0.5, routes=("nodes",), most=3, deadline_s=1.0))
    unsent = [one for one in probes if one.problem == "not sent: 3 are under way"]
    assert len(unsent) == len(probes) - 3
    assert [one.answered for one in probes] == [False] * len(probes)


async def test_what_a_lost_answer_left_is_found_and_freed(servers: list[Server], cluster: FakePorts) -> None:
    assert isinstance(cluster.resources, Holding)
    cluster.resources.lost_answers = 2
    probes = await probe(probing(servers, routes=("allocate",)))
    assert all(one.answered for one in probes)
    assert len(cluster.resources.held) == 2
    async with GatewayClient([servers[0].address], TOKEN) as client:
        assert await free_leftovers(client) == 2
        assert (await client.ask("GET", ALLOCATIONS)).result() == []


async def test_what_the_first_of_two_tries_has_freed_is_not_there_for_the_second(
    servers: list[Server], cluster: FakePorts
) -> None:
    assert isinstance(cluster.resources, Holding)
    cluster.resources.lost_releases = 2
    probes = await probe(probing(servers, seconds=0.5, routes=("allocate",)))
    assert all(one.answered for one in probes)
    assert [one.status for one in probes if one.retried] == [404, 404]


async def test_what_nobody_freed_must_be_there_to_be_freed(servers: list[Server], cluster: FakePorts) -> None:
    assert isinstance(cluster.resources, Holding)
    cluster.resources.held = Forgetting()
    probes = await probe(probing(servers, seconds=0.5, routes=("allocate",)))
    assert {(one.answered, one.status, one.problem[:4]) for one in probes} == {(False, 404, "404:")}


async def test_the_bound_is_on_what_is_under_way_and_not_on_all(servers: list[Server]) -> None:
    probes = await probe(probing(servers, routes=("nodes",), rate=20.0, most=15))
    assert len(probes) > 0 and [one.problem for one in probes if not one.answered] == []


async def test_probes_survive_the_way_through_lines(servers: list[Server]) -> None:
    probes = await probe(probing(servers, seconds=0.2))
    assert from_lines(to_lines(probes)) == probes


async def test_it_runs_as_a_program(servers: list[Server]) -> None:
    asked = probing(servers, seconds=0.3)
    program = [sys.executable, "-m", "noodle_ray.entry.bench.chaos.prober"]
    process = await asyncio.create_subprocess_exec(*program, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    out, _ = await process.communicate(json.dumps(asked.to_json()).encode() + b"\n")
    probes = from_lines(out.decode().splitlines())
    assert process.returncode == 0 and len(probes) == len(due(asked)[1])
    assert all(one.answered for one in probes)
