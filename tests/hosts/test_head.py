"""A head that dies and comes back loses nothing; hosts that find it, join it, and leave with it."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from noodle_ray.entry.bench.host_cluster import HostCluster, Plan, host_cluster
from noodle_ray.entry.bench.hosts import Host, why_not

ROOT = Path(__file__).parents[2]
WHY_NOT = why_not()
pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(bool(WHY_NOT), reason=f"there can be no hosts here: {WHY_NOT}"),
]
BACK_S = 90.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[HostCluster]:
    with host_cluster(Plan(hosts=3, gateways=2, announce=True), lambda what: None) as started:
        yield started


def gateways(cluster: HostCluster) -> list[Host]:
    return [host for host in cluster.hosts if cluster.pids(host, "gateway")]


def everything(cluster: HostCluster) -> dict[str, object]:
    """What a head must not forget."""
    nodes = {node["name"]: (node["cordoned"], own_labels(node)) for node in cluster.get("/api/distributed/nodes")}
    held = {(one.id, one.group, one.node_id) for one in cluster.allocations()}
    modules = {one["name"]: (one["versions"], one["loaded"]) for one in cluster.get("/api/modules")}
    services = {one["name"] for one in cluster.get("/api/services")}
    return {"nodes": nodes, "held": held, "modules": modules, "services": services}


def own_labels(node: dict[str, Any]) -> dict[str, str]:
    """Those that are not Ray's, whose node has another id when it has started again."""
    labels: dict[str, str] = node["resources"]["labels"]
    return {name: value for name, value in labels.items() if not name.startswith("ray.io/")}


@pytest.fixture(scope="module")
def full(cluster: HostCluster) -> dict[str, object]:
    """All that a cluster can hold, made once."""
    cluster.noodle(cluster.head, "module", "publish", str(ROOT / "examples/modules/tokenizer/1.1"))
    cluster.noodle(cluster.head, "module", "load", "tokenizer")
    cluster.hold(1)
    node = cluster.node_of(cluster.hosts[1])
    cluster.patch(f"/api/distributed/nodes/{node.id}", {"labels": {"rack": "b"}, "name": "renamed"})
    cluster.post(f"/api/distributed/nodes/{node.id}/cordon", {})
    cluster.post("/api/services", {"name": "mine", "kind": "service", "address": "tcp://here", "capabilities": ["x"]})
    return everything(cluster)


def call(cluster: HostCluster) -> object:
    return cluster.post("/api/modules/tokenizer/call", {"function": "tokenize", "args": ["a b"]})


def test_hosts_found_the_head_by_its_announcement(cluster: HostCluster) -> None:
    assert len(cluster.watched()) == 3
    assert "10.77." in cluster.noodle(cluster.hosts[2], "discover", "--json")


@pytest.mark.parametrize("part", ["gcs", "manager", "registry", "directory", "controller", "proxy", "gateway"])
def test_a_part_of_the_head_that_is_killed_is_back_and_has_forgotten_nothing(
    cluster: HostCluster, full: dict[str, object], part: str
) -> None:
    before = cluster.pids(cluster.head, part)
    assert before
    assert cluster.strike(cluster.head, part, signal.SIGKILL)
    cluster.wait_for(f"another {part}", lambda: set(cluster.pids(cluster.head, part)) - set(before), BACK_S)
    cluster.wait_for("the same to be known", lambda: everything(cluster) == full, BACK_S)
    cluster.wait_for("the module to answer", lambda: call(cluster) == call(cluster), BACK_S)


def test_a_head_that_is_killed_as_a_whole_goes_on_where_it_was(cluster: HostCluster, full: dict[str, object]) -> None:
    cluster.kill_all(cluster.head)
    time.sleep(5)
    cluster.up()
    cluster.wait_for("all nodes to be watched", lambda: len(cluster.watched()) == 3, BACK_S)
    cluster.wait_for("the same to be known", lambda: everything(cluster) == full, BACK_S)
    cluster.wait_for("the module to answer", lambda: call(cluster) == call(cluster), BACK_S)


def test_down_on_the_head_ends_it_everywhere(cluster: HostCluster) -> None:
    cluster.noodle(cluster.head, "down")
    end = time.monotonic() + 15
    while (left := [pid for host in cluster.hosts for pid in cluster.pids(host, "raylet")]) and time.monotonic() < end:
        time.sleep(0.2)
    assert left == []
    for host in cluster.hosts:
        assert not cluster.pids(host, "supervisor")
    assert not cluster.head.run("/bin/bash", "-c", "ls /root/.noodle-ray/gcs 2>/dev/null || true")
