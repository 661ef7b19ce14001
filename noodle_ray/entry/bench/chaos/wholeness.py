"""Whether a cluster over hosts is whole: all nodes, gateways, encoders, and the module that is called."""

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
