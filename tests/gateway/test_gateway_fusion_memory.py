"""The routes of what fusion remembers: sessions, indexes and heads."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest
from gateway_fakes import FakePorts

from noodle_ray.errors import Conflict, LimitReached
from noodle_ray.fusion.index_messages import ENTRIES_AT_ONCE, KnownQuery, NewEntry

FUSION = "/api/ai/fusion"
SESSIONS, INDEXES = f"{FUSION}/sessions", f"{FUSION}/indexes"
TOYS = f"{INDEXES}/toys"
ENTRIES = [
    {"name": "bear", "text": "a bear", "meta": {"price": 12}},
    {"name": "a drum, red", "image": base64.b64encode(b"picture").decode(), "audio": ["c291bmQ=", "bm9pc2U="]},
]


class TestSessions:
    async def test_are_opened_and_forgotten(self, client: httpx.AsyncClient) -> None:
        opened = await client.post(SESSIONS)
        assert opened.status_code == 201 and opened.json() == {"session": "session-0", "idle_ms": 1000}
        place = opened.headers["location"]
        assert place == f"{SESSIONS}/session-0"
        assert (await client.delete(place)).status_code == 204
        assert (await client.delete(place)).status_code == 404

    async def test_cannot_be_listed(self, client: httpx.AsyncClient) -> None:
        assert (await client.get(SESSIONS)).status_code == 405

    async def test_too_many(self, client: httpx.AsyncClient, fakes: FakePorts) -> None:
        fakes.fusion.error = LimitReached("sessions", 1000, "NOODLE_FUSION_SESSIONS")
        answer = await client.post(SESSIONS)
        assert (answer.status_code, answer.json()["error"]["setting"]) == (409, "NOODLE_FUSION_SESSIONS")


class TestIndexes:
    async def test_life_of_one(self, client: httpx.AsyncClient, fakes: FakePorts) -> None:
        assert (await client.put(f"{INDEXES}/tools", json={"kind": "dense"})).json()["entries"] == 0
        assert [one["name"] for one in (await client.get(INDEXES)).json()] == ["toys", "tools"]
        assert (await client.post(f"{TOYS}/entries", json={"entries": ENTRIES})).json()["entries"] == 2
        assert fakes.fusion.calls[-1][2] == (
            NewEntry(name="bear", text="a bear", meta={"price": 12}),
            NewEntry(name="a drum, red", image=b"picture", audio=(b"sound", b"noise")),
        )
        assert (await client.get(f"{TOYS}/entries")).json() == ["bear", "a drum, red"]
        gone = await client.delete(f"{TOYS}/entries", params={"name": ["a drum, red", "ghost"]})
        assert gone.json() == (await client.get(TOYS)).json() == {**gone.json(), "entries": 1}
        assert (await client.delete(TOYS)).status_code == 204
        assert (await client.get(TOYS)).status_code == 404

    async def test_fit(self, client: httpx.AsyncClient, fakes: FakePorts) -> None:
        queries = [{"text": f"a bear {number}", "answer": "bear"} for number in range(6)]
        assert (await client.post(f"{TOYS}/fit", json={"queries": queries})).json()["name"] == "toys"
        assert fakes.fusion.calls[-1][2][0] == KnownQuery(text="a bear 0", answer="bear")

    async def test_heads(self, client: httpx.AsyncClient) -> None:
        assert (await client.get(f"{FUSION}/heads")).json()[0]["labels"] == ["bug", "wish"]

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("GET", "", None),
            ("DELETE", "", None),
            ("GET", "/entries", None),
            ("POST", "/entries", {"entries": ENTRIES}),
            ("DELETE", "/entries?name=a", None),
        ],
    )
    async def test_unknown(self, client: httpx.AsyncClient, method: str, path: str, body: Any) -> None:
        answer = await client.request(method, f"{INDEXES}/ghost{path}", json=body)
        assert (answer.status_code, answer.json()["error"]["kind"]) == (404, "index")

    async def test_the_registrys_own_is_not_for_others(self, client: httpx.AsyncClient, fakes: FakePorts) -> None:
        fakes.fusion.error = Conflict("the index modules is the module registry's")
        assert (await client.delete(f"{INDEXES}/modules")).status_code == 409

    @pytest.mark.parametrize(
        ("path", "body", "field"),
        [
            ("entries", {}, "entries"),
            ("entries", {"entries": []}, "entries"),
            ("entries", {"entries": [{"name": "a"}]}, "entries.0"),
            ("entries", {"entries": [{"text": "a"}]}, "entries.0.name"),
            ("entries", {"entries": [{"name": "", "text": "a"}]}, "entries.0.name"),
            ("entries", {"entries": [{"name": "a\nb", "text": "a"}]}, "entries.0.name"),
            ("entries", {"entries": [{"name": "a", "text": ""}]}, "entries.0.text"),
            ("entries", {"entries": [{"name": "a", "image": "§"}]}, "entries.0.image"),
            ("entries", {"entries": [{"name": "a", "text": "a", "meta": []}]}, "entries.0.meta"),
            ("entries", {"entries": [{"name": "a", "text": "a", "meta": {"x": "y" * 5000}}]}, "entries.0.meta"),
            ("entries", {"entries": [{"name": "a", "text": "a"}] * 2}, "input"),
            (
                "entries",
                {"entries": [{"name": f"{n}", "text": "a"} for n in range(ENTRIES_AT_ONCE + 1)]},
                "entries",
            ),
            ("fit", {"queries": []}, "queries"),
            ("fit", {"queries": [{"text": "a"}] * 6}, "queries.0.answer"),
            ("fit", {"queries": [{"answer": "a"}] * 6}, "queries.0"),
        ],
    )
    async def test_wrong_bodies(
        self, client: httpx.AsyncClient, fakes: FakePorts, path: str, body: Any, field: str
    ) -> None:
        answer = await client.post(f"{TOYS}/{path}", json=body)
        assert answer.status_code == 422, answer.text
        assert answer.json()["error"]["faults"][0]["field"] == field
        assert fakes.fusion.calls == []

    @pytest.mark.parametrize("query", ["", "?name=", "?name=%00", "?names=a"])
    async def test_wrong_names_of_entries(self, client: httpx.AsyncClient, fakes: FakePorts, query: str) -> None:
        assert (await client.delete(f"{TOYS}/entries{query}")).status_code == 422
        assert fakes.fusion.calls == []
