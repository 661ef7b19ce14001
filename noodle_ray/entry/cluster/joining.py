"""This host as one more node of a cluster whose head runs on another."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from noodle_ray.entry.cluster import ray_process
from noodle_ray.entry.cluster.cluster_file import ClusterFile, read_token, token_path
from noodle_ray.entry.cluster.hearing import find
from noodle_ray.entry.cluster.left_behind import refuse_if_left_behind, refuse_if_running
from noodle_ray.entry.cluster.local_nodes import Progress, logs_of
from noodle_ray.entry.cluster.own_address import own_address
from noodle_ray.entry.cluster.ray_process import NodeOptions
from noodle_ray.errors import InvalidInput
from noodle_ray.nodes.membership import GATEWAY_LABEL
from noodle_ray.settings import Settings


@dataclass(frozen=True, slots=True)
class JoinOptions:
    """How this host joins. What is empty or None is found: its address, its host name, its amounts as Ray sees them.

    labels: beside Ray's own, e.g. {"rack": "b"}, for demands and for `domain`. gateway: it may answer HTTP.
    """

    own_address: str = ""
    name: str = ""
    cpus: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    object_store_bytes: int | None = None
    gateway: bool = False


def join(settings: Settings, head: str, options: JoinOptions, progress: Progress) -> ClusterFile:
    """Starts Ray here, joined to the head at HOST:PORT. `down` here ends it.

    Raises Conflict where a cluster of this state directory runs, NotFound without the cluster's token, InvalidInput,
    and Unavailable with Ray's words where the head does not answer or refuses the token.
    """
    refuse_if_running(settings)
    refuse_if_left_behind(settings)
    read_token(settings.state_dir)
    node = NodeOptions(
        options.own_address or own_address(host_of(head)),
        options.name or socket.gethostname(),
        object_store_bytes=options.object_store_bytes,
        cpus=options.cpus,
        labels={**options.labels, **({GATEWAY_LABEL: "yes"} if options.gateway else {})},
    )
    progress(f"joining {head} as {node.name} ({node.address})")
    environment = ray_process.ray_environment(settings, token_path(settings.state_dir))
    process = ray_process.start_worker(node, head, environment, logs_of(settings))
    cluster = ClusterFile(address=head, dashboard_url="", gateway_url="", joined=True, processes=(process,))
    cluster.save(settings.state_dir)
    return cluster


def find_head(settings: Settings, cluster: str, progress: Progress) -> str:
    """The address of the head that announces the cluster of that name; "": the only one whose token is ours.

    Raises NotFound, Conflict, InvalidInput (several), Unauthorized, Unavailable.
    """
    token = read_token(settings.state_dir)
    progress("listening for heads on this network")
    return find(token, cluster or None, progress=progress).address


def host_of(head: str) -> str:
    """The host of HOST:PORT. Raises InvalidInput."""
    host, _, port = head.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise InvalidInput.of("address", "must be HOST:PORT of a head, as `noodle up` there prints it", head)
    return host
