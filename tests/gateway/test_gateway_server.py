"""The application behind a real HTTP server: limits while a body streams in, and what becomes of the connection."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
import uvicorn
from fastapi import FastAPI
from gateway_fakes import MAX_BODY, TOKEN, FakePorts

AUTHORISED = {"Authorization": f"Bearer {TOKEN}"}


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


@pytest.fixture
def connection(port: int) -> Iterator[http.client.HTTPConnection]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        yield connection


def test_a_connection_is_kept_for_the_next_request(connection: http.client.HTTPConnection) -> None:
    connection.connect()
    own = connection.sock.getsockname()
    for _ in range(3):
        connection.request("GET", "/api/services", headers=AUTHORISED)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"[]")
    connection.request("GET", "/api/services")
    answer = connection.getresponse()
    assert answer.status == 401 and answer.read()
    connection.request("POST", "/api/modules/greeter/call", b'{"function": "f"}', {**AUTHORISED, "Content-Type": "a/b"})
    answer = connection.getresponse()
    assert answer.status == 415 and answer.read()
    connection.request("GET", "/api/services", headers=AUTHORISED)
    assert connection.getresponse().status == 200
    assert connection.sock.getsockname() == own


def test_a_declared_size_is_refused_before_the_body_comes(connection: http.client.HTTPConnection) -> None:
    connection.putrequest("POST", "/api/modules")
    for name, value in {**AUTHORISED, "Content-Type": "application/zip", "Content-Length": str(10**12)}.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 413 and answer.getheader("connection") == "close"
    assert b'"limit": 100000' in answer.read()


def test_a_body_without_a_size_is_cut_off_while_it_streams(
    connection: http.client.HTTPConnection, fakes: FakePorts
) -> None:
    connection.putrequest("POST", "/api/modules")
    for name, value in {**AUTHORISED, "Content-Type": "application/zip", "Transfer-Encoding": "chunked"}.items():
        connection.putheader(name, value)
    connection.endheaders()
    for _ in range(MAX_BODY // 10_000 + 1):  # never ends the body
        connection.send(b"%x\r\n" % 10_000 + b" " * 10_000 + b"\r\n")
    answer = connection.getresponse()
    assert answer.status == 413 and answer.getheader("connection") == "close"
    assert fakes.modules.calls == []


def test_a_stranger_is_cut_off_before_the_body(connection: http.client.HTTPConnection) -> None:
    connection.putrequest("POST", "/api/modules")
    connection.putheader("Content-Length", str(MAX_BODY))
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 401 and answer.getheader("connection") == "close"


def test_a_chunked_body_within_the_limit_arrives(connection: http.client.HTTPConnection, fakes: FakePorts) -> None:
    parts = iter([b"PK"] * 1000)
    headers = {**AUTHORISED, "Content-Type": "application/zip"}
    connection.request("POST", "/api/modules", parts, headers, encode_chunked=True)
    assert connection.getresponse().status == 201
    assert fakes.modules.calls == [("publish", b"PK" * 1000)]


@pytest.mark.parametrize(
    "head",
    [
        "GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: many\r\n\r\n",
        "nonsense\r\n\r\n",
    ],
)
def test_what_is_no_http_gets_no_more_than_a_400(port: int, head: str) -> None:
    with closing(socket.create_connection(("127.0.0.1", port), timeout=20)) as client:
        client.sendall(head.encode())
        answer = client.recv(4096).decode()
    assert answer.startswith("HTTP/1.1 400") and "Traceback" not in answer
