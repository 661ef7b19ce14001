"""What the tests of heads that die share: a cluster with one of everything that must not be forgotten."""

import signal
import time
from pathlib import Path
from typing import Any

from noodle_ray.entry.bench.host_cluster import HostCluster

ROOT = Path(__file__).parents[2]
AWAY_S, BACK_S = 5.0, 90.0
"""How long a head is away; far more than anything takes to be back: the machine may be busy."""


def fill(cluster: HostCluster) -> None:
    """One of each: a module that is loaded, an allocation, a node with a name, a label and a cordon, a service."""
    cluster.noodle(cluster.head, "module", "publish", str(ROOT / "examples/modules/tokenizer/1.1"))
    cluster.noodle(cluster.head, "module", "load", "tokenizer")
    cluster.hold(1)
    node = cluster.node_of(cluster.hosts[1])
    cluster.patch(f"/api/distributed/nodes/{node.id}", {"labels": {"rack": "b"}, "name": "renamed"})
    cluster.post(f"/api/distributed/nodes/{node.id}/cordon", {})
    cluster.post("/api/services", {"name": "mine", "kind": "service", "address": "tcp://here", "capabilities": ["x"]})


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


def call(cluster: HostCluster) -> object:
    """What the module makes of two words."""
    answer = cluster.post("/api/modules/tokenizer/call", {"function": "tokenize", "args": ["a b"]})
    return answer["result"]


def kill_part(cluster: HostCluster, part: str) -> None:
    """Kills the head's process of that kind, and returns when there is another."""
    before = cluster.pids(cluster.head, part)
    assert before
    assert cluster.strike(cluster.head, part, signal.SIGKILL)
    cluster.wait_for(f"another {part}", lambda: set(cluster.pids(cluster.head, part)) - set(before), BACK_S)


def kill_and_start_again(cluster: HostCluster, full: dict[str, object]) -> None:
    """Every process of the head ends at once; a moment later it is started again, and knows what it knew."""
    cluster.kill_all(cluster.head)
    time.sleep(AWAY_S)
    cluster.up()
    cluster.wait_for("all nodes to be watched", lambda: len(cluster.watched()) == len(cluster.hosts), BACK_S)
    cluster.wait_for("the same to be known", lambda: everything(cluster) == full, BACK_S)
    cluster.wait_for("the module to answer", lambda: call(cluster) == ["a", "b"], BACK_S)
