"""Whether a cluster over hosts is whole: all nodes, gateways, encoders, and the module that is called.

And whether what there are several of is on several hosts, as it comes to be some time after hosts have joined.
"""

from __future__ import annotations

import time

from noodle_ray.entry.bench.chaos.http_wholeness import gateway_wholeness
from noodle_ray.entry.bench.chaos.watcher import Watcher
from noodle_ray.entry.bench.host_cluster import HostCluster

ENCODERS = ("text-encoder", "audio-encoder", "vision-encoder", "code-encoder")


async def until_whole(cluster: HostCluster, within_s: float) -> None:
    """Waits for it. Raises DeadlineExceeded with what is missing."""
    addresses = [cluster.url(host) for host in cluster.gateway_hosts]
    async with gateway_wholeness(addresses, cluster.token, ENCODERS) as system:
        await Watcher(system, len(cluster.hosts), addresses, time.monotonic()).until_whole(within_s)


def until_apart(cluster: HostCluster, within_s: float) -> None:
    """Waits until no encoder has two hosts on one node, and two nodes have an engine. Raises DeadlineExceeded."""
    cluster.wait_for("encoders and engines on nodes of their own", lambda: _are_apart(cluster), within_s)


def _are_apart(cluster: HostCluster) -> bool:
    nodes = [module["nodes"] for module in cluster.get("/api/modules") if module["name"] in ENCODERS]
    engines = sum(bool(cluster.pids(host, "engine")) for host in cluster.hosts)
    return engines > 1 and all(len(set(each)) == len(each) > 1 for each in nodes)
