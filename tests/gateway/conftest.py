"""The gateway's application over fakes, and a client that knows its token."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from gateway_fakes import MAX_BODY, TOKEN, FakePorts

from noodle_ray.gateway.app import build_app, set_ports
from noodle_ray.settings import Settings


@pytest.fixture
def fakes() -> FakePorts:
    return FakePorts()


@pytest.fixture(scope="session")
def one_app() -> FastAPI:
    return build_app(FakePorts().ports(), Settings(max_body_bytes=MAX_BODY), TOKEN)


@pytest.fixture
def app(one_app: FastAPI, fakes: FakePorts) -> FastAPI:
    """The application over the test's own fakes. Building one for each test would take most of the tests' time."""
    set_ports(one_app, fakes.ports())
    return one_app


@pytest.fixture
async def stranger(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a token."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        yield client


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client with the token."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=headers) as client:
        yield client


@pytest.fixture
def port(app: FastAPI) -> Iterator[int]:
    """A server on a loopback port of its own."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        config = uvicorn.Config(app, log_config=None, lifespan="on", ws="none", timeout_graceful_shutdown=5)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join(timeout=20)
        assert not thread.is_alive()
