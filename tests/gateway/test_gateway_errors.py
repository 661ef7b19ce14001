"""How failures look from outside: one shape, the right status, and nothing about the inside."""

from __future__ import annotations

import json

import httpx
import pytest
import structlog
from fastapi import FastAPI
from gateway_fakes import TOKEN, FakePorts

from noodle_ray import errors
from noodle_ray.errors import (
    CallInterrupted,
    Conflict,
    CorruptData,
    DeadlineExceeded,
    DoesNotFit,
    Incompatible,
    InvalidInput,
    InvalidSettings,
    LimitReached,
    ModuleFailed,
    NoodleError,
    NotFound,
    Overloaded,
    TooLarge,
    Unauthorized,
    Unavailable,
    Unresolvable,
)
from noodle_ray.gateway.app import build_app
from noodle_ray.gateway.errors import STATUS, status_of
from noodle_ray.placement.refusal import Refusal
from noodle_ray.settings import Settings

SECRET = "postgresql://user:password@db"

EXAMPLES: list[tuple[NoodleError, int]] = [
    (InvalidInput.of("cpus", "must not be negative", -1), 422),
    (InvalidSettings([errors.Fault("NOODLE_DATABASE_URL", "is none", SECRET)]), 500),
    (TooLarge("image", 10, 5, "pixels"), 413),
    (Unauthorized("not this token"), 401),
    (NotFound("node", "x"), 404),
    (Conflict("in use"), 409),
    (Incompatible("it would break callers", ["f is gone"]), 409),
    (LimitReached("modules", 1000, "NOODLE_MAX_MODULES"), 409),
    (DoesNotFit(Refusal("1 CPU", 2, {"cpus": 2}, {"cpus": "0"}, never=False)), 409),
    (Unresolvable("a wants b>2"), 409),
    (ModuleFailed("greeter", "ValueError: no", trace=SECRET), 502),
    (CallInterrupted("greeter", "greet", "its host ended"), 502),
    (DeadlineExceeded("fusion", 200), 504),
    (Unavailable("the database does not answer"), 503),
    (Overloaded("fusion", 2.5), 429),
    (CorruptData(f"{SECRET} is not what its hash says"), 500),
    (NoodleError(SECRET), 500),
]


def test_every_error_has_a_status_and_an_example() -> None:
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, NoodleError)} - {
        NoodleError
    }
    assert kinds == set(STATUS) == {type(error) for error, _ in EXAMPLES} - {NoodleError}


def test_a_new_subclass_has_its_bases_status() -> None:
    class Narrower(NotFound):
        pass

    assert status_of(Narrower("a", "b")) == 404


@pytest.mark.parametrize(("error", "status"), EXAMPLES, ids=lambda value: type(value).__name__)
async def test_of_a_port(client: httpx.AsyncClient, fakes: FakePorts, error: NoodleError, status: int) -> None:
    fakes.fail(error)
    answer = await client.get("/api/distributed/nodes", headers={"X-Request-ID": "mine-1"})
    body = answer.json()["error"]
    assert answer.status_code == status
    assert (body["code"], body["request_id"], answer.headers["x-request-id"]) == (error.code, "mine-1", "mine-1")
    assert SECRET not in answer.text
    if status != 500:
        assert body == {**error.to_json()["error"], "request_id": "mine-1"}


async def test_unavailable_says_when_to_come_back(client: httpx.AsyncClient, fakes: FakePorts) -> None:
    fakes.fail(Unavailable("not yet"))
    assert (await client.get("/api/services")).headers["retry-after"] == "1"


@pytest.mark.parametrize(("wait_s", "header"), [(0.004, "1"), (1.0, "1"), (1.2, "2"), (30.0, "30")])
async def test_overloaded_says_when_to_come_back(
    client: httpx.AsyncClient, fakes: FakePorts, wait_s: float, header: str
) -> None:
    fakes.fail(Overloaded("fusion", wait_s))
    answer = await client.get("/api/services")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, header)
    assert answer.json()["error"]["retry_after_s"] == wait_s


