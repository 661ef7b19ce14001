"""The composition root: starts Ray, our actors and Serve applications, wires them, and ends what it started."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import partial

from noodle_ray.entry.cluster import ray_process, ray_tables
from noodle_ray.entry.cluster.cluster_file import (
    ClusterFile,
    cluster_path,
    ensure_token,
    read_cluster,
    read_token,
    token_path,
)
from noodle_ray.entry.cluster.farewell import tell_others_to_leave
from noodle_ray.entry.cluster.left_behind import left_behind, refuse_if_running, refuse_other_tables
from noodle_ray.entry.cluster.local_nodes import Progress, add_nodes, logs_of, start_together
from noodle_ray.entry.cluster.ray_process import NodeOptions
from noodle_ray.errors import NoodleError, Unavailable
from noodle_ray.nodes.membership import GATEWAY_LABEL
from noodle_ray.settings import Settings

EVERY_INTERFACE = "0.0.0.0"  # noqa: S104  (where somebody asks for it)

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
    fusion: bool = True
    announce: bool = False


def head_options(cpus: int | None, address: str = HEAD_ADDRESS) -> NodeOptions:
    """The head on this machine: with all its CPUs and GPUs as Ray finds them, or with that many CPUs."""
    return NodeOptions(address, "head", cpus=cpus, labels={GATEWAY_LABEL: "yes"})


def up(settings: Settings, options: UpOptions, progress: Progress) -> ClusterFile:
    """Starts a cluster on this machine, or goes on with the one that ended here without a `down`.

    Raises Conflict where one of this state directory runs, or a port is taken.
    """
    refuse_if_running(settings)
    if (before := left_behind(settings)) is not None:
        return _go_on(settings, before, progress)
    cluster = start_ray(settings, options, progress)
    try:
        return install(settings, cluster, options.gateway_host, options.gateway_port, progress)
    except BaseException:
        _clean_up(settings, progress)
        raise


def _clean_up(settings: Settings, progress: Progress) -> None:
    """What could not be ended is told beside what went wrong, not instead of it."""
    try:
        down(settings, progress)
    except NoodleError as error:
        progress(str(error))


def _go_on(settings: Settings, before: ClusterFile, progress: Progress) -> ClusterFile:
    """Starts all of a cluster again that was started here: same addresses, same ports, Ray's tables as they were.

    Where this fails, all is as it was, and it can be tried again. Raises Conflict (the tables are elsewhere now).
    """
    refuse_other_tables(settings, before)
    progress(f"going on with the cluster at {before.address}, as it was started; `noodle down` would end it for good")
    for process in before.processes:
        ray_process.stop(process)  # what a killed one left behind
    environment = ray_process.ray_environment(settings, ensure_token(settings.state_dir))
    cluster = before.model_copy(update={"processes": (), "unguarded_ports": _unguarded(environment)})
    try:
        for together in (before.processes[:1], before.processes[1:]):  # the head first
            starts = [partial(ray_process.start_again, node, environment, logs_of(settings)) for node in together]
            cluster = start_together(settings, cluster, starts)
        if cluster.joined:
            return cluster
        os.environ.update(environment)
        return install(settings, cluster, before.gateway_host, before.gateway_port, progress, again=True)
    except BaseException:
        for process in read_cluster(settings.state_dir).processes:
            ray_process.stop(process)
        before.save(settings.state_dir)
        raise


def start_ray(settings: Settings, options: UpOptions, progress: Progress) -> ClusterFile:
    """The Ray part of it: head and workers, and this process's environment set as theirs."""
    refuse_if_running(settings)
    environment = ray_process.ray_environment(settings, ensure_token(settings.state_dir))
    try_store(settings)
    port = _choose_port(options.port, 6379)
    dashboard_port = _choose_port(options.dashboard_port, 8265, "127.0.0.1")
    if options.gateway_port:
        ray_process.require_port(options.gateway_port, options.gateway_host)
    progress("starting Ray")
    announce_as = settings.cluster_name if options.announce else ""
    logs = logs_of(settings)
    head = ray_process.start_head(options.head, port, dashboard_port, environment, logs, announce_as)
    cluster = ClusterFile(
        address=f"{options.head.address}:{port}",
        dashboard_url=f"http://127.0.0.1:{dashboard_port}",
        gateway_url="",
        fusion=options.fusion,
        tables=ray_tables.where(settings),
        store=settings.store_name,
        gateway_host=options.gateway_host,
        gateway_port=options.gateway_port,
        unguarded_ports=_unguarded(environment),
        processes=(head,),
    )
    cluster.save(settings.state_dir)
    try:
        cluster = add_nodes(settings, cluster, options.workers, environment, progress)
    except BaseException:
        _clean_up(settings, progress)
        raise
    os.environ.update(environment)
    return cluster


def _unguarded(environment: Mapping[str, str]) -> tuple[int, ...]:
    return tuple(int(environment[name]) for name in ray_process.UNGUARDED_PORTS)


