"""The other hosts of a cluster, told to leave it before its head ends: else they would wait for it to come back."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import httpx

from noodle_ray.entry.cluster_file import ClusterFile

ANSWER_S, LEAVE_S, LOOK_S = 10.0, 40.0, 0.25
NODES = "/api/distributed/nodes"


def tell_others_to_leave(cluster: ClusterFile, token: str) -> list[str] | None:
    """Has the nodes leave that were not started here; the names of those that have not done so in time.

    None where the gateway does not answer: then nobody knows whether there are any.
    """
    ours = {process.node_address for process in cluster.processes}
    headers = {"Authorization": f"Bearer {token}"}
    others: list[dict[str, Any]] = []
    try:
        with httpx.Client(base_url=cluster.gateway_url, headers=headers, timeout=ANSWER_S) as gateway:
            others = _others(gateway, ours)
            for node in others:
                with suppress(httpx.HTTPError):  # it is named in the end
                    gateway.post(f"{NODES}/{node['id']}/drain", json={"deadline_s": 0})
            end = time.monotonic() + LEAVE_S
            while others and time.monotonic() < end:
                time.sleep(LOOK_S)
                others = _others(gateway, ours)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return [node["name"] for node in others] or None
    return [node["name"] for node in others]


def _others(gateway: httpx.Client, ours: set[str]) -> list[dict[str, Any]]:
    nodes = gateway.get(NODES).raise_for_status().json()
    return [node for node in nodes if node["address"] not in ours and node["state"] != "dead"]
