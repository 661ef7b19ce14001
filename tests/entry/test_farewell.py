"""Other hosts are told to leave before their head ends, each by itself. A real server stands for the gateway."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from threading import Thread

import pytest

from noodle_ray.entry.cluster import farewell
from noodle_ray.entry.cluster.cluster_file import ClusterFile, StartedProcess
from noodle_ray.entry.cluster.farewell import tell_others_to_leave

OURS = StartedProcess(pid=1, started_at=1.0, role="head", node_address="10.0.0.1")


def node(name: str, address: str, state: str = "alive") -> dict[str, str]:
    return {"id": name, "name": name, "address": address, "state": state}


@contextmanager
def gateway(
    nodes: list[dict[str, str]], stubborn: str = "", away: frozenset[int] = frozenset(), back: str = ""
) -> Iterator[tuple[str, list[str]]]:
    """Its address, and which nodes it was asked to drain; the stubborn one's drain fails.

    away: the numbers of the requests that it fails. back: a node that comes again as another when it has left.
    """
    drained: list[str] = []
    requests = count(1)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            again = [node(f"{back}-again", "10.0.0.9")] if back in drained else []
            self._answer(200, [one for one in [*nodes, *again] if one["id"] not in drained])

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            name = self.path.split("/")[-2]
            self._answer(503 if name == stubborn else 200, {}, drains=name)

        def _answer(self, status: int, body: object, drains: str = "") -> None:
            if next(requests) in away:
                status = 503
            if drains and status == 200:
                drained.append(drains)  # before it is answered: then the next one may be asked for in another thread
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", drained
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def cluster_at(url: str) -> ClusterFile:
    return ClusterFile(address="10.0.0.1:6379", dashboard_url="", gateway_url=url, processes=(OURS,))


def test_all_but_ours_and_the_dead_are_told() -> None:
    nodes = [node("head", "10.0.0.1"), node("a", "10.0.0.2"), node("b", "10.0.0.3"), node("c", "10.0.0.4", "dead")]
    with gateway(nodes) as (url, drained):
        assert tell_others_to_leave(cluster_at(url), "token") == []
    assert drained == ["a", "b"]


def test_one_that_stays_is_named_and_the_others_are_told_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(farewell, "LEAVE_S", 3.0)
    with gateway([node("a", "10.0.0.2"), node("b", "10.0.0.3")], stubborn="a") as (url, drained):
        assert tell_others_to_leave(cluster_at(url), "token") == ["a"]
    assert drained == ["b"]


@pytest.mark.parametrize("away", range(1, 7))
def test_a_gateway_that_misses_a_request_is_asked_again(away: int) -> None:
    """It answered through the host that was told first."""
    with gateway([node("a", "10.0.0.2"), node("b", "10.0.0.3")], away=frozenset({away, away + 1})) as (url, drained):
        assert tell_others_to_leave(cluster_at(url), "token") == []
    assert drained == ["a", "b"]


def test_a_node_that_comes_back_as_another_is_told_too() -> None:
    with gateway([node("a", "10.0.0.2")], back="a") as (url, drained):
        assert tell_others_to_leave(cluster_at(url), "token") == []
    assert drained == ["a", "a-again"]


def test_without_a_gateway_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(farewell, "FIRST_S", 0.5)
    assert tell_others_to_leave(cluster_at("http://127.0.0.1:9"), "token") is None
    assert tell_others_to_leave(cluster_at(""), "token") is None
