"""The other hosts of a cluster, told to leave it before its head ends: else they would wait for it to come back."""

from __future__ import annotations

import time
from typing import Any

import httpx

from noodle_ray.entry.cluster_file import ClusterFile

ANSWER_S, LEAVE_S, LOOK_S = 5.0, 10.0, 0.25
NODES = "/api/distributed/nodes"


def tell_others_to_leave(cluster: ClusterFile, token: str) -> list[str]:
    """Has the nodes leave that were not started here, and gives the names of those that have not done so in time.

    A head that does not answer any more can tell nobody: then nothing is said of them.
    """
    ours = {process.node_address for process in cluster.processes}
    headers = {"Authorization": f"Bearer {token}"}
    try:
        with httpx.Client(base_url=cluster.gateway_url, headers=headers, timeout=ANSWER_S) as gateway:
            for node in _others(gateway, ours):
                gateway.post(f"{NODES}/{node['id']}/drain", json={"deadline_s": 0}).raise_for_status()
            return _left_behind(gateway, ours)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return []


def _left_behind(gateway: httpx.Client, ours: set[str]) -> list[str]:
    end = time.monotonic() + LEAVE_S
    while (others := _others(gateway, ours)) and time.monotonic() < end:
        time.sleep(LOOK_S)
    return [node["name"] for node in others]


def _others(gateway: httpx.Client, ours: set[str]) -> list[dict[str, Any]]:
    nodes = gateway.get(NODES).raise_for_status().json()
    return [node for node in nodes if node["address"] not in ours and node["state"] != "dead"]
