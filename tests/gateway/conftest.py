"""The gateway's application over fakes, and a client that knows its token."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
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
