"""The composition root: starts Ray, our actors and Serve applications, wires them, and ends what it started."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

from noodle_ray.entry import ray_process
from noodle_ray.entry.cluster_file import (
    ClusterFile,
    cluster_path,
    ensure_token,
    read_cluster,
    read_token,
    token_path,
)
from noodle_ray.entry.ray_process import NodeOptions
from noodle_ray.errors import Conflict, NoodleError
from noodle_ray.resources import NodeResources, to_units
from noodle_ray.settings import Settings

Progress = Callable[[str], None]
"""Told, in a few words, what is being done now."""

HEAD_ADDRESS = "127.0.0.2"  # Ray reads 127.0.0.1 as "find this host's own address", and then listens on that


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What `noodle up` was asked for. A port of 0 means: the usual one where it is free, else any."""

    port: int = 0
    dashboard_port: int = 0
    gateway_port: int = 0
    gateway_host: str = "127.0.0.1"
    head: NodeOptions = field(default_factory=lambda: head_options(None))
    workers: tuple[NodeOptions, ...] = ()


def head_options(cpus: int | None) -> NodeOptions:
    """The head on this machine: with all its CPUs and GPUs as Ray finds them, or with that many CPUs."""
    resources = None if cpus is None else NodeResources(cpu_units=to_units(cpus))
    return NodeOptions(HEAD_ADDRESS, "head", resources)


def up(settings: Settings, options: UpOptions, progress: Progress) -> ClusterFile:
    """Starts a cluster on this machine. Raises Conflict where one of this state directory runs, or a port is taken."""
    cluster = start_ray(settings, options, progress)
    try:
        return install(settings, cluster, options.gateway_host, options.gateway_port, progress)
    except BaseException:
        down(settings, progress)
        raise


def start_ray(settings: Settings, options: UpOptions, progress: Progress) -> ClusterFile:
    """The Ray part of it: head and workers, and this process's environment set as theirs."""
    _refuse_if_running(settings)
    environment = ray_process.ray_environment(settings, ensure_token(settings.state_dir))
    _try_store(settings)
    port = _choose_port(options.port, 6379)
    dashboard_port = _choose_port(options.dashboard_port, 8265, "127.0.0.1")
    if options.gateway_port:
        ray_process.require_port(options.gateway_port, options.gateway_host)
    progress("starting Ray")
    head = ray_process.start_head(options.head, port, dashboard_port, environment, _logs(settings))
    cluster = ClusterFile(
        address=f"{options.head.address}:{port}",
        dashboard_url=f"http://127.0.0.1:{dashboard_port}",
        gateway_url="",
        unguarded_ports=tuple(int(environment[name]) for name in ray_process.UNGUARDED_PORTS),
        processes=(head,),
    )
    cluster.save(settings.state_dir)
    try:
        cluster = add_nodes(settings, cluster, options.workers, environment, progress)
    except BaseException:
        down(settings, progress)
        raise
    os.environ.update(environment)
    return cluster


def _refuse_if_running(settings: Settings, attached_too: bool = True) -> None:
    try:
        cluster = read_cluster(settings.state_dir)
    except NoodleError:
        return
    if (cluster.attached and attached_too) or any(process.is_running() for process in cluster.processes):
        raise Conflict(f"a cluster of {settings.state_dir} is running at {cluster.address}; `noodle down` ends it")


def _try_store(settings: Settings) -> None:
    """Whoever starts a cluster hears at once why its store cannot be had, and not later that an actor does not answer.

    Raises InvalidSettings, Conflict, CorruptData, Unavailable.
    """
    from noodle_ray.store.database import Database

    Database.open(settings.database).close()


def _choose_port(asked: int, usual: int, host: str = "") -> int:
    return ray_process.require_port(asked, host) if asked else ray_process.free_port(usual, host)


def _logs(settings: Settings) -> Path:
    return settings.state_dir / "logs"


def add_nodes(
    settings: Settings,
    cluster: ClusterFile,
    nodes: tuple[NodeOptions, ...],
    environment: Mapping[str, str],
    progress: Progress,
) -> ClusterFile:
    """Starts more Ray nodes on this machine, as many at a time as it has CPUs, and notes them in the cluster file.

    All at once they would slow each other down until Ray, which gives each half a minute, gives up.
    """
    if not nodes:
        return cluster
    progress(f"starting {len(nodes)} more node{'s' if len(nodes) > 1 else ''}")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        started = [
            pool.submit(ray_process.start_worker, node, cluster.address, environment, _logs(settings)) for node in nodes
        ]
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
        if (address := f"127.0.0.{last}") not in taken:
            return address
    raise Conflict("there are 253 nodes on this machine already")


