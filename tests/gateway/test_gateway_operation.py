"""What operators see: health, metrics, and the documentation."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.openapi.models import OpenAPI
from gateway_fakes import FakePorts, a_node
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from prometheus_client.parser import text_string_to_metric_families

from noodle_ray.errors import Unavailable
from noodle_ray.gateway import health, metrics
from noodle_ray.gateway.health import HealthCheck
from noodle_ray.store.health import StoreHealth


class TestHealth:
    async def test_is_open_and_says_one_word(self, stranger: httpx.AsyncClient) -> None:
        answer = await stranger.get("/healthz")
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
        assert (await stranger.head("/healthz")).status_code == 200

    async def test_is_degraded_while_a_component_is_away(self, stranger: httpx.AsyncClient, fakes: FakePorts) -> None:
        fakes.modules.error = Unavailable("no module-registry runs at 10.0.0.1")
        answer = await stranger.get("/healthz")
        assert (answer.status_code, answer.json()) == (503, {"status": "degraded"})

    async def test_is_degraded_while_a_component_hangs(
        self, stranger: httpx.AsyncClient, fakes: FakePorts, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(health, "ANSWER_TIMEOUT_S", 0.01)
        fakes.nodes.hangs = True
        assert (await stranger.get("/healthz")).json() == {"status": "degraded"}

    async def test_says_that_the_store_is_away_and_nothing_more_of_it(
        self, stranger: httpx.AsyncClient, fakes: FakePorts
    ) -> None:
        fakes.nodes.store = StoreHealth(12.0, "the database does not answer: connection to 10.0.0.1 refused")
        answer = await stranger.get("/healthz")
        assert (answer.status_code, answer.json()) == (503, {"status": "degraded", "away": ["store"]})

    async def test_does_not_ask_the_cluster_each_time(self, fakes: FakePorts) -> None:
        now = [100.0]
        check = HealthCheck(fakes.ports(), clock=lambda: now[0])
        assert [(await check.health()).status for _ in range(2)] == ["ok", "ok"]
        assert len(fakes.modules.calls) == 1
        fakes.fail(Unavailable("gone"))
        now[0] += 1.0
        assert (await check.health()).status == "degraded"
        assert len(fakes.modules.calls) == 2


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class TestMetrics:
    async def test_counts_requests_by_the_routes_template(self, client: httpx.AsyncClient) -> None:
        for path in ("/api/distributed/nodes/node-a", "/api/distributed/nodes/node-b", "/nothing/1", "/nothing/2"):
            await client.get(path)
        await client.request("BREW", "/nothing")
        await client.get("/api/services", headers={"Authorization": ""})
        answer = await client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=")
        found = samples(answer.text)

        def count(method: str, route: str, status: str) -> float:
            return found["noodle_http_requests_total", (("method", method), ("route", route), ("status", status))]

        assert count("GET", "/api/distributed/nodes/{node_id}", "200") == 2
        assert count("GET", "none", "404") == 2
        assert count("GET", "none", "401") == 1
        assert count("other", "none", "404") == 1
        assert found["noodle_http_request_seconds_count", (("method", "GET"), ("route", "none"))] == 3

    async def test_describes_the_cluster(self, client: httpx.AsyncClient, fakes: FakePorts) -> None:
        fakes.nodes.known["node-c"] = a_node("node-c", state="dead")
        await client.post("/api/distributed/resources/allocations", json={"demand": {"cpus": 2}})
        found = samples((await client.get("/metrics")).text)
        assert found["noodle_nodes", (("state", "alive"),)] == 2
        assert found["noodle_nodes", (("state", "dead"),)] == 1
        assert found["noodle_resources", (("part", "held"), ("resource", "cpus"))] == 2
        assert found["noodle_allocation_ratio", ()] == 0.25
        assert found["noodle_queue_length", ()] == 0
        assert found["noodle_allocations", (("state", "held"),)] == 1
        assert found["noodle_modules", ()] == 1
        assert found["noodle_component_up", (("component", "nodes"),)] == 1

    async def test_says_which_component_is_away(self, client: httpx.AsyncClient, fakes: FakePorts) -> None:
        fakes.fail(Unavailable("gone"))
        found = samples((await client.get("/metrics")).text)
        assert found["noodle_component_up", (("component", "modules"),)] == 0
        assert not [name for name, _ in found if name in ("noodle_nodes", "noodle_modules", "noodle_resources")]

    async def test_does_not_wait_for_a_component_that_hangs(
        self, client: httpx.AsyncClient, fakes: FakePorts, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(metrics, "ANSWER_TIMEOUT_S", 0.01)
        fakes.modules.hangs = True
        found = samples((await client.get("/metrics")).text)
        assert found["noodle_component_up", (("component", "modules"),)] == 0
        assert found["noodle_component_up", (("component", "nodes"),)] == 1


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [found for inner in value.values() for found in references(inner)]
    return [found for inner in value for found in references(inner)] if isinstance(value, list) else []


class TestOpenApi:
    @pytest.fixture
    def schema(self, app: FastAPI) -> dict[str, Any]:
        return app.openapi()

    async def test_is_served(self, client: httpx.AsyncClient, schema: dict[str, Any]) -> None:
        assert (await client.get("/openapi.json")).json() == schema

    def test_is_valid(self, schema: dict[str, Any]) -> None:
        OpenAPI.model_validate(schema)
        for component in schema["components"]["schemas"].values():
            Draft202012Validator.check_schema(component)
        for reference in references(schema):
            kind, name = reference.removeprefix("#/components/").split("/")
            assert name in schema["components"][kind]

    def test_documents_errors_and_the_token(self, schema: dict[str, Any]) -> None:
        failure = {"$ref": "#/components/schemas/Failure"}
        for path, methods in schema["paths"].items():
            for operation in methods.values():
                answers = operation["responses"]
                wanted = {"422", "500"} | (set() if path == "/healthz" else {"401"})
                wanted |= {"413", "415"} if "requestBody" in operation else set()
                assert wanted <= set(answers), path
                assert ("security" in operation) == (path != "/healthz")
                for status in set(answers) - {"200", "201", "202", "204"}:
                    if (path, status) != ("/healthz", "503"):
                        assert answers[status]["content"]["application/json"]["schema"] == failure

    def test_says_what_each_operation_is(self, schema: dict[str, Any]) -> None:
        operations = [operation for methods in schema["paths"].values() for operation in methods.values()]
        ids = [operation["operationId"] for operation in operations]
        assert len(ids) == len(set(ids)) and "resources_allocate" in ids
        tags = {tag["name"] for tag in schema["tags"]}
        for operation in operations:
            assert operation["summary"] and set(operation["tags"]) <= tags

    def test_every_json_body_has_an_example_that_is_valid(self, schema: dict[str, Any]) -> None:
        for path, methods in schema["paths"].items():
            for operation in methods.values():
                content = operation.get("requestBody", {}).get("content", {}).get("application/json")
                if content is None:
                    continue
                examples = [entry["value"] for entry in content.get("examples", {}).values()]
                examples += [content["example"]] if "example" in content else []
                assert examples, path
                validator = Draft202012Validator({**content["schema"], "components": schema["components"]})
                for example in examples:
                    validator.validate(example)


class TestDocs:
    async def test_the_page_needs_nothing_but_this_server(self, client: httpx.AsyncClient) -> None:
        page = await client.get("/docs")
        assert page.status_code == 200 and "text/html" in page.headers["content-type"]
        addresses = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert len(addresses) == 4
        for address in addresses:
            assert not address.startswith(("http", "/"))
            assert (await client.get(f"/{address}")).status_code == 200
        assert "default-src 'none'" in page.headers["content-security-policy"]

    @pytest.mark.parametrize("file", ["index.html", "swagger-ui.css.map", "%2e%2e%2fpyproject.toml", "start.js.map"])
    async def test_nothing_else_of_the_package_is_served(self, client: httpx.AsyncClient, file: str) -> None:
        assert (await client.get(f"/docs/{file}")).status_code == 404

    async def test_head(self, client: httpx.AsyncClient) -> None:
        assert (await client.head("/docs/swagger-ui.css")).status_code == 200
