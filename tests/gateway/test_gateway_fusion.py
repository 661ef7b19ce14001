"""The fusion route: both forms of a request mean the same, and what is wrong is refused with its field."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from gateway_fakes import FakePorts, a_result

from noodle_ray.errors import DeadlineExceeded, NotFound, Overloaded, Unavailable
from noodle_ray.fusion import limits
from noodle_ray.fusion.inputs import MultimodalInput

PATH = "/api/ai/fusion"
IMAGE, SOUND = b"\x89PNG and more", b"RIFF and more"
WHOLE = MultimodalInput(
    text="a cat?", code="def f(): ...", image=IMAGE, audio=SOUND, candidates=("a cat", "a dog"), deadline_ms=150
)


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


async def test_json(client: httpx.AsyncClient, fakes: FakePorts) -> None:
    answer = await client.post(PATH, json=WHOLE.to_json())
    assert answer.status_code == 200 and answer.json() == a_result().to_json()
    assert fakes.fusion.calls == [("process", WHOLE)]


async def test_a_form(client: httpx.AsyncClient, fakes: FakePorts) -> None:
    fields = {"text": "a cat?", "code": "def f(): ...", "candidates": ["a cat", "a dog"], "deadline_ms": "150"}
    files = {"image": ("cat.png", IMAGE), "audio": ("miau.wav", SOUND)}
    answer = await client.post(PATH, data=fields, files=files)
    assert answer.status_code == 200, answer.text
    assert fakes.fusion.calls == [("process", WHOLE)]


async def test_a_form_without_files(client: httpx.AsyncClient, fakes: FakePorts) -> None:
    answer = await client.post(PATH, files={"text": (None, "a cat?"), "candidates": (None, "a cat")})
    assert answer.status_code == 200, answer.text
    assert fakes.fusion.calls == [("process", MultimodalInput(text="a cat?", candidates=("a cat",)))]


MANY = MultimodalInput(
    text=("a cat?", "or a dog?"),
    image=(IMAGE, SOUND),
    candidates=(
        "neither",
        {"label": "code 2", "code": "x = 1"},
        {"label": "tom.png", "image": IMAGE},
        {"label": "rex.wav", "audio": SOUND},
    ),
    top=2,
    session="s-1",
    use_context=False,
)


async def test_several_items_and_candidates_of_each_kind(client: httpx.AsyncClient, fakes: FakePorts) -> None:
    assert (await client.post(PATH, json=MANY.to_json())).status_code == 200
    form = [
        *[("text", (None, text)) for text in ("a cat?", "or a dog?")],
        *[("image", (name, content)) for name, content in (("a.png", IMAGE), ("b.png", SOUND))],
        ("candidates", (None, "neither")),
        ("candidates.code", (None, "x = 1")),
        ("candidates.image", ("tom.png", IMAGE)),
        ("candidates.audio", ("rex.wav", SOUND)),
        ("top", (None, "2")),
        ("session", (None, "s-1")),
        ("use_context", (None, "false")),
    ]
    answer = await client.post(PATH, files=form)
    assert answer.status_code == 200, answer.text
    first, second = (call[1] for call in fakes.fusion.calls)
    assert first == MANY
    assert second.names() == ("neither", "code 2", "tom.png", "rex.wav")
    assert second.model_copy(update={"candidates": ()}) == MANY.model_copy(update={"candidates": ()})


@pytest.mark.parametrize("ask", [{"index": "modules"}, {"head": "tickets"}])
async def test_finding_and_classifying(client: httpx.AsyncClient, fakes: FakePorts, ask: dict[str, str]) -> None:
    assert (await client.post(PATH, json={"text": "a", **ask})).status_code == 200
    assert (await client.post(PATH, files={"text": (None, "a"), **{k: (None, v) for k, v in ask.items()}})).is_success
    assert fakes.fusion.calls == [("process", MultimodalInput(text="a", **ask))] * 2


async def test_as_many_items_and_candidates_as_are_allowed_fit_into_a_form(client: httpx.AsyncClient) -> None:
    form = [("text", (None, "a"))] * 8 + [("image", ("a.png", b"x"))] * 8 + [("audio", ("a.wav", b"x"))] * 8
    form += [("candidates", (None, str(number))) for number in range(968)]
    form += [("candidates.image", (f"{number}.png", b"x")) for number in range(32)]
    assert (await client.post(PATH, files=form)).status_code == 200


async def test_large_media_are_decoded_beside_the_event_loop(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    parse = MultimodalInput.parse

    def noting(data: object) -> MultimodalInput:
        threads.append(threading.get_ident())
        return parse(data)

    monkeypatch.setattr(MultimodalInput, "parse", noting)
    body = json.dumps(WHOLE.to_json()).encode()
    monkeypatch.setattr("noodle_ray.gateway.fusion._LARGE", len(body) + 1)
    headers = {"content-type": "application/json"}

    async def in_pieces(content: bytes) -> AsyncIterator[bytes]:  # which says nothing of how much there is
        yield content

    for content in (body, body.ljust(len(body) + 1), in_pieces(body)):
        assert (await client.post(PATH, content=content, headers=headers)).status_code == 200
    small, *large = threads
    assert small == threading.get_ident()
    assert len(large) == 2
    assert small not in large


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "input"),
        ({"candidates": ["a"]}, "input"),
        ({"text": ""}, "text"),
        ({"text": " \n"}, "text"),
        ({"text": "nul \x00"}, "text"),
        ({"text": 7}, "text"),
        ({"text": ["a", 7]}, "text"),
        ({"text": ["a"] * (limits.ITEMS + 1)}, "text"),
        ({"image": "not base64!"}, "image"),
        ({"image": "abc"}, "image"),
        ({"image": ""}, "image"),
        ({"image": [1, 2]}, "image"),
        ({"audio": 7}, "audio"),
        ({"audio": "é"}, "audio"),
        ({"text": "a", "candidates": "a"}, "candidates"),
        ({"text": "a", "candidates": ["a", "a"]}, "input"),
        ({"text": "a", "candidates": ["a", {"picture": "b"}]}, "candidates.1.picture"),
        ({"text": "a", "candidates": [str(number) for number in range(limits.CANDIDATES + 1)]}, "candidates"),
        ({"text": "a", "candidates": ["a"], "index": "modules"}, "input"),
        ({"text": "a", "index": "a/b"}, "index"),
        ({"text": "a", "session": "\u2603"}, "session"),
        ({"text": "a", "top": 0}, "top"),
        ({"text": "a", "deadline_ms": 0}, "deadline_ms"),
        ({"text": "a", "deadline_ms": -5}, "deadline_ms"),
        ({"text": "a", "deadline_ms": "soon"}, "deadline_ms"),
        ({"text": "a", "colour": "red"}, "colour"),
    ],
)
async def test_wrong_json(client: httpx.AsyncClient, fakes: FakePorts, body: dict[str, Any], field: str) -> None:
    answer = await client.post(PATH, content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]["faults"][0]["field"] == field
    assert fakes.fusion.calls == []


async def test_faults_do_not_repeat_the_media(client: httpx.AsyncClient) -> None:
    answer = await client.post(PATH, json={"image": encoded(b"x" * 50_000), "colour": "red"})
    assert answer.status_code == 422 and len(answer.content) < 1000


@pytest.mark.parametrize("field", ["text", "code"])
async def test_long_texts_are_too_large(client: httpx.AsyncClient, fakes: FakePorts, field: str) -> None:
    limit = {"text": limits.TEXT_CHARACTERS, "code": limits.CODE_CHARACTERS}[field]
    answer = await client.post(PATH, json={field: "x" * (limit + 1)})
    assert answer.status_code == 413
    assert (answer.json()["error"]["field"], answer.json()["error"]["limit"]) == (field, limit)
    assert fakes.fusion.calls == []


@pytest.mark.parametrize(
    ("files", "field"),
    [
        ({"image": (None, encoded(IMAGE))}, "image"),
        ({"text": ("a.txt", b"a cat?")}, "text"),
        ({"image": ("a.png", b"")}, "image"),
        ([("text", (None, "a")), ("text", (None, ""))], "text"),
        ([("text", (None, "a")), ("top", (None, "1")), ("top", (None, "2"))], "top"),
        ([("text", (None, "a")), ("candidates.image", (None, "b"))], "candidates.image"),
        ([("text", (None, "a")), ("candidates.code", ("a.py", b"b"))], "candidates.code"),
        ([("text", (None, "a")), ("candidates.image", ("b.png", b""))], "candidates.0.image"),
        ({"candidates": ("a.txt", b"a")}, "candidates"),
        ({"colour": (None, "red"), "text": (None, "a")}, "colour"),
        ({"deadline_ms": (None, "soon"), "text": (None, "a")}, "deadline_ms"),
    ],
)
async def test_wrong_forms(client: httpx.AsyncClient, fakes: FakePorts, files: Any, field: str) -> None:
    answer = await client.post(PATH, files=files)
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]["faults"][0]["field"] == field
    assert fakes.fusion.calls == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (DeadlineExceeded("fusion", 200), 504),
        (Unavailable("loading"), 503),
        (Overloaded("fusion", 0.2), 429),
        (NotFound("index", "toys"), 404),
    ],
)
async def test_failures(client: httpx.AsyncClient, fakes: FakePorts, error: Exception, status: int) -> None:
    fakes.fusion.error = error
    assert (await client.post(PATH, json={"text": "a cat?"})).status_code == status


async def test_many_at_once(client: httpx.AsyncClient, fakes: FakePorts) -> None:
    answers = await asyncio.gather(*(client.post(PATH, json={"text": f"cat {number}"}) for number in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert sorted(call[1].text[0] for call in fakes.fusion.calls) == sorted(f"cat {number}" for number in range(20))