def add_node(settings: Settings, name: str, resources: NodeResources, pretended: bool, progress: Progress) -> str:
    """Starts one more Ray node on this machine, joined to the cluster `up` started. Gives its address."""
    cluster = read_cluster(settings.state_dir)
    address = next_address(cluster)
    environment = ray_process.ray_environment(settings, token_path(settings.state_dir))
    add_nodes(settings, cluster, (NodeOptions(address, name or address, resources, pretended),), environment, progress)
    return address


def host_environment(settings: Settings) -> dict[str, str]:
    """What Ray is to be started with on a host of a cluster, where somebody else starts it (`ray up`)."""
    return {
        **ray_process.RAY_SETTINGS,
        "RAY_AUTH_TOKEN_PATH": str(token_path(settings.state_dir)),
        "RAY_gcs_storage_path": str(settings.state_dir / "gcs"),
        **settings.environment(),
    }


def install(
    settings: Settings, cluster: ClusterFile, gateway_host: str, gateway_port: int, progress: Progress
) -> ClusterFile:
    """Puts our actors and applications onto a running Ray. The environment must hold the cluster's variables."""
    # Ray and Serve read their variables when they are imported: not before they are set.
    from noodle_ray.entry import components, first_question
    from noodle_ray.entry.ray_connection import connection, use_token

    use_token(token_path(settings.state_dir))
    # Ray prints its raylets' warnings on standard output, where a command's data belongs.
    with redirect_stdout(sys.stderr), connection(cluster.address):
        progress("starting the node manager, the module registry and the service directory")
        components.start_actors(settings)
        progress("starting the encoders and the gateway (the encoders load their models now)")
        # Chosen only now: between choosing a port and listening on it, another may take it.
        port = _choose_port(gateway_port, 8000, gateway_host)
        components.start_gateway(settings, gateway_host, port, lambda: read_token(settings.state_dir))
        components.start_fusion(settings)
        cluster = cluster.model_copy(update={"gateway_url": f"http://{gateway_host}:{port}"})
        components.register_components(cluster.gateway_url)
    first_question.ask(cluster.gateway_url, read_token(settings.state_dir))
    cluster.save(settings.state_dir)
    return cluster


def down(settings: Settings, progress: Progress) -> int:
    """Ends what `up` started, or takes off what `attach` installed. Gives how many processes ended. Raises NotFound."""
    cluster = read_cluster(settings.state_dir)
    if cluster.attached:
        progress("taking our actors and applications off the cluster")
        ended = detach(settings, cluster)
    else:
        progress("ending Ray")
        with ThreadPoolExecutor(max(len(cluster.processes), 1)) as pool:
            ended = sum(pool.map(ray_process.stop, cluster.processes))
        ray_process.remove_runtime(settings.state_dir)
    forget_running(settings)
    cluster_path(settings.state_dir).unlink()
    return ended


def forget_running(settings: Settings) -> None:
    """Drops from the store what ends with a cluster: nodes, allocations, loads, services. Modules stay published."""
    from noodle_ray.store.changes import Delete
    from noodle_ray.store.database import Database

    database = Database.open(settings.database)
    try:
        for table in ("allocations", "nodes", "loads", "services"):
            database.apply(Delete(table, key) for key in database.load(table))
    finally:
        database.close()


def detach(settings: Settings, cluster: ClusterFile) -> int:
    """Takes what `attach` installed off a Ray that goes on running. Gives how many actors ended."""
    from noodle_ray.entry.components import stop_components
    from noodle_ray.entry.ray_connection import connection, use_token

    use_token(token_path(settings.state_dir))
    with connection(cluster.address):
        return stop_components()


def attach(settings: Settings, address: str, gateway_host: str, gateway_port: int, progress: Progress) -> ClusterFile:
    """Installs onto a Ray that already runs, or again; LEFT_TO_RAY says what stays as that Ray was started."""
    _refuse_if_running(settings, attached_too=False)
    ensure_token(settings.state_dir)
    _try_store(settings)
    cluster = ClusterFile(address=address, dashboard_url="", gateway_url="", attached=True)
    return install(settings, cluster, gateway_host, gateway_port, progress)


LEFT_TO_RAY = {
    "RAY_AUTH_MODE=token": "without it, whoever reaches Ray's ports runs code on the cluster",
    "RAY_gcs_storage=rocksdb": "without it, a head that dies forgets nodes, actors and groups",
    "RAY_raylet_report_resources_period_milliseconds=10": "without it, an allocation after another may wait a second",
    "RAY_gcs_create_placement_group_retry_max_interval_ms=20": "without it, freed capacity is given out a second late",
    "RAY_debug_dump_period_milliseconds=1000": "without it, which GPU Ray gave out is known after ten seconds",
    "RAY_health_check_period_ms=500": "without it, a dead node is known after twelve seconds instead of one",
    "RAY_SERVE_ENABLE_HA_PROXY=1": "without it, the gateway answers a third as many requests",
}
"""What `attach` cannot change on a Ray that runs, nor see from outside, and what each is good for."""
