"""The first question: all four modalities, with the token; and nothing happens where nobody answers."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import pytest

from noodle_ray.entry.cluster import first_question
from noodle_ray.entry.cluster.ray_process import quiet_port
from noodle_ray.fusion.decoder_pool import DecoderPool
from noodle_ray.fusion.decoding import check
from noodle_ray.fusion.inputs import MultimodalInput
from noodle_ray.fusion.limits import DEFAULT


@pytest.fixture
def gateway() -> Iterator[tuple[str, list[Any]]]:
    asked: list[Any] = []

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked.append((self.path, self.headers["authorization"], body))
            self.send_error(503)

        def log_message(self, *args: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


async def test_it_gives_something_to_every_encoder(gateway: tuple[str, list[Any]]) -> None:
    url, asked = gateway
    first_question.ask(url, "secret")
    [(path, authorization, body)] = asked
    assert (path, authorization) == ("/api/ai/fusion", "Bearer secret")
    request = MultimodalInput.parse({name: _plain(name, value) for name, value in body.items()})
    given = [(modality, item) for modality, items in request.given() for item in items]
    assert [modality for modality, _ in given] == ["text", "audio", "vision", "code"]
    check(given, DEFAULT)
    async with DecoderPool(children=1) as decoders:
        for modality, item in given:
            await decoders.decode(modality, item)


def _plain(name: str, value: Any) -> Any:
    return base64.b64decode(value) if name in ("image", "audio") else value


def test_where_nobody_answers_nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    post, failures = httpx.post, list[httpx.ConnectError]()

    def noting(*args: Any, **kwargs: Any) -> httpx.Response:
        try:
            return post(*args, **kwargs)
        except httpx.ConnectError as error:
            failures.append(error)
            raise

    monkeypatch.setattr(httpx, "post", noting)
    first_question.ask(f"http://127.0.0.1:{quiet_port()}", "secret")
    assert len(failures) == 1
