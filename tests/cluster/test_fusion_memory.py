"""What fusion remembers, with the real encoders, through every door: modules found, an index, a session."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from noodle_ray import Cluster, MultimodalInput

pytestmark = pytest.mark.ray

TOOLS = {
    "sorting": ("puts a list of numbers into ascending order", "def sort(numbers):\n    return sorted(numbers)"),
    "fetching": ("downloads a web page", "def fetch(url):\n    return urlopen(url).read()"),
    "weather": ("tells tomorrow's temperature in a city", "def forecast(city):\n    return api.get(city).celsius"),
}


def test_a_module_is_found_by_description_and_by_snippet(cluster: Cluster) -> None:
    found = cluster.fusion.indexes.find("modules", "reads sounds: audio for the fusion service", top=2)
    assert found.ask == "find" and len(found.candidates) == 2
    assert found.candidates[0].candidate == "audio-encoder"
    assert found.candidates[0].meta is not None and found.candidates[0].meta["version"]
    snippet = MultimodalInput(code="class Encoder(CodeModalityProcessor):\n    def __init__(self): ...")
    assert cluster.fusion.indexes.find("modules", snippet).candidates[0].candidate == "code-encoder"


def test_an_index_through_every_door(
    cluster: Cluster, http: httpx.Client, noodle_json: Callable[..., Any], tmp_path: Path
) -> None:
    rows = [{"name": name, "text": text, "code": code} for name, (text, code) in TOOLS.items()]
    (tmp_path / "tools.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert noodle_json("fusion", "index", "create", "tools")["entries"] == 0
    assert noodle_json("fusion", "index", "add", "tools", str(tmp_path / "tools.jsonl"))["entries"] == 3
    over_http = http.post("/api/ai/fusion", json={"text": "order some integers", "index": "tools"}).json()
    assert over_http["candidates"][0]["candidate"] == "sorting"
    assert noodle_json("fuse", "--code", "urlopen(address).read()", "--index", "tools")["ask"] == "find"
    assert cluster.fusion.indexes.find("tools", "will it be warm in Rome?").candidates[0].candidate == "weather"
    assert http.delete("/api/ai/fusion/indexes/tools/entries", params={"name": "weather"}).json()["entries"] == 2
    assert list(cluster.fusion.indexes.entries("tools")) == ["sorting", "fetching"]
    assert http.delete("/api/ai/fusion/indexes/tools").status_code == 204


def test_a_session_through_every_door(
    cluster: Cluster, http: httpx.Client, noodle: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    session = http.post("/api/ai/fusion/sessions").json()["session"]
    animals = {"candidates": ["a cat asleep on a chair", "a motorcycle on the road"], "session": session}
    assert http.post("/api/ai/fusion", json={"text": "kittens are sleeping", **animals}).json()["confident"]
    shown = noodle(
        "fuse", "--text", "which one?", "--candidates", ",".join(animals["candidates"]), "--session", session
    )
    assert shown.returncode == 0 and "the session (1 turn) adds" in shown.stdout, shown.stdout + shown.stderr
    cluster.fusion.forget_session(session)
    assert http.post("/api/ai/fusion", json={"text": "which one?", **animals}).status_code == 404