def try_store(settings: Settings) -> None:
    """Whoever starts a cluster hears at once why its store cannot be had, and not later that an actor does not answer.

    Raises InvalidSettings, Conflict, CorruptData, Unavailable.
    """
    from noodle_ray.store.database import Database

    Database.open(settings.database).close()


def _choose_port(asked: int, usual: int, host: str = "") -> int:
    return ray_process.require_port(asked, host) if asked else ray_process.free_port(usual, host)


def host_environment(settings: Settings) -> dict[str, str]:
    """What Ray is to be started with on a host of a cluster, where somebody else starts it (`ray up`)."""
    return {
        **ray_process.RAY_SETTINGS,
        "RAY_AUTH_TOKEN_PATH": str(token_path(settings.state_dir)),
        **ray_tables.environment(settings, ensure_token(settings.state_dir)),
        **settings.environment(),
    }


def install(
    settings: Settings,
    cluster: ClusterFile,
    gateway_host: str,
    gateway_port: int,
    progress: Progress,
    again: bool = False,
) -> ClusterFile:
    """Puts our actors and applications onto a running Ray. The environment must hold the cluster's variables.

    again: they were there before the head ended, and Ray brings them back; what is there already is left as it is.
    """
    # Ray and Serve read their variables when they are imported: not before they are set.
    from noodle_ray.entry.cluster import components, first_question
    from noodle_ray.entry.cluster.ray_connection import connection, use_token

    use_token(token_path(settings.state_dir))
    # Ray prints its raylets' warnings on standard output, where a command's data belongs.
    with redirect_stdout(sys.stderr), connection(cluster.address):
        progress("starting the node manager, the module registry and the service directory")
        components.start_actors(settings)
        encoders = "the encoders and the gateway (the encoders load their models now)"
        progress(f"starting {encoders if cluster.fusion else 'the gateway'}")
        if not (again and components.has_gateway()):
            # Chosen only now: between choosing a port and listening on it, another may take it.
            port = _choose_port(gateway_port, 8000, gateway_host)
            components.start_gateway(settings, gateway_host, port, lambda: read_token(settings.state_dir))
            reached_at = cluster.head_address if gateway_host == EVERY_INTERFACE else gateway_host
            cluster = cluster.model_copy(update={"gateway_url": f"http://{reached_at}:{port}"})
        components.wait_for_gateway()
        if cluster.fusion:
            components.start_fusion(settings, again)
        components.register_components(cluster.gateway_url, cluster.fusion)
    if cluster.fusion:
        first_question.ask(cluster.gateway_url, read_token(settings.state_dir))
    cluster.save(settings.state_dir)
    return cluster


def down(settings: Settings, progress: Progress) -> int:
    """Ends what `up` started, or takes off what `attach` installed. Gives how many processes ended.

    Raises NotFound; Conflict where the tables are said to be elsewhere now, and Unavailable where they cannot be
    removed, or our actors do not end: then it is to be called again.
    """
    cluster = read_cluster(settings.state_dir)
    refuse_other_tables(settings, cluster)
    if cluster.attached:
        progress("taking our actors and applications off the cluster")
        ended = detach(settings, cluster)
    else:
        if cluster.spans_hosts and not cluster.joined:
            _say_farewell(settings, cluster, progress)
        progress("ending Ray")
        with ThreadPoolExecutor(max(len(cluster.processes), 1)) as pool:
            ended = sum(pool.map(ray_process.stop, cluster.processes))
        ray_process.remove_runtime(settings.state_dir)
    if not cluster.joined:
        _forget(settings, cluster)
    cluster_path(settings.state_dir).unlink()
    return ended


def _forget(settings: Settings, cluster: ClusterFile) -> None:
    try:
        if not cluster.attached:
            ray_tables.remove(settings, token_path(settings.state_dir))
        forget_running(settings)
    except Unavailable as error:
        raise Unavailable(f"it has ended, but not all is forgotten: {error}; call `noodle down` again then") from error


def _say_farewell(settings: Settings, cluster: ClusterFile, progress: Progress) -> None:
    progress("telling the other hosts to leave")
    stay = tell_others_to_leave(cluster, read_token(settings.state_dir))
    if stay is None:
        progress(
            "the gateway does not answer: hosts that joined go on looking for this head; `noodle down` on each ends it"
        )
    elif stay:
        progress(f"still there: {', '.join(stay)}; `noodle down` on each of them ends it")


def forget_running(settings: Settings) -> None:
    """Drops from the store what ends with a cluster: nodes, allocations, loads, services. Modules stay published."""
    from noodle_ray.store.changes import Delete
    from noodle_ray.store.database import Database
    from noodle_ray.store.tables import RUNNING

    database = Database.open(settings.database)
    try:
        for table in RUNNING:
            database.apply(Delete(table, key) for key in database.load(table))
    finally:
        database.close()


def detach(settings: Settings, cluster: ClusterFile) -> int:
    """Takes what `attach` installed off a Ray that goes on running. Gives how many actors ended. Raises Unavailable."""
    from noodle_ray.entry.cluster.components import stop_components
    from noodle_ray.entry.cluster.ray_connection import connection, use_token

    use_token(token_path(settings.state_dir))
    with connection(cluster.address):
        return stop_components()
