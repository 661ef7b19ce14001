"""The other hosts of a cluster, told to leave it before its head ends: else they would wait for it to come back."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import httpx

from noodle_ray.entry.cluster.cluster_file import ClusterFile

ANSWER_S, LEAVE_S, LOOK_S = 10.0, 40.0, 0.25
FIRST_S = 3.0
"""For how long a gateway that has not answered yet is asked again."""

NODES = "/api/distributed/nodes"


def tell_others_to_leave(cluster: ClusterFile, token: str) -> list[str] | None:
    """Has the nodes leave that were not started here; the names of those that have not done so in time.

    None where the gateway does not answer: then nobody knows whether there are any. It may answer through a host that
    has just left, so each is asked until it has heard; and one that comes back meanwhile is told as well.
    """
    ours = {process.node_address for process in cluster.processes}
    others: list[dict[str, Any]] | None = None
    told: set[str] = set()
    start = time.monotonic()
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=cluster.gateway_url, headers=headers, timeout=ANSWER_S) as gateway:
        while time.monotonic() - start < (FIRST_S if others is None else LEAVE_S):
            with suppress(httpx.HTTPError, ValueError):
                others = _others(gateway, ours)
                told |= {node["id"] for node in others if node["id"] not in told and _tell(gateway, node["id"])}
            if others == []:
                break
            time.sleep(LOOK_S)
    return None if others is None else [node["name"] for node in others]


def _tell(gateway: httpx.Client, node_id: str) -> bool:
    """Whether it was told."""
    try:
        return gateway.post(f"{NODES}/{node_id}/drain", json={"deadline_s": 0}).is_success
    except httpx.HTTPError:
        return False


def _others(gateway: httpx.Client, ours: set[str]) -> list[dict[str, Any]]:
    nodes = gateway.get(NODES).raise_for_status().json()
    return [node for node in nodes if node["address"] not in ours and node["state"] != "dead"]
