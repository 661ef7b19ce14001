"""Modules on a real cluster, with the real node manager: from a directory to a swap, in Python and over HTTP."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray
from ray import serve
from ray.util.state import list_actors
from ray.util.state.common import ActorState

from noodle_ray import Cluster
from noodle_ray.actors.names import MODULE_APPS
from noodle_ray.errors import Conflict, InvalidInput, ModuleFailed, NotFound, Unresolvable
from noodle_ray.modules.artefact import pack_module
from noodle_ray.placement.allocation import Allocation

pytestmark = pytest.mark.ray

EXAMPLES = Path(__file__).parents[2] / "examples" / "modules"
VERSIONS = sorted(path.parent for path in EXAMPLES.glob("*/*/pyproject.toml"))
OURS = {"counter", "tokenizer", "wordcount"}  # others of these tests, on the same cluster, publish modules of their own
TEXT = "The cat and the dog and the cat"


@pytest.fixture(autouse=True)
def published(cluster: Cluster) -> Iterator[None]:
    for directory in VERSIONS:
        cluster.modules.publish(directory)
    yield
    for module in cluster.modules.list():
        if module["loaded"] and module["name"] in OURS:
            cluster.modules.unload(module["name"])


def test_published_twice_is_there_once(cluster: Cluster) -> None:
    versions = {module["name"]: module["versions"] for module in cluster.modules.list()}
    assert {name: versions[name] for name in OURS} == {
        "counter": ["2.0.0", "1.0.0"],
        "tokenizer": ["1.1", "1.0"],
        "wordcount": ["2.0.0", "1.0.0"],
    }


def held(cluster: Cluster) -> list[Allocation]:
    """What the loaded module holds, beside the encoders."""
    return [allocation for allocation in cluster.allocations() if allocation.owner == "module:wordcount"]


def test_load_call_swap(cluster: Cluster) -> None:
    loaded = cluster.modules.load("wordcount", "<2")
    assert loaded["version"] == "1.0.0"
    assert loaded["node_id"] in {node.id for node in cluster.nodes()}
    (allocation,) = held(cluster)
    assert allocation.node_id == loaded["node_id"]
    assert cluster.modules.call("wordcount", "count", TEXT)["the"] == 3
    graph = cluster.modules.graph()
    assert [(node.name, node.loaded) for node in graph.nodes if node.name in OURS] == [
        ("counter", False),
        ("tokenizer", True),
        ("wordcount", True),
    ]
    assert [(edge.needing, edge.needed) for edge in graph.edges] == [("wordcount", "tokenizer")]
    assert cluster.modules.swap("wordcount")["version"] == "2.0.0"
    assert "the" not in cluster.modules.call("wordcount", "count", TEXT)
    cluster.modules.unload("wordcount")
    assert held(cluster) == []


def test_minimal_change_keeps_to_what_is_loaded(cluster: Cluster) -> None:
    cluster.modules.load("tokenizer", "==1.0")
    assert cluster.modules.resolve({"tokenizer": ""})["modules"][0]["version"] == "1.1"
    assert cluster.modules.resolve({"tokenizer": ""}, minimal_change=True)["modules"][0]["version"] == "1.0"


def test_the_same_over_http(http: httpx.Client) -> None:
    again = http.post(
        "/api/modules", content=pack_module(VERSIONS[0]), headers={"Content-Type": "application/zip"}
    ).raise_for_status()
    assert again.json()["name"] == VERSIONS[0].parent.name
    lock = http.post("/api/modules/resolve", json={"requirements": {"wordcount": ">=2"}}).raise_for_status().json()
    assert [module["name"] for module in lock["modules"]] == ["tokenizer", "wordcount"]
    http.post("/api/modules/wordcount/load", json={"constraint": "<2"}).raise_for_status()
    graph = http.get("/api/modules/-/graph").raise_for_status().json()
    assert [edge["needed"] for edge in graph["edges"]] == ["tokenizer"]
    call = {"function": "count", "args": [TEXT]}
    assert http.post("/api/modules/wordcount/call", json=call).raise_for_status().json()["result"]["cat"] == 2
    http.post("/api/modules/wordcount/swap", json={}).raise_for_status()
    assert http.get("/api/modules/wordcount").raise_for_status().json()["loaded"] == "2.0.0"
    assert http.delete("/api/modules/wordcount").status_code == 204
    assert http.post("/api/modules/wordcount/call", json=call).status_code == 404


def test_a_new_version_that_breaks_leaves_the_old_one_serving(cluster: Cluster, tmp_path: Path) -> None:
    cluster.modules.load("wordcount", "<2")
    (tmp_path / "pyproject.toml").write_text(
        '[tool.noodle.module]\nname = "wordcount"\nversion = "3.0.0"\nentry_point = "broken:Counter"\n'
    )
    (tmp_path / "broken.py").write_text("raise RuntimeError('half-baked')\n")
    cluster.modules.publish(tmp_path)
    with pytest.raises(ModuleFailed, match="half-baked"):
        cluster.modules.swap("wordcount")
    assert cluster.modules.call("wordcount", "count", TEXT)["the"] == 3
    cluster.modules.yank("wordcount", "3.0.0")
    assert cluster.modules.resolve({"wordcount": ""})["modules"][-1]["version"] == "2.0.0"
    with pytest.raises(Conflict):
        cluster.modules.load("wordcount")


def test_state_goes_with_a_swap_and_comes_back(cluster: Cluster, http: httpx.Client) -> None:
    cluster.modules.load("counter", "<2", fresh=True)
    assert [cluster.modules.call("counter", "add", "a") for _ in range(2)] == [1, 2]
    cluster.modules.swap("counter")
    assert cluster.modules.call("counter", "add", "a") == 3
    with pytest.raises(Conflict, match=r"counter 1\.0\.0 cannot read the state of 2\.0\.0"):
        cluster.modules.rollback("counter")
    cluster.modules.unload("counter")
    http.post("/api/modules/counter/load", json={"constraint": ">=2"}).raise_for_status()
    call = {"function": "value", "args": ["a"], "session": "ada", "version": ">=2"}
    assert http.post("/api/modules/counter/call", json=call).raise_for_status().json() == {"result": 3}


def test_a_generator_is_streamed_and_a_version_rolled_back(
    cluster: Cluster, http: httpx.Client, tmp_path: Path
) -> None:
    for version in ("1.0", "1.1"):
        (tmp_path / "pyproject.toml").write_text(
            f'[tool.noodle.module]\nname = "spelling"\nversion = "{version}"\nentry_point = "spelling"\n'
        )
        (tmp_path / "spelling.py").write_text(f"def spell(word):\n    yield '{version}'\n    yield from word\n")
        cluster.modules.publish(tmp_path)
    cluster.modules.load("spelling", "==1.0")
    cluster.modules.swap("spelling")
    assert list(cluster.modules.stream("spelling", "spell", "ab")) == ["1.1", "a", "b"]
    assert http.post("/api/modules/spelling/rollback").raise_for_status().json()["version"] == "1.0"
    lines = http.post("/api/modules/spelling/stream", json={"function": "spell", "args": ["no"]})
    assert lines.raise_for_status().text == '"1.0"\n"n"\n"o"\n'
    assert http.post("/api/modules/spelling/stream", json={"function": "spell"}).status_code == 422


def test_what_died_with_its_host_is_not_started_again(cluster: Cluster, tmp_path: Path) -> None:
    """Serve would, at its next look; here the registry has another host with another replica instead."""
    (tmp_path / "pyproject.toml").write_text(
        '[tool.noodle.module]\nname = "served"\nversion = "1.0"\nentry_point = "served"\nrunner = "serve"\n'
    )
    (tmp_path / "served.py").write_text("import os\n\n\ndef pid():\n    return os.getpid()\n")
    cluster.modules.publish(tmp_path)
    cluster.modules.load("served")
    (application,) = applications_of("served")
    before = cluster.modules.call("served", "pid")
    for pid in (host_of("served"), before):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: application not in applications_of("served"))
    assert len(actors_of(f"ServeReplica:{application}:module")) == 1
    wait_until(lambda: len(applications_of("served")) == 1)
    assert cluster.modules.call("served", "pid") != before
    cluster.modules.unload("served")


def applications_of(module: str) -> list[str]:
    return [name for name in serve.status().applications if name.startswith(f"{MODULE_APPS}{module}-")]


def actors_of(class_name: str) -> list[ActorState]:
    """Those that there are, and that there were."""
    address = ray.get_runtime_context().gcs_address
    return list_actors(address, [("class_name", "=", class_name)], limit=1000, detail=True)


def host_of(module: str) -> int:
    """The process that hosts the module."""
    for actor in actors_of("ModuleHost"):
        if actor.state == "ALIVE":
            handle: Any = ray.get_actor(actor.name, actor.ray_namespace)
            if ray.get(handle.ping.remote(), timeout=30)["module"] == module:
                return int(actor.pid)
    raise AssertionError(f"no host of {module}")


def wait_until(holds: Callable[[], bool], within_s: float = 60.0) -> None:
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_bad_input_is_named(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nobody"):
        cluster.modules.load("nobody")
    with pytest.raises(NotFound):
        cluster.modules.call("nobody", "f")
    with pytest.raises(Unresolvable, match="wordcount"):
        cluster.modules.resolve({"wordcount": ">=9"})
    with pytest.raises(InvalidInput):
        cluster.modules.resolve({"wordcount": "about two"})
    with pytest.raises(InvalidInput):
        cluster.modules.publish(b"no archive")
    with pytest.raises((InvalidInput, NotFound)):
        cluster.modules.publish(tmp_path)


def test_a_modules_own_error_is_told_with_its_trace(cluster: Cluster) -> None:
    cluster.modules.load("wordcount", "<2")
    with pytest.raises(ModuleFailed) as caught:
        cluster.modules.call("wordcount", "count", 3)
    assert "Traceback" in caught.value.trace
    with pytest.raises(NotFound, match="count"):
        cluster.modules.call("wordcount", "_secret")
