"""The application behind a real HTTP server: limits while a body streams in, and what becomes of the connection."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from gateway_fakes import MAX_BODY, TOKEN, FakePorts

from noodle_ray.errors import Unavailable
from noodle_ray.gateway import nodes
from noodle_ray.nodes.event_log import EventLog

AUTHORISED = {"Authorization": f"Bearer {TOKEN}"}


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


class TestEvents:
    """Server-sent events on a real connection."""

    PATH = "/api/distributed/nodes/events"

    @pytest.fixture(autouse=True)
    def _two_have_happened(self, fakes: FakePorts) -> None:
        fakes.nodes.log.add("node_joined", "a joined", {"node": "a"}, at=1.0)
        fakes.nodes.log.add("node_dead", "a is dead\nfor sure", {"node": "a"}, at=2.0)

    def follow(
        self, connection: http.client.HTTPConnection, query: str = "", **headers: str
    ) -> http.client.HTTPResponse:
        connection.request("GET", self.PATH + query, headers={**AUTHORISED, **headers})
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("content-type")) == (200, "text/event-stream; charset=utf-8")
        assert answer.getheader("cache-control") == "no-store"
        return answer

    def next_block(self, answer: http.client.HTTPResponse) -> dict[str, str]:
        """The fields up to the next empty line; a comment's name is empty."""
        lines = iter(lambda: answer.readline().decode().rstrip("\n"), "")
        return dict(line.split(": ", maxsplit=1) if line[0] != ":" else ("", line[2:]) for line in lines)

    def next_event(self, answer: http.client.HTTPResponse) -> dict[str, str]:
        return next(block for block in iter(lambda: self.next_block(answer), None) if "id" in block)

    def test_stream_as_they_happen(self, connection: http.client.HTTPConnection, fakes: FakePorts) -> None:
        answer = self.follow(connection)
        first, second = self.next_event(answer), self.next_event(answer)
        assert (first["id"], first["event"]) == ("1", "node_joined")
        assert json.loads(second["data"])["message"] == "a is dead\nfor sure"
        fakes.nodes.log.add("node_left", "a left", {"node": "a"}, at=3.0)
        assert self.next_event(answer)["event"] == "node_left"

    @pytest.mark.parametrize(("query", "headers"), [("?since=1", {}), ("?since=0", {"Last-Event-ID": "1"})])
    def test_begin_where_the_client_was(
        self, connection: http.client.HTTPConnection, query: str, headers: dict[str, str]
    ) -> None:
        assert self.next_event(self.follow(connection, query, **headers))["id"] == "2"

    def test_follow_a_manager_that_counts_from_one(
        self, connection: http.client.HTTPConnection, fakes: FakePorts
    ) -> None:
        answer = self.follow(connection, "?since=2")
        fakes.nodes.log = EventLog()
        for name in ("b", "c"):
            fakes.nodes.log.add("node_joined", f"{name} joined", {"node": name}, at=3.0)
            assert json.loads(self.next_event(answer)["data"])["details"] == {"node": name}

    def test_are_kept_alive_while_nothing_happens(
        self, connection: http.client.HTTPConnection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(nodes, "KEEP_ALIVE_S", 0.02)
        answer = self.follow(connection, "?since=2")
        blocks = [self.next_block(answer) for _ in range(3)]
        assert [list(block) for block in blocks] == [[""]] * 3

    def test_end_with_their_log(self, connection: http.client.HTTPConnection, fakes: FakePorts) -> None:
        answer = self.follow(connection)
        self.next_event(answer)
        fakes.nodes.error = Unavailable("gone")
        fakes.nodes.log.add("node_left", "a left", {}, at=3.0)
        assert answer.read().endswith(b"\n\n")

    def test_nobody_waits_for_a_client_that_is_gone(self, port: int, fakes: FakePorts) -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
            self.next_event(self.follow(connection, "?since=1"))
            eventually(lambda: fakes.nodes.waiting == 1)
        eventually(lambda: fakes.nodes.waiting == 0)


def eventually(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


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
