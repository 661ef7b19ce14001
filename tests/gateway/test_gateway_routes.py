"""Every route does its one thing: what it asks of the ports, and what it answers."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from gateway_fakes import FakePorts

from noodle_ray.errors import Conflict, LimitReached, ModuleFailed, Unavailable
from noodle_ray.modules.call_route import CallTarget
from noodle_ray.placement.request import Request
from noodle_ray.resources import Demand

ALLOCATIONS = "/api/distributed/resources/allocations"


class TestNodes:
    async def test_are_listed_in_a_persons_units(self, client: httpx.AsyncClient) -> None:
        nodes = (await client.get("/api/distributed/nodes")).json()
        assert [node["id"] for node in nodes] == ["node-a", "node-b"]
        assert nodes[0]["resources"]["cpus"] == 8.0 and nodes[0]["state"] == "alive"

    async def test_one(self, client: httpx.AsyncClient) -> None:
        assert (await client.get("/api/distributed/nodes/node-b")).json()["name"] == "name of node-b"

    async def test_unknown(self, client: httpx.AsyncClient) -> None:
        answer = await client.get("/api/distributed/nodes/ghost")
        assert answer.status_code == 404
        assert answer.json()["error"]["kind"] == "node" and answer.json()["error"]["key"] == "ghost"

    async def test_cordon_and_uncordon(self, client: httpx.AsyncClient) -> None:
        assert (await client.post("/api/distributed/nodes/node-a/cordon")).json()["cordoned"] is True
        assert (await client.get("/api/distributed/nodes/node-a")).json()["cordoned"] is True
        assert (await client.post("/api/distributed/nodes/node-a/uncordon")).json()["cordoned"] is False

    async def test_update(self, client: httpx.AsyncClient) -> None:
        path = "/api/distributed/nodes/node-a"
        answer = await client.patch(path, json={"name": "rack-3", "labels": {"zone": "a"}})
        assert (answer.json()["name"], answer.json()["given_labels"]) == ("rack-3", {"zone": "a"})
        answer = await client.patch(path, json={"labels": {"zone": "no spaces, please"}})
        assert answer.status_code == 422
        assert "labels.zone" in answer.text
        assert (await client.patch("/api/distributed/nodes/ghost", json={})).status_code == 404

    async def test_drain(self, client: httpx.AsyncClient) -> None:
        path = "/api/distributed/nodes/node-a/drain"
        assert (await client.post(path, json={"deadline_s": 5})).json()["drain_until"] == 1005.0
        assert (await client.post(path, json={})).json()["drain_until"] == 1060.0
        answer = await client.post("/api/distributed/nodes/ghost/drain", json={})
        assert (answer.status_code, answer.json()["error"]["key"]) == (404, "ghost")

    async def test_metrics(self, client: httpx.AsyncClient) -> None:
        measured = (await client.get("/api/distributed/nodes/node-a/metrics")).json()
        assert [one["taken_at"] for one in measured] == [1000.0, 1001.0, 1002.0]
        assert (await client.get("/api/distributed/nodes/ghost/metrics")).status_code == 404

    async def test_events_are_unavailable_with_their_log(self, client: httpx.AsyncClient, fakes: FakePorts) -> None:
        fakes.nodes.error = Unavailable("gone")
        answer = await client.get("/api/distributed/nodes/events")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")


class TestResources:
    async def test_totals(self, client: httpx.AsyncClient) -> None:
        assert (await client.get("/api/distributed/resources")).json()["cpus"]["total"] == 8.0

    async def test_life_of_an_allocation(self, client: httpx.AsyncClient, fakes: FakePorts) -> None:
        made = await client.post(ALLOCATIONS, json={"demand": {"cpus": 2, "memory": "2GiB"}})
        assert made.status_code == 201
        assert made.headers["location"] == f"{ALLOCATIONS}/a-1"
        assert made.json()["request"]["bundles"][0]["memory"] == 2 * 2**30
        _, claim, until_held = fakes.resources.calls[-1]
        assert claim.request == Request.of(Demand(cpus=2, memory="2GiB"))
        assert (claim.policy, claim.owner, claim.lease_s, claim.wait_s, claim.priority) == (None, "http", 60.0, 0.0, 0)
        assert not until_held
        assert [entry["id"] for entry in (await client.get(ALLOCATIONS)).json()] == ["a-1"]
        assert (await client.get(f"{ALLOCATIONS}/a-1")).json() == made.json()
        assert (await client.get(f"{ALLOCATIONS}/a-1/explain")).json()["chosen"] == "node-a"
        assert (await client.post(f"{ALLOCATIONS}/a-1/renew")).json()["expires_at"] == 1060.0
        released = await client.delete(f"{ALLOCATIONS}/a-1")
        assert (released.status_code, released.content) == (204, b"")
        assert (await client.get(f"{ALLOCATIONS}/a-1")).status_code == 404

    async def test_policy_and_lease_are_handed_on(self, client: httpx.AsyncClient, fakes: FakePorts) -> None:
        more = {"policy": "spread", "lease_s": 5, "wait_s": 7.5, "priority": -2, "on_loss": "standby", "domain": "rack"}
        for _ in range(2):
            await client.post(ALLOCATIONS, json={"demand": {"cpus": 1}, **more})
        claims = [call[1] for call in fakes.resources.calls]
        assert {name: getattr(claims[0], name) for name in more} == more
        assert claims[0].id != claims[1].id

    async def test_several_bundles_are_one_request(self, client: httpx.AsyncClient, fakes: FakePorts) -> None:
        request = {"bundles": [{"cpus": 1}, {"cpus": 2}], "strategy": "strict-spread", "anti_affinity": "db"}
        made = await client.post(ALLOCATIONS, json={"request": request})
        assert made.status_code == 201
        assert [bundle["demand"]["cpus"] for bundle in made.json()["bundles"]] == [1.0, 2.0]
        assert fakes.resources.calls[-1][1].request == Request.parse(request)

    async def test_what_may_wait_is_accepted_and_waits(self, client: httpx.AsyncClient, fakes: FakePorts) -> None:
        await client.post(ALLOCATIONS, json={"demand": {"cpus": 8}})
        assert (await client.post(ALLOCATIONS, json={"demand": {"cpus": 1}})).status_code == 409
        answer = await client.post(ALLOCATIONS, json={"demand": {"cpus": 1}, "wait_s": 60})
        assert (answer.status_code, answer.json()["state"]) == (202, "waiting")
        waiting = answer.headers["location"]
        assert (await client.get(waiting)).json()["state"] == "waiting"
        assert fakes.resources.calls[-1] == ("allocation", waiting.rpartition("/")[2], 0.0)
        assert (await client.get(waiting, params={"wait_s": 2.5})).json()["state"] == "waiting"
        assert fakes.resources.calls[-1][2] == 2.5
        assert (await client.get(waiting, params={"wait_s": 61})).status_code == 422
        assert (await client.delete(waiting)).status_code == 204

    async def test_a_late_holder_is_told_so(self, client: httpx.AsyncClient) -> None:
        await client.post(ALLOCATIONS, json={"demand": {"cpus": 1}})
        for method, path in (("DELETE", "a-1"), ("POST", "a-1/renew")):
            answer = await client.request(method, f"{ALLOCATIONS}/{path}", params={"fence": "a-1.7"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")
        assert (await client.delete(f"{ALLOCATIONS}/a-1", params={"fence": "a-1.1"})).status_code == 204

    async def test_a_demand_that_does_not_fit_says_why(self, client: httpx.AsyncClient) -> None:
        answer = await client.post(ALLOCATIONS, json={"demand": {"cpus": 100}})
        assert answer.status_code == 409
        error = answer.json()["error"]
        assert error["code"] == "does_not_fit" and error["failed_on"] == {"cpus": 1} and error["never"] is True

    @pytest.mark.parametrize(("method", "path"), [("GET", ""), ("DELETE", ""), ("POST", "/renew"), ("GET", "/explain")])
    async def test_unknown(self, client: httpx.AsyncClient, method: str, path: str) -> None:
        answer = await client.request(method, f"{ALLOCATIONS}/ghost{path}")
        assert (answer.status_code, answer.json()["error"]["kind"]) == (404, "allocation")


class TestModules:
    async def test_list_and_describe(self, client: httpx.AsyncClient) -> None:
        assert (await client.get("/api/modules")).json() == [{"name": "greeter"}]
        assert (await client.get("/api/modules/greeter")).json() == {"name": "greeter"}
        assert (await client.get("/api/modules/ghost")).status_code == 404
        graph = (await client.get("/api/modules/-/graph")).json()
        assert graph["nodes"] == [{"name": "greeter", "version": "1.0", "loaded": True}]

    @pytest.mark.parametrize("content_type", ["application/zip", "application/octet-stream", "APPLICATION/ZIP"])
    async def test_publish_the_raw_body(self, client: httpx.AsyncClient, fakes: FakePorts, content_type: str) -> None:
        answer = await client.post("/api/modules", content=b"PK bytes", headers={"Content-Type": content_type})
        assert answer.status_code == 201 and answer.json() == {"name": "greeter", "bytes": 8}
        assert fakes.modules.calls == [("publish", b"PK bytes")]

    async def test_publish_a_form(self, client: httpx.AsyncClient, fakes: FakePorts) -> None:
        answer = await client.post("/api/modules", files={"archive": ("greeter.whl", b"PK bytes")})
        assert answer.status_code == 201
        assert fakes.modules.calls == [("publish", b"PK bytes")]

    async def test_resolve(self, client: httpx.AsyncClient, fakes: FakePorts) -> None:
        answer = await client.post("/api/modules/resolve", json={"requirements": {"greeter": ">=1,<2"}})
        assert answer.status_code == 200 and answer.json() == {"lock": ["greeter"]}
        assert fakes.modules.calls == [("resolve", {"greeter": ">=1,<2"})]

    @pytest.mark.parametrize("action", ["load", "swap"])
    async def test_load_and_swap(self, client: httpx.AsyncClient, fakes: FakePorts, action: str) -> None:
        await client.post(f"/api/modules/greeter/{action}", json={"constraint": "==2.*"})
        assert fakes.modules.calls[0] == (action, "greeter", "==2.*")
        await client.post(f"/api/modules/greeter/{action}", json={})
        assert fakes.modules.calls[-2] == (action, "greeter", "")

    async def test_call(self, client: httpx.AsyncClient, fakes: FakePorts) -> None:
        request = {"function": "greet", "args": ["Ada", 1.5, None], "kwargs": {"deep": {"er": [1]}}}
        answer = await client.post("/api/modules/greeter/call", json=request)
        assert answer.json() == {"result": "Hello"}
        target = CallTarget("greeter", "greet")
        assert fakes.modules.calls[0] == ("call", target, ["Ada", 1.5, None], {"deep": {"er": [1]}})

    async def test_call_in_a_session_of_a_version(self, client: httpx.AsyncClient, fakes: FakePorts) -> None:
        request = {"function": "greet", "session": "ada", "version": "==1.*"}
        await client.post("/api/modules/greeter/call", json=request)
        assert fakes.modules.calls[0] == ("call", CallTarget("greeter", "greet", "ada", "==1.*"), [], {})

    async def test_stream_is_a_line_for_each_item(self, client: httpx.AsyncClient, fakes: FakePorts) -> None:
        fakes.modules.result = [1, {"two": "drei"}, None]
        answer = await client.post("/api/modules/greeter/stream", json={"function": "greet"})
        assert answer.headers["content-type"] == "application/x-ndjson"
        assert answer.text == '1\n{"two": "drei"}\nnull\n'
        fakes.modules.result = []
        assert (await client.post("/api/modules/greeter/stream", json={"function": "greet"})).text == ""

    async def test_a_stream_that_fails_at_once_has_a_status(self, client: httpx.AsyncClient, fakes: FakePorts) -> None:
        fakes.modules.result = [ModuleFailed("greeter", "ill")]
        answer = await client.post("/api/modules/greeter/stream", json={"function": "greet"})
        assert answer.status_code == 502 and answer.json()["error"]["code"] == "module_failed"

    async def test_a_stream_that_fails_later_says_so_in_its_last_line(
        self, client: httpx.AsyncClient, fakes: FakePorts
    ) -> None:
        for failure, code in ((ModuleFailed("greeter", "ill"), "module_failed"), (object(), "module_failed")):
            fakes.modules.result = [1, failure]
            answer = await client.post("/api/modules/greeter/stream", json={"function": "greet"})
            first, last = answer.text.splitlines()
            assert answer.status_code == 200 and first == "1" and json.loads(last)["error"]["code"] == code

    async def test_rollback(self, client: httpx.AsyncClient, fakes: FakePorts) -> None:
        assert (await client.post("/api/modules/greeter/rollback")).json() == {"name": "greeter"}
        assert fakes.modules.calls[0] == ("rollback", "greeter")

    @pytest.mark.parametrize("result", [None, [1, "two", {"three": 3.5}], "naïve ☃", {"": ""}])
    async def test_call_gives_any_json(self, client: httpx.AsyncClient, fakes: FakePorts, result: Any) -> None:
        fakes.modules.result = result
        answer = await client.post("/api/modules/greeter/call", json={"function": "greet"})
        assert answer.json() == {"result": result}

    @pytest.mark.parametrize("result", [{1, 2}, b"bytes", float("nan"), "\ud800", object()])
    async def test_call_says_that_a_result_is_no_json(
        self, client: httpx.AsyncClient, fakes: FakePorts, result: Any
    ) -> None:
        fakes.modules.result = result
        answer = await client.post("/api/modules/greeter/call", json={"function": "greet"})
        assert answer.status_code == 502
        assert "not JSON" in answer.json()["error"]["message"]

    async def test_unload_and_yank(self, client: httpx.AsyncClient, fakes: FakePorts) -> None:
        assert (await client.delete("/api/modules/greeter")).status_code == 204
        assert (await client.post("/api/modules/greeter/1.0.0+local.1/yank")).status_code == 200
        assert ("unload", "greeter") in fakes.modules.calls
        assert ("yank", "greeter", "1.0.0+local.1") in fakes.modules.calls

    async def test_a_module_may_be_called_resolve(self, client: httpx.AsyncClient, fakes: FakePorts) -> None:
        fakes.modules.published["resolve"] = {"name": "resolve"}
        assert (await client.get("/api/modules/resolve")).json() == {"name": "resolve"}


class TestServices:
    async def test_register_find_renew_remove(self, client: httpx.AsyncClient) -> None:
        service = {"name": "resizer", "address": "http://10.0.0.7", "capabilities": ["image.resize"], "ttl_s": 30}
        made = await client.post("/api/services", json=service)
        assert made.status_code == 201
        assert made.json()["expires_at"] - made.json()["registered_at"] == 30.0
        for query, names in (("", ["resizer"]), ("?capability=image.resize", ["resizer"]), ("?capability=a.b", [])):
            found = (await client.get(f"/api/services{query}")).json()
            assert [entry["name"] for entry in found] == names
        renewed = await client.post("/api/services/resizer/renew")
        assert renewed.json()["expires_at"] > made.json()["expires_at"]
        assert (await client.delete("/api/services/resizer")).status_code == 204
        assert (await client.get("/api/services")).json() == []

    async def test_times_are_not_the_clients(self, client: httpx.AsyncClient) -> None:
        answer = await client.post("/api/services", json={"name": "a", "address": "x", "registered_at": 1})
        assert answer.status_code == 422
        assert answer.json()["error"]["faults"][0]["field"] == "registered_at"

    @pytest.mark.parametrize(
        ("method", "path"), [("POST", "/api/services/ghost/renew"), ("DELETE", "/api/services/ghost")]
    )
    async def test_unknown(self, client: httpx.AsyncClient, method: str, path: str) -> None:
        assert (await client.request(method, path)).status_code == 404

    @pytest.mark.parametrize("error", [Conflict("the name is taken"), LimitReached("services", 3, "the limit")])
    async def test_refusals(self, client: httpx.AsyncClient, fakes: FakePorts, error: Exception) -> None:
        fakes.services.error = error
        answer = await client.post("/api/services", json={"name": "a", "address": "x"})
        assert answer.status_code == 409
