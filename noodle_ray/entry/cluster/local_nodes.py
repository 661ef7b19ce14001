"""More Ray nodes on this machine, joined to the cluster that `noodle up` started here."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from noodle_ray.entry.cluster import ray_process
from noodle_ray.entry.cluster.cluster_file import LOOPBACK, ClusterFile, StartedProcess, read_cluster, token_path
from noodle_ray.entry.cluster.ray_process import NodeOptions
from noodle_ray.errors import Conflict
from noodle_ray.resources import NodeResources
from noodle_ray.settings import Settings

Progress = Callable[[str], None]
"""Told, in a few words, what is being done now."""


def logs_of(settings: Settings) -> Path:
    return settings.state_dir / "logs"


def add_nodes(
    settings: Settings,
    cluster: ClusterFile,
    nodes: tuple[NodeOptions, ...],
    environment: Mapping[str, str],
    progress: Progress,
) -> ClusterFile:
    """Starts more Ray nodes on this machine, and notes them in the cluster file."""
    if not nodes:
        return cluster
    progress(f"starting {len(nodes)} more node{'s' if len(nodes) > 1 else ''}")
    logs = logs_of(settings)
    starts = [partial(ray_process.start_worker, node, cluster.address, environment, logs) for node in nodes]
    return start_together(settings, cluster, starts)


def start_together(
    settings: Settings, cluster: ClusterFile, starts: Sequence[Callable[[], StartedProcess]]
) -> ClusterFile:
    """Starts nodes, as many at a time as this machine has CPUs, and notes those that started in the cluster file.

    All at once they would slow each other down until Ray, which gives each half a minute, gives up. Raises what the
    first start raised that failed.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        started = [pool.submit(start) for start in starts]
    processes = [future.result() for future in started if future.exception() is None]
    cluster = cluster.model_copy(update={"processes": (*cluster.processes, *processes)})
    cluster.save(settings.state_dir)
    for future in started:
        future.result()
    return cluster


def next_address(cluster: ClusterFile) -> str:
    """A loopback address that no node of ours has: every Ray node on one machine needs its own."""
    taken = {process.node_address for process in cluster.processes}
    for last in range(2, 255):
        if (address := f"{LOOPBACK}{last}") not in taken:
            return address
    raise Conflict("there are 253 nodes on this machine already")


def add_node(settings: Settings, name: str, resources: NodeResources, pretended: bool, progress: Progress) -> str:
    """Starts one more Ray node on this machine, joined to the cluster `up` started. Gives its address."""
    cluster = read_cluster(settings.state_dir)
    if cluster.spans_hosts:
        raise Conflict(f"{cluster.address} is of several hosts: `noodle join` on another one adds it")
    address = next_address(cluster)
    environment = ray_process.ray_environment(settings, token_path(settings.state_dir))
    add_nodes(settings, cluster, (NodeOptions(address, name or address, resources, pretended),), environment, progress)
    return address
