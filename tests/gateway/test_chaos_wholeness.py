"""`noodle bench chaos`: whether a system is whole, asked of a real gateway over fakes."""

import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from gateway_fakes import TOKEN, FakeModules, FakePorts, a_node

from noodle_ray.entry.bench.chaos.http_wholeness import gateway_wholeness
from noodle_ray.entry.bench.chaos.probes import Call
from noodle_ray.entry.bench.chaos.watcher import Watcher
from noodle_ray.errors import Unavailable
from noodle_ray.gateway.app import set_ports
from noodle_ray.modules.call_route import CallTarget


class Echo(FakeModules):
    async def call(self, target: CallTarget, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        await super().call(target, args, kwargs)
        return args[0]


@pytest.fixture
def cluster(fakes: FakePorts) -> FakePorts:
    names = ("bench-echo", "text-encoder", "audio-encoder")
    fakes.modules = Echo(published={name: {"name": name, "loaded": "1.0.0"} for name in names})
    fakes.nodes.known = {name: a_node(name) for name in ("a", "b", "c")}
    return fakes


@pytest.fixture
def address(one_app: FastAPI, cluster: FakePorts) -> Iterator[str]:
    set_ports(one_app, cluster.ports())
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        server = uvicorn.Server(uvicorn.Config(one_app, log_config=None, lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(timeout=20)
        assert not thread.is_alive()


async def missing(address: str, *more: str) -> tuple[str, ...]:
    addresses, encoders = (address, *more), ("text-encoder", "audio-encoder")
    async with gateway_wholeness(addresses, TOKEN, encoders, Call()) as system:
        return (await Watcher(system, 3, addresses, 0.0).look()).missing


async def test_a_whole_system_lacks_nothing(address: str) -> None:
    assert await missing(address) == ()


async def test_what_is_missing_is_found(address: str, cluster: FakePorts) -> None:
    cluster.nodes.known["c"] = a_node("c", state="suspect")
    cluster.modules.published["audio-encoder"]["loaded"] = None
    cluster.fusion.error = Unavailable("the text encoder does not answer")
    assert await missing(address) == ("nodes: 2 of 3", "encoders: audio-encoder, text")


async def test_a_gateway_that_is_gone_is_missing_and_the_other_tells_the_rest(address: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        gone = f"http://127.0.0.1:{listener.getsockname()[1]}"
    assert await missing(address, gone) == (gone,)


async def test_a_module_that_does_not_answer_and_a_gateway_that_is_not_well_are_missing(
    address: str, cluster: FakePorts
) -> None:
    cluster.modules.error = Unavailable("nobody is there")
    assert await missing(address) == ("encoders", "module", address)
