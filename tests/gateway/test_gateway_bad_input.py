"""Bad input on every route answers 4xx in one shape, names the field, reaches no port, and leaks nothing."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from gateway_fakes import MAX_BODY, TOKEN, FakePorts

from noodle_ray.gateway.app import build_app
from noodle_ray.settings import Settings

ALLOCATIONS = "/api/distributed/resources/allocations"
NODES = "/api/distributed/nodes"
OPERATIONS = [
    (method.upper(), path, operation)
    for path, methods in build_app(FakePorts().ports(), Settings(), TOKEN).openapi()["paths"].items()
    for method, operation in methods.items()
]
JSON_ROUTES = [
    (method, path.replace("{name}", "greeter").replace("{node_id}", "node-a"))
    for method, path, operation in OPERATIONS
    if "application/json" in operation.get("requestBody", {}).get("content", {})
]
BODY_ROUTES = [*JSON_ROUTES, ("POST", "/api/modules")]
JSON = {"Content-Type": "application/json"}


def assert_refused(answer: httpx.Response, fakes: FakePorts, status: int = 422) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) >= {"code", "message", "request_id"}
    assert "Traceback" not in answer.text and "/noodle_ray/" not in answer.text and len(answer.content) < 5000
    for fake in (fakes.nodes, fakes.resources, fakes.modules, fakes.fusion, fakes.services):
        assert fake.calls == []
    return error


def test_the_lists_are_the_whole_application() -> None:
    assert len(JSON_ROUTES) == 13 and ("POST", "/api/ai/fusion") in JSON_ROUTES


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b"{",
        b"nonsense",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b"{'a': 1}",
        b'{"a": 1,}',
        b'{"a": "\xff"}',
        b'\xff\xfe{\x00"\x00',
        b'{"a": "\\ud800"}',
        b"[" * 5000 + b"]" * 5000,
        b"1" * 5000,
    ],
)
@pytest.mark.parametrize(("method", "path"), JSON_ROUTES)
async def test_what_is_not_json(
    client: httpx.AsyncClient, fakes: FakePorts, method: str, path: str, body: bytes
) -> None:
    error = assert_refused(await client.request(method, path, content=body, headers=JSON), fakes)
    assert error["code"] == "invalid_input" and error["faults"][0]["field"] == "body"


@pytest.mark.parametrize("body", ["[]", "null", "7", '"text"', "true", "[{}]"])
@pytest.mark.parametrize(("method", "path"), JSON_ROUTES)
async def test_json_that_is_no_object(
    client: httpx.AsyncClient, fakes: FakePorts, method: str, path: str, body: str
) -> None:
    error = assert_refused(await client.request(method, path, content=body, headers=JSON), fakes)
    assert error["code"] == "invalid_input"


@pytest.mark.parametrize(("method", "path"), JSON_ROUTES)
async def test_unknown_fields_are_named(client: httpx.AsyncClient, fakes: FakePorts, method: str, path: str) -> None:
    error = assert_refused(await client.request(method, path, json={"colour": "red"}), fakes)
    assert "colour" in [fault["field"] for fault in error["faults"]]


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "application/xml",
        "application/x-www-form-urlencoded",
        "application/json; charset=latin-1",
        "/",
    ],
)
@pytest.mark.parametrize(("method", "path"), BODY_ROUTES)
async def test_wrong_content_types(
    client: httpx.AsyncClient, fakes: FakePorts, method: str, path: str, content_type: str
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    answer = await client.request(method, path, content=b"{}", headers=headers)
    if path == "/api/modules" and not content_type:
        return  # bytes of no declared type are an archive there
    assert assert_refused(answer, fakes, 415)["code"] == "unsupported_media_type"


@pytest.mark.parametrize(("method", "path"), BODY_ROUTES)
async def test_compressed_bodies(client: httpx.AsyncClient, fakes: FakePorts, method: str, path: str) -> None:
    headers = {"Content-Type": "application/zip", "Content-Encoding": "gzip"}
    assert_refused(await client.request(method, path, content=b"{}", headers=headers), fakes, 415)


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize(("method", "path"), BODY_ROUTES)
async def test_oversized_bodies(
    client: httpx.AsyncClient, fakes: FakePorts, method: str, path: str, declared: bool
) -> None:
    async def chunks() -> Any:
        for _ in range(MAX_BODY // 10_000 + 1):
            yield b" " * 10_000

    content_type = {"Content-Type": "application/zip" if path == "/api/modules" else "application/json"}
    content = b" " * (MAX_BODY + 1) if declared else chunks()
    error = assert_refused(await client.request(method, path, content=content, headers=content_type), fakes, 413)
    assert (error["code"], error["limit"], error["unit"]) == ("too_large", MAX_BODY, "bytes")


async def test_a_body_of_just_the_limit_is_read(client: httpx.AsyncClient, fakes: FakePorts) -> None:
    zip_type = {"Content-Type": "application/zip"}
    assert (await client.post("/api/modules", content=b" " * MAX_BODY, headers=zip_type)).status_code == 201


async def test_an_oversized_form(client: httpx.AsyncClient, fakes: FakePorts) -> None:
    for path, name in (("/api/modules", "archive"), ("/api/ai/fusion", "image")):
        answer = await client.post(path, files={name: ("a.bin", b" " * MAX_BODY)})
        assert_refused(answer, fakes, 413)


DEMANDS: list[tuple[dict[str, Any], str]] = [
    ({}, "demand"),
    ({"cpus": -1}, "demand.cpus"),
    ({"cpus": "many"}, "demand.cpus"),
    ({"cpus": 0.00001}, "demand.cpus"),
    ({"cpus": 1e9}, "demand.cpus"),
    ({"cpus": 1, "memory": "-2GiB"}, "demand.memory"),
    ({"cpus": 1, "memory": "two"}, "demand.memory"),
    ({"cpus": 1, "gpus": 1.5}, "demand.gpus"),
    ({"gpu_share": 1}, "demand.gpu_share"),
    ({"gpus": 1, "gpu_share": 0.5}, "demand"),
    ({"cpus": 1, "labels": {"zone": "in("}}, "demand.labels"),
    ({"cpus": 1, "labels": {"\x00": "a"}}, "demand.labels"),
    ({"cpus": 1, "custom": {"GPU": 1}}, "demand.custom"),
    ({"cpus": 1, "custom": {"tpu": -1}}, "demand.custom.tpu"),
    ({"cpus": 1, "colour": "red"}, "demand.colour"),
]


@pytest.mark.parametrize(("demand", "field"), DEMANDS)
async def test_wrong_demands(client: httpx.AsyncClient, fakes: FakePorts, demand: dict[str, Any], field: str) -> None:
    error = assert_refused(await client.post(ALLOCATIONS, json={"demand": demand}), fakes)
    assert error["faults"][0]["field"].startswith(field)


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (ALLOCATIONS, {}, "demand"),
        (ALLOCATIONS, {"demand": None}, "demand"),
        (ALLOCATIONS, {"demand": {"cpus": 1}, "lease_s": 0}, "lease_s"),
        (ALLOCATIONS, {"demand": {"cpus": 1}, "lease_s": -60}, "lease_s"),
        (ALLOCATIONS, {"demand": {"cpus": 1}, "lease_s": None}, "lease_s"),
        (ALLOCATIONS, {"demand": {"cpus": 1}, "lease_s": 1e6}, "lease_s"),
        (ALLOCATIONS, {"demand": {"cpus": 1}, "request": {"bundles": [{"cpus": 1}]}}, "demand"),
        (ALLOCATIONS, {"request": {"bundles": []}}, "request.bundles"),
        (ALLOCATIONS, {"request": {"bundles": [{"cpus": 1}], "strategy": "scatter"}}, "request.strategy"),
        (ALLOCATIONS, {"demand": {"cpus": 1}, "wait_s": -1}, "wait_s"),
        (ALLOCATIONS, {"demand": {"cpus": 1}, "wait_s": None}, "wait_s"),
        (ALLOCATIONS, {"demand": {"cpus": 1}, "priority": 1001}, "priority"),
        (ALLOCATIONS, {"demand": {"cpus": 1}, "priority": 0.5}, "priority"),
        (ALLOCATIONS, {"demand": {"cpus": 1}, "policy": ""}, "policy"),
        (ALLOCATIONS, {"demand": {"cpus": 1}, "policy": "p" * 101}, "policy"),
        (ALLOCATIONS, {"demand": {"cpus": 1}, "owner": "somebody"}, "owner"),
        (ALLOCATIONS, {"demand": {"cpus": 1}, "on_loss": "panic"}, "on_loss"),
        (ALLOCATIONS, {"demand": {"cpus": 1}, "on_loss": None}, "on_loss"),
        (ALLOCATIONS, {"demand": {"cpus": 1}, "domain": "d" * 254}, "domain"),
        (f"{NODES}/node-a/drain", {"deadline_s": -1}, "deadline_s"),
        (f"{NODES}/node-a/drain", {"deadline_s": 86_401}, "deadline_s"),
        (f"{NODES}/node-a/drain", {"deadline_s": "soon"}, "deadline_s"),
        (f"{NODES}/node-a/drain", {"deadline_s": None}, "deadline_s"),
        ("/api/modules/resolve", {"requirements": {}}, "requirements"),
        ("/api/modules/resolve", {"requirements": {"a b": ""}}, "requirements"),
        ("/api/modules/resolve", {"requirements": {"a": 1}}, "requirements.a"),
        ("/api/modules/resolve", {"requirements": {"a": "=" * 201}}, "requirements.a"),
        ("/api/modules/resolve", {"requirements": ["a"]}, "requirements"),
        ("/api/modules/greeter/load", {"constraint": None}, "constraint"),
        ("/api/modules/greeter/load", {"constraint": "=" * 201}, "constraint"),
        ("/api/modules/greeter/swap", {"constraint": 2}, "constraint"),
        ("/api/modules/greeter/call", {}, "function"),
        ("/api/modules/greeter/call", {"function": "_private"}, "function"),
        ("/api/modules/greeter/call", {"function": "a.b"}, "function"),
        ("/api/modules/greeter/call", {"function": "f" * 101}, "function"),
        ("/api/modules/greeter/call", {"function": "f", "args": {}}, "args"),
        ("/api/modules/greeter/call", {"function": "f", "kwargs": []}, "kwargs"),
        ("/api/services", {"name": "a"}, "address"),
        ("/api/services", {"name": "a\x00", "address": "x"}, "name"),
        ("/api/services", {"name": "a", "address": "x", "ttl_s": -1}, "ttl_s"),
        ("/api/services", {"name": "a", "address": "x", "capabilities": ["Not One"]}, "capabilities.0"),
        ("/api/services", {"name": "a", "address": "x", "metadata": {"k": "\x00"}}, "metadata.k"),
    ],
)
async def test_wrong_fields_are_named(
    client: httpx.AsyncClient, fakes: FakePorts, path: str, body: dict[str, Any], field: str
) -> None:
    error = assert_refused(await client.post(path, json=body), fakes)
    assert error["faults"][0]["field"].split(".[key]")[0].startswith(field)


async def test_every_fault_is_listed(client: httpx.AsyncClient, fakes: FakePorts) -> None:
    body = {"demand": {"cpus": -1, "gpus": -1}, "lease_s": 0, "colour": "red"}
    error = assert_refused(await client.post(ALLOCATIONS, json=body), fakes)
    assert {fault["field"] for fault in error["faults"]} == {"demand.cpus", "demand.gpus", "lease_s", "colour"}
    assert error["faults"][0]["given"] == "-1"


NAMED = [(method, path) for method, path, _ in OPERATIONS if "{" in path]


@pytest.mark.parametrize(
    "name", ["a" * 5000, "%00", "%0a", "a%20b", "%F0%9F%92%A9", "%ff", "..%2e", "-a", "'--", "a%3Cscript%3E"]
)
@pytest.mark.parametrize(("method", "path"), NAMED)
async def test_odd_names_in_paths(
    client: httpx.AsyncClient, fakes: FakePorts, method: str, path: str, name: str
) -> None:
    for parameter in ("{node_id}", "{allocation_id}", "{name}", "{version}", "{session}"):
        path = path.replace(parameter, name)
    answer = await client.request(method, path, json={} if method in ("POST", "PATCH", "PUT") else None)
    error = assert_refused(answer, fakes)
    assert error["code"] == "invalid_input" and len(error["message"]) < 1000


READING = [path for method, path, _ in OPERATIONS if method == "GET" and "{" not in path]


@pytest.mark.parametrize("path", READING)
async def test_unknown_query_parameters(client: httpx.AsyncClient, fakes: FakePorts, path: str) -> None:
    error = assert_refused(await client.get(path, params={"capabilty": "a.b"}), fakes)
    assert error["faults"][0]["field"] == "query" and error["faults"][0]["given"] == "capabilty"


@pytest.mark.parametrize("number", ["-1", "1.5", "many", "1e3", "9" * 30, "%00"])
async def test_wrong_event_numbers(client: httpx.AsyncClient, fakes: FakePorts, number: str) -> None:
    error = assert_refused(await client.get(f"{NODES}/events", params={"since": number}), fakes)
    assert error["faults"][0]["field"] == "since"
    error = assert_refused(await client.get(f"{NODES}/events", headers={"Last-Event-ID": number}), fakes)
    assert error["faults"][0]["field"] == "Last-Event-ID"


@pytest.mark.parametrize("capability", ["", "Not One", "a" * 101, "\x00", "a..b", "%ff"])
async def test_wrong_capabilities(client: httpx.AsyncClient, fakes: FakePorts, capability: str) -> None:
    error = assert_refused(await client.get("/api/services", params={"capability": capability}), fakes)
    assert error["faults"][0]["field"] == "capability"


class TestArchives:
    @pytest.mark.parametrize("content_type", ["application/zip", "application/octet-stream"])
    async def test_empty(self, client: httpx.AsyncClient, fakes: FakePorts, content_type: str) -> None:
        answer = await client.post("/api/modules", content=b"", headers={"Content-Type": content_type})
        assert assert_refused(answer, fakes)["faults"][0]["field"] == "archive"

    @pytest.mark.parametrize(
        "files",
        [
            {"archive": ("a.zip", b"")},
            {"module": ("a.zip", b"PK")},
            {"archive": (None, "PK, but as text")},
            {"archive": ("a.zip", b"PK"), "more": (None, "text")},
        ],
    )
    async def test_wrong_forms(self, client: httpx.AsyncClient, fakes: FakePorts, files: Any) -> None:
        error = assert_refused(await client.post("/api/modules", files=files), fakes)
        assert error["faults"][0]["field"] == "archive"

    @pytest.mark.parametrize("path", ["/api/modules", "/api/ai/fusion"])
    @pytest.mark.parametrize(
        ("content_type", "content"),
        [
            ("multipart/form-data", b"--x\r\n"),
            ("multipart/form-data; boundary=x", b"nonsense"),
            ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\nno name\r\n--x--\r\n"),
        ],
    )
    async def test_broken_forms(
        self, client: httpx.AsyncClient, fakes: FakePorts, path: str, content_type: str, content: bytes
    ) -> None:
        answer = await client.post(path, content=content, headers={"Content-Type": content_type})
        assert assert_refused(answer, fakes, answer.status_code)["code"] == "invalid_input"
        assert answer.status_code in (400, 422)

    async def test_too_many_files(self, client: httpx.AsyncClient, fakes: FakePorts) -> None:
        files = [("archive", ("a.zip", b"PK"))] * 3
        assert_refused(await client.post("/api/modules", files=files), fakes, 400)
