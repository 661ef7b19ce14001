"""The examination: every check, in the order in which a person would look, each on its own."""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil

from noodle_ray.entry.cluster.cluster_file import ClusterFile, read_cluster, token_path
from noodle_ray.entry.cluster.ray_process import runtime_dir_for
from noodle_ray.entry.doctor import clocks, disk, leftovers, machine, ports, running_cluster
from noodle_ray.entry.doctor.database import check_database
from noodle_ray.entry.doctor.finding import Finding, fail, skipped
from noodle_ray.entry.doctor.packages import check_installed
from noodle_ray.entry.doctor.redis_server import check_redis
from noodle_ray.entry.doctor.token_file import check_token
from noodle_ray.entry.doctor.weights import check_weights
from noodle_ray.errors import CorruptData, NotFound
from noodle_ray.settings import Settings
from noodle_ray.store.schema import VERSION

Check = Callable[[], list[Finding]]


def examine(settings: Settings, environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """The findings, as they come. A check that fails itself is a finding, too, and the others go on."""
    cluster, broken = _known_cluster(settings)
    yield from broken
    alive = cluster if cluster and (cluster.attached or cluster.is_running()) else None
    for name, check in _checks(settings, environment, cluster, alive).items():
        try:
            yield from check()
        except Exception as error:
            # What a check trips over is news about the machine, and no reason to keep the rest back.
            problem = f"could not be looked at: {type(error).__name__}: {error}"
            yield fail(name, problem, "this is a fault of noodle doctor, or of the machine below it")


def _known_cluster(settings: Settings) -> tuple[ClusterFile | None, list[Finding]]:
    try:
        return read_cluster(settings.state_dir), []
    except NotFound:
        return None, []
    except (CorruptData, OSError) as error:
        return None, [fail("cluster file", str(error), "move it away; `noodle up` writes a new one")]


def _checks(
    settings: Settings, environment: Mapping[str, str], cluster: ClusterFile | None, alive: ClusterFile | None
) -> dict[str, Check]:
    return {
        "packages": check_installed,
        "memory": lambda: [_memory()],
        "shared memory": lambda: [_shared_memory()],
        "open files": lambda: [machine.check_open_files(*_open_files())],
        "kernel": lambda: [
            machine.check_pidfd(),
            machine.check_overlay(),
            machine.check_namespaces(),
            machine.check_lossy_network(),
        ],
        "disk": lambda: _disks(settings),
        "ports": lambda: ports.check_ports(alive),
        "token": lambda: [check_token(token_path(settings.state_dir), needed=alive is not None)],
        "weights": lambda: [check_weights(settings.pack, settings.cache_dir)],
        "database": lambda: [check_database(settings.database, VERSION)],
        "redis": lambda: [check_redis(environment)],
        "cluster": lambda: _cluster(settings, cluster, alive),
        "leftovers": lambda: [_leftovers(settings, cluster)],
    }


def _memory() -> Finding:
    now = psutil.virtual_memory()
    return machine.check_memory(now.available, now.total, machine.container_limit())


def _shared_memory() -> Finding:
    shm = Path("/dev/shm")  # noqa: S108  (where Ray puts its object store)
    return machine.check_shared_memory(disk.space_at(shm).free_bytes if shm.is_dir() else None)


def _open_files() -> tuple[int, int]:
    soft, hard = (2**31 if one == resource.RLIM_INFINITY else one for one in resource.getrlimit(resource.RLIMIT_NOFILE))
    return soft, hard


def _disks(settings: Settings) -> list[Finding]:
    folders = {"state": settings.state_dir, "cache": settings.cache_dir, "scratch": Path(tempfile.gettempdir())}
    return [disk.check_disk(f"disk: {name}", folder) for name, folder in folders.items()]


def _cluster(settings: Settings, cluster: ClusterFile | None, alive: ClusterFile | None) -> list[Finding]:
    token = token_path(settings.state_dir)
    found = [running_cluster.check_processes(cluster)]
    if alive is None:
        why = running_cluster.NONE if cluster is None else "the cluster does not run"
        return found + [skipped(name, why) for name in ("ray", "gateway", "clock", "clocks of nodes")]
    found.append(running_cluster.check_ray(alive.address, token))
    return found + (_gateway(settings, alive.gateway_url, token) if alive.gateway_url else [])


def _gateway(settings: Settings, url: str, token: Path) -> list[Finding]:
    health = running_cluster.ask_gateway(f"{url}/healthz")
    word = token.read_text().strip() if token.exists() else ""
    nodes = running_cluster.ask_gateway(f"{url}/api/distributed/nodes", word)
    longest_s = (settings.resource_monitoring_interval_ms + settings.node_timeout_ms) / 1000
    return [
        running_cluster.check_gateway(url, health, nodes),
        clocks.check_clock("clock", health.offset, health.problem or "the gateway's answer has no date"),
        clocks.check_node_clocks("clocks of nodes", running_cluster.node_offsets(nodes, longest_s)),
    ]


def _leftovers(settings: Settings, cluster: ClusterFile | None) -> Finding:
    alive, dead = leftovers.recorded_sessions(cluster)
    return leftovers.check_leftovers(leftovers.processes(runtime_dir_for(settings.state_dir)), alive, dead)