async def test_an_unexpected_error_is_logged_and_not_told(client: httpx.AsyncClient, fakes: FakePorts) -> None:
    fakes.fail(RuntimeError(SECRET))
    with structlog.testing.capture_logs() as logs:
        answer = await client.get("/api/distributed/nodes/node-a")
    assert answer.status_code == 500
    assert set(answer.json()["error"]) == {"code", "message", "request_id"}
    assert answer.json()["error"]["code"] == "internal"
    assert SECRET not in answer.text and "RuntimeError" not in answer.text
    failed = [entry for entry in logs if entry["event"] == "request failed"]
    assert len(failed) == 1 and failed[0]["exc_info"] and failed[0]["route"] == "/api/distributed/nodes/{node_id}"


async def test_a_port_that_answers_nonsense_is_an_internal_error(client: httpx.AsyncClient, fakes: FakePorts) -> None:
    fakes.nodes.known["node-a"] = SECRET  # type: ignore[assignment]
    with structlog.testing.capture_logs():
        answer = await client.get("/api/distributed/nodes/node-a")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
    assert SECRET not in answer.text


async def test_a_log_line_carries_the_request_id(client: httpx.AsyncClient) -> None:
    seen = structlog.testing.LogCapture()
    before = structlog.get_config()
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, seen])
    try:
        await client.get("/api/services", headers={"X-Request-ID": "mine-2"})
    finally:
        structlog.configure(**before)
    assert seen.entries[-1]["request_id"] == "mine-2" and seen.entries[-1]["status"] == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("PUT", "/api/modules", 405, "method_not_allowed"),
        ("BREW", "/docs", 405, "method_not_allowed"),
    ],
)
async def test_no_such_route(client: httpx.AsyncClient, method: str, path: str, status: int, code: str) -> None:
    answer = await client.request(method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert ("allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize("path", ["/api/modules/", "/api/services/", "/docs/"])
async def test_a_slash_too_many_is_not_redirected(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code in (404, 405)


@pytest.mark.parametrize("given", ["", "a" * 65, "two words", "new\tline", "<script>", "ü"])
async def test_an_unclean_request_id_is_replaced(stranger: httpx.AsyncClient, given: str) -> None:
    answer = await stranger.get("/healthz", headers=[(b"X-Request-ID", given.encode())])
    assert len(answer.headers["x-request-id"]) == 32


async def test_a_failure_after_the_answer_began_is_left_to_the_server(fakes: FakePorts) -> None:
    async def breaks(scope: object, receive: object, send: object) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[operator]
        raise RuntimeError("halfway")

    app = build_app(fakes.ports(), Settings(), TOKEN)
    app.mount("/breaks", breaks)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        with pytest.raises(RuntimeError, match="halfway"):
            await client.get("/breaks/now", headers=headers)


async def test_a_message_that_cannot_be_encoded_still_arrives(client: httpx.AsyncClient, fakes: FakePorts) -> None:
    fakes.fail(Conflict("the name \ud800 is taken"))
    answer = await client.get("/api/services")
    assert answer.status_code == 409
    assert json.loads(answer.content)["error"]["message"] == "the name \ud800 is taken"


async def test_answers_are_not_cached_or_sniffed(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/services")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_a_client_that_goes_away_is_no_failure_of_ours(app: FastAPI) -> None:
    async def receive() -> object:
        return {"type": "http.disconnect"}

    async def send(message: object) -> None:
        return None

    headers = [(b"authorization", f"Bearer {TOKEN}".encode()), (b"content-type", b"application/zip")]
    scope = {"type": "http", "method": "POST", "path": "/api/modules", "headers": headers, "query_string": b""}
    with structlog.testing.capture_logs() as logs:
        await app({**scope, "state": {}}, receive, send)  # type: ignore[arg-type]
    assert "client went away" in [entry["event"] for entry in logs]
    assert "request failed" not in [entry["event"] for entry in logs]
