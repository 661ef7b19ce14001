"""The gateway on Ray Serve: the token, the same answers as the Python client's, and bad input."""

import base64
import time
from typing import Any

import httpx
import pytest

from noodle_ray import Cluster
from noodle_ray.entry.cluster.local_cluster import LocalCluster
from noodle_ray.entry.demonstration import demonstration_request

pytestmark = pytest.mark.ray

ALLOCATIONS = "/api/distributed/resources/allocations"


def test_without_the_token_only_the_health_is_told(running: LocalCluster, cluster: Cluster) -> None:
    with httpx.Client(base_url=running.file.gateway_url) as stranger:
        assert stranger.get("/healthz").json() == {"status": "ok"}
        for path in ("/api/distributed/nodes", "/api/modules", "/metrics", "/docs", "/openapi.json", "/nowhere"):
            answer = stranger.get(path)
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"].startswith(("Bearer", "Basic"))
        wrong = stranger.get("/api/services", headers={"Authorization": "Bearer " + "x" * 43})
        assert wrong.status_code == 401


def test_http_tells_what_the_client_tells(http: httpx.Client, cluster: Cluster) -> None:
    nodes = http.get("/api/distributed/nodes").raise_for_status()
    assert [node["id"] for node in nodes.json()] == [node.id for node in cluster.nodes()]
    assert len(nodes.headers.get_list("X-Request-ID")) == 1
    totals = http.get("/api/distributed/resources").raise_for_status().json()
    assert totals["gpus"]["total"] == 6


def test_every_component_is_registered(http: httpx.Client) -> None:
    services = http.get("/api/services").raise_for_status().json()
    assert {service["name"] for service in services} == {
        "node-manager",
        "module-registry",
        "service-directory",
        "fusion",
        "gateway",
    }
    (found,) = http.get("/api/services", params={"capability": "fusion.choose"}).raise_for_status().json()
    assert found["name"] == "fusion"


def test_an_agent_registers_itself_for_a_while(http: httpx.Client) -> None:
    agent = {"name": "my-agent", "kind": "agent", "address": "http://127.0.0.1:9", "capabilities": ["a.b"], "ttl_s": 1}
    http.post("/api/services", json=agent).raise_for_status()
    http.post("/api/services/my-agent/renew").raise_for_status()
    time.sleep(2.5)
    assert http.get("/api/services", params={"capability": "a.b"}).json() == []


def test_an_allocation_over_http_ends_with_its_lease(http: httpx.Client, cluster: Cluster) -> None:
    made = (
        http.post(ALLOCATIONS, json={"demand": {"cpus": 1, "gpu_share": 0.5}, "lease_s": 2}).raise_for_status().json()
    )
    path = f"{ALLOCATIONS}/{made['id']}"
    assert http.get(f"{path}/explain").json()["chosen"] == made["bundles"][0]["node_id"]
    http.post(f"{path}/renew").raise_for_status()
    assert http.get(path).json()["state"] == "held"
    deadline = time.monotonic() + 15
    while http.get(path).status_code != 404:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert cluster.resources()["gpus"]["held"] == 0


def test_an_allocation_over_http_can_be_freed_at_once(http: httpx.Client) -> None:
    made = http.post(ALLOCATIONS, json={"demand": {"cpus": 1}}).raise_for_status().json()
    assert http.delete(f"{ALLOCATIONS}/{made['id']}").status_code == 204
    assert http.delete(f"{ALLOCATIONS}/{made['id']}").status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"demand": {"cpus": -1}}, 422, "invalid_input"),
        ({"demand": {}}, 422, "invalid_input"),
        ({}, 422, "invalid_input"),
        ({"demand": {"cpus": 1, "colour": "red"}}, 422, "invalid_input"),
        ({"demand": {"gpus": 64}}, 409, "does_not_fit"),
        ({"demand": {"cpus": 1}, "policy": "wurst"}, 404, "not_found"),
    ],
)
def test_a_wrong_demand_is_refused(http: httpx.Client, body: dict[str, Any], status: int, code: str) -> None:
    answer = http.post(ALLOCATIONS, json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    owners = {allocation["owner"] for allocation in http.get(ALLOCATIONS).json()}
    assert {owner for owner in owners if not owner.endswith("-encoder")} == set()


def test_fusion_over_http_is_fusion_in_python(http: httpx.Client, cluster: Cluster) -> None:
    request = demonstration_request()
    over_http = http.post("/api/ai/fusion", json=request.to_json()).raise_for_status().json()
    in_python = cluster.fusion.process_multimodal_input(request)
    assert over_http["candidates"][0]["candidate"] == in_python.candidates[0].candidate
    assert over_http["confidence"] == pytest.approx(in_python.confidence, abs=1e-3)
    assert over_http["modalities_used"] == ["text", "vision", "code"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"text": ""}, 422),
        ({"text": "x", "colour": "red"}, 422),
        ({"image": "not base64!"}, 422),
        ({"image": base64.b64encode(b"not an image").decode()}, 422),
        ({"audio": base64.b64encode(b"RIFF not a sound").decode()}, 422),
        ({"text": "x", "candidates": ["a", "a"]}, 422),
        ({"text": "x" * 10**6}, 413),
        ({"text": "x", "deadline_ms": -1}, 422),
    ],
)
def test_wrong_media_are_refused(http: httpx.Client, body: dict[str, Any], status: int) -> None:
    answer = http.post("/api/ai/fusion", json=body)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["code"] in ("invalid_input", "too_large")
    assert "Traceback" not in answer.text


def test_a_body_over_the_limit_is_refused(http: httpx.Client, running: LocalCluster) -> None:
    answer = http.post("/api/modules", content=b"x" * (running.settings.max_body_bytes + 1))
    assert answer.status_code == 413


def test_metrics_and_docs_are_served(http: httpx.Client) -> None:
    metrics = http.get("/metrics").raise_for_status().text
    assert "noodle_http_requests_total" in metrics
    assert 'noodle_component_up{component="nodes"} 1.0' in metrics
    assert "swagger" in http.get("/docs").raise_for_status().text
    assert "/api/ai/fusion" in http.get("/openapi.json").raise_for_status().json()["paths"]
