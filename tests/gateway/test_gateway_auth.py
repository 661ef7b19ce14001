"""Nobody comes in without the token: not on any route, nor to where there is none."""

from __future__ import annotations

import base64
import re
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from gateway_fakes import TOKEN, FakePorts

from noodle_ray.errors import InvalidInput, Unavailable
from noodle_ray.gateway.app import build_app
from noodle_ray.settings import Settings


def routes_of(app: FastAPI) -> list[tuple[str, str]]:
    """Each method and path of the application, with a name in place of each parameter."""
    found = {
        (method, re.sub(r"\{\w+\}", "x", context.path or ""))
        for context in iter_route_contexts(app.routes)
        for method in context.methods or ()
    }
    return sorted(found)


ROUTES = routes_of(build_app(FakePorts().ports(), Settings(), TOKEN))
OPEN = {("GET", "/healthz"), ("HEAD", "/healthz")}
CLOSED = [route for route in ROUTES if route not in OPEN]
READABLE = {(method, path) for method, path in CLOSED if path.startswith(("/docs", "/openapi.json"))}
NOWHERE = [
    ("GET", "/nothing"),
    ("POST", "/healthz"),
    ("GET", "/healthz/"),
    ("DELETE", "/api"),
    ("PUT", "/docs"),
    ("BREW", "/"),
]


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


WRONG: list[dict[str, str]] = [
    {},
    {"Authorization": ""},
    {"Authorization": "Bearer"},
    {"Authorization": "Bearer "},
    {"Authorization": f"Bearer {TOKEN}x"},
    {"Authorization": f"Bearer {TOKEN[:-1]}"},
    {"Authorization": f"Bearer {TOKEN} {TOKEN}"},
    {"Authorization": TOKEN},
    {"Authorization": f"Token {TOKEN}"},
    {"Authorization": f"Bearer{TOKEN}"},
    {"Authorization": "Bearer \xff\xfe"},
    {"Authorization": basic("anybody", "wrong password")},
    {"Authorization": basic(TOKEN, "")},
    {"Authorization": "Basic !!!"},
    {"Authorization": "Basic " + base64.b64encode(TOKEN.encode()).decode()},
    {"Cookie": f"Authorization=Bearer {TOKEN}"},
]


def test_the_list_of_routes_is_the_whole_application() -> None:
    assert len(ROUTES) > 25
    assert {("POST", "/api/ai/fusion"), ("GET", "/metrics"), ("GET", "/openapi.json"), ("GET", "/docs/x")} <= set(
        CLOSED
    )
    assert set(ROUTES) >= OPEN


@pytest.mark.parametrize(("method", "path"), CLOSED + NOWHERE)
async def test_every_path_answers_401_without_the_token(
    stranger: httpx.AsyncClient, fakes: FakePorts, method: str, path: str
) -> None:
    for headers in WRONG:
        given = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        answer = await stranger.request(method, path, headers=given)
        assert answer.status_code == 401, headers
        assert answer.headers["www-authenticate"].split()[0] == ("Basic" if (method, path) in READABLE else "Bearer")
        if method != "HEAD":
            assert answer.json()["error"]["code"] == "unauthorized"
            assert answer.json()["error"]["request_id"] == answer.headers["x-request-id"]
            assert TOKEN not in answer.text
    assert not any(fake.calls for fake in (fakes.nodes, fakes.resources, fakes.modules, fakes.fusion, fakes.services))


@pytest.mark.parametrize(("method", "path"), CLOSED)
async def test_every_path_lets_the_token_in(
    client: httpx.AsyncClient, fakes: FakePorts, method: str, path: str
) -> None:
    fakes.fail(Unavailable("gone"))  # or the stream of events would have no end
    assert (await client.request(method, path)).status_code not in (401, 403, 500)


async def test_two_headers_are_one_too_many(stranger: httpx.AsyncClient) -> None:
    headers = [("Authorization", f"Bearer {TOKEN}"), ("Authorization", "Bearer other")]
    assert (await stranger.get("/api/services", headers=headers)).status_code == 401


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer "])
async def test_the_scheme_is_read_as_http_says(stranger: httpx.AsyncClient, scheme: str) -> None:
    answer = await stranger.get("/api/services", headers={"Authorization": f"{scheme} {TOKEN}"})
    assert answer.status_code == 200


@pytest.mark.parametrize(("method", "path"), CLOSED)
async def test_basic_credentials_read_the_documentation_and_nothing_else(
    stranger: httpx.AsyncClient, method: str, path: str
) -> None:
    answer = await stranger.request(method, path, headers={"Authorization": basic("anybody", TOKEN)})
    assert (answer.status_code != 401) == ((method, path) in READABLE)


async def test_a_strangers_body_is_not_read(app: FastAPI) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("the body was read")

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"transfer-encoding", b"chunked")]
    scope = {"type": "http", "method": "POST", "path": "/api/modules", "headers": headers, "query_string": b""}
    await app(scope, receive, send)
    assert sent[0]["status"] == 401
    assert (b"connection", b"close") in sent[0]["headers"]


async def test_web_sockets_are_closed(app: FastAPI) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "websocket", "path": "/docs", "headers": [], "query_string": b""}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize("token", ["", "   ", "short", " " * 20, "padded-token-padded "])
def test_a_useless_token_is_refused_at_the_start(token: str) -> None:
    with pytest.raises(InvalidInput, match="token"):
        build_app(FakePorts().ports(), Settings(), token)
