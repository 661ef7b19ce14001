"""Ray's processes on this machine: started with the settings we measured, ended without touching another's."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from noodle_ray.entry.cluster import process_session, ray_tables, supervisor
from noodle_ray.entry.cluster.cluster_file import StartedProcess
from noodle_ray.errors import Conflict, Unavailable
from noodle_ray.nodes.membership import NAME_LABEL, PRETENDED_LABEL
from noodle_ray.resources import NodeResources, from_units
from noodle_ray.settings import Settings

START_TIMEOUT_S = 90.0
QUIET_PORTS, QUIET_TRIES = range(20_000, 32_768), 100
"""Below what Linux takes for outgoing connections (ip_local_port_range)."""
_LONGEST_RUNTIME_DIR = 40  # Ray puts sockets some 60 characters below it, and a socket's path may have 107


RAY_SETTINGS = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    # An allocation right after a release takes milliseconds with these, and up to a second without.
    "RAY_raylet_report_resources_period_milliseconds": "10",
    "RAY_gcs_resource_broadcast_max_batch_delay_ms": "0",
    "RAY_gcs_create_placement_group_retry_min_interval_ms": "5",
    "RAY_gcs_create_placement_group_retry_max_interval_ms": "20",
    "RAY_debug_dump_period_milliseconds": "1000",  # which GPUs Ray gave out is known after one second instead of ten
    # A killed node is known after one to two seconds instead of twelve.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    # A connection on which nobody has acknowledged anything for so long is given up (gRPC makes it the socket's
    # TCP_USER_TIMEOUT). Else the head waits for a host that went deaf until TCP sends again, perhaps long after the
    # host hears again, and reserves nothing meanwhile: it makes one placement group after another. Not sooner than the
    # health check has found the host dead: a lost connection counts there as a host that does not answer.
    "RAY_grpc_client_keepalive_timeout_ms": "4500",
    # Beside one process that starts a node, whoever answers gets a quarter of a core. With 15, Ray's default, that is a
    # thirtieth; with 0 nodes did not start on a busy machine: a raylet waits 15 s for its agent, and dies.
    "RAY_worker_niceness": "5",
    "RAY_max_direct_call_object_size": "1000000",  # a picture's pixels go with the call, not by way of shared memory
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # else ending a node waits 30 s for actors that stay by design
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # Pictures, and whole indexes, go between replicas: the default of 4 MiB is less than a request may carry.
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(2**30),
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "1",  # else handles break outside asyncio
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    # A request for a gateway's host that is gone goes to another after a second. A gateway that is asked how it is has
    # two: one that is only busy must not be left out, for what is sent past it costs more.
    "RAY_SERVE_HAPROXY_TIMEOUT_CONNECT_S": "1",
    "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": "2s",
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
    # An actor that has waited for a place through two of those dumps counts as a deadlock, and Ray has every worker of
    # the cluster collect garbage: at most every ten minutes instead of every thirty seconds.
    "RAY_global_gc_min_interval_s": "600",
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "2000",  # what each handle counted; ten times a second else
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.25",  # Serve looks after its replicas four times a second instead of ten
    # Ray's processes have some thirty threads, and glibc gives many of them memory from arenas of their own, where what
    # was freed is hardly given out again. Serve's controller grew by 0.5 MiB with each application, and 0.3 with one.
    "MALLOC_ARENA_MAX": "2",
}
"""Ray's own settings, and one of the C library's: the same on every machine of a cluster; `noodle environment` prints
them."""


UNGUARDED_PORTS = ("RAY_SERVE_HAPROXY_STATS_PORT", "RAY_SERVE_HAPROXY_METRICS_PORT")
"""Variables of the two ports that HAProxy opens on every interface without asking anybody for a token."""


def ray_environment(settings: Settings, token_file: Path) -> dict[str, str]:
    """The variables that every Ray process on this machine starts with."""
    haproxy = haproxy_dir_for(settings.state_dir)
    # Any ports, not HAProxy's usual ones: it opens them much later, and two clusters would meet there.
    unguarded = dict(zip(UNGUARDED_PORTS, map(str, quiet_ports(len(UNGUARDED_PORTS))), strict=True))
    return {
        **RAY_SETTINGS,
        # Several Ray nodes may share this machine's cores: workers start when there is work.
        "RAY_enable_worker_prestart": "0",
        "RAY_prestart_worker_first_driver": "0",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        "RAY_TMPDIR": str(runtime_dir_for(settings.state_dir)),
        **ray_tables.environment(settings, token_file),
        **unguarded,
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(haproxy / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(haproxy / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(haproxy),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(haproxy / "server-state"),
        **settings.environment(),
    }


def runtime_dir_for(state_dir: Path) -> Path:
    """Where Ray's sockets and session logs lie: below the state directory, or in /tmp where that path is too long."""
    inside = state_dir / "ray"
    return inside if len(str(inside)) <= _LONGEST_RUNTIME_DIR else _short_dir(state_dir, "ray")


def haproxy_dir_for(state_dir: Path) -> Path:
    """Where HAProxy's files lie: always in /tmp, for its socket's path may hardly be longer than Ray makes it."""
    return _short_dir(state_dir, "ha")


def _short_dir(state_dir: Path, purpose: str) -> Path:
    return Path(tempfile.gettempdir()) / f"noodle-{hashlib.sha256(str(state_dir).encode()).hexdigest()[:8]}-{purpose}"


def free_port(preferred: int, host: str = "") -> int:
    """The preferred port where nobody has it, else any free one."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise Conflict(f"no free port on {host or 'this machine'}")


def quiet_port() -> int:
    """One of quiet_ports."""
    return quiet_ports(1)[0]


def quiet_ports(count: int) -> list[int]:
    """Different free ports that Linux gives nobody unasked: free still when somebody listens there a minute later."""
    tried = random.sample(QUIET_PORTS, QUIET_TRIES)
    found = list(islice((port for port in tried if free_port(port) == port), count))
    if len(found) < count:
        raise Conflict(f"no free port among {QUIET_TRIES} tried between {QUIET_PORTS.start} and {QUIET_PORTS.stop}")
    return found


def require_port(port: int, host: str = "") -> int:
    """Exactly this port. Raises Conflict where somebody has it."""
    if free_port(port, host) != port:
        raise Conflict(f"port {port} is taken on {host or 'this machine'}: choose another, or end what holds it")
    return port


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """What a Ray node on this machine is started with; what is None, Ray finds by itself.

    resources: all of them; cpus: these alone, without resources. pretended: its GPUs are declared, not there.
    """

    address: str
    name: str = ""
    resources: NodeResources | None = None
    pretended: bool = False
    object_store_bytes: int | None = 200 * 2**20
    cpus: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


def start_head(
    node: NodeOptions,
    port: int,
    dashboard_port: int,
    environment: Mapping[str, str],
    logs: Path,
    announce_as: str = "",
) -> StartedProcess:
    """Starts the head node in a session of its own and waits until it runs. Raises Unavailable with Ray's own words.

    announce_as: the name under which it is told on its network.
    """
    options = [
        "--head",
        f"--port={port}",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={dashboard_port}",
        f"--ray-client-server-port={free_port(10001)}",
    ]
    announce = [announce_as, f"{node.address}:{port}"] if announce_as else []
    return _start(node, options, "head", environment, logs, announce)


def start_worker(node: NodeOptions, cluster_address: str, environment: Mapping[str, str], logs: Path) -> StartedProcess:
    """Starts one more node on this machine, joined to the cluster at the address. Raises Unavailable."""
    return _start(node, [f"--address={cluster_address}"], "worker", environment, logs)


def start_again(node: StartedProcess, environment: Mapping[str, str], logs: Path) -> StartedProcess:
    """Starts a node that has ended as it was started before. Raises Unavailable."""
    return _run(node.command, node.role, node.node_address, environment, logs)


def _start(
    node: NodeOptions,
    options: list[str],
    role: str,
    environment: Mapping[str, str],
    logs: Path,
    announce: Sequence[str] = (),
) -> StartedProcess:
    temp_dir = _temp_dir(node.address, environment)
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", f"--temp-dir={temp_dir}"]
    command = supervisor.command_for([*start, *options, *_node_options(node)], announce)
    return _run(command, role, node.address, environment, logs)


def _temp_dir(address: str, environment: Mapping[str, str]) -> Path:
    """Each node its own: nodes that start side by side in one directory take each other's socket names."""
    return Path(environment["RAY_TMPDIR"]) / address.rpartition(".")[2]


def _run(command: Sequence[str], role: str, address: str, environment: Mapping[str, str], logs: Path) -> StartedProcess:
    for directory in (logs, _temp_dir(address, environment)):
        directory.mkdir(parents=True, exist_ok=True)
    log = logs / f"{role}-{address}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            start_new_session=True,  # all that Ray starts below it carries this session's number: stop() goes by it
        )
    try:
        _wait_until_started(process, log, role)
    except BaseException:  # also where somebody does not want to wait any longer: it would go on by itself
        process_session.stop(process.pid)
        raise
    process.returncode = 0  # it outlives this object on purpose: `stop` ends it, by its session
    return StartedProcess.of(process.pid, role, address, command)


def _node_options(node: NodeOptions) -> list[str]:
    options = [
        f"--node-ip-address={node.address}",
        "--min-worker-port=0",
        "--max-worker-port=0",
        f"--dashboard-agent-listen-port={free_port(52365)}",
        "--disable-usage-stats",
    ]
    if node.object_store_bytes is not None:
        options.append(f"--object-store-memory={node.object_store_bytes}")
    labels = {**node.labels, **({NAME_LABEL: node.name} if node.name else {})}
    if node.pretended:
        labels[PRETENDED_LABEL] = "true"
    if node.resources is not None:
        options += _amount_options(node.resources)
        labels |= dict(node.resources.labels)
        if node.resources.accelerator_type:
            labels["ray.io/accelerator-type"] = node.resources.accelerator_type
    elif node.cpus is not None:
        options.append(f"--num-cpus={node.cpus}")
    if labels:
        options.append("--labels=" + ",".join(f"{name}={value}" for name, value in sorted(labels.items())))
    return options


def _amount_options(resources: NodeResources) -> list[str]:
    options = [f"--num-cpus={resources.cpu_units // 10_000}", f"--num-gpus={resources.gpus}"]
    if resources.memory_bytes:
        options.append(f"--memory={resources.memory_bytes}")
    custom = {name: from_units(units) for name, units in sorted(resources.custom_units.items())}
    if resources.accelerator_type:
        custom[f"accelerator_type:{resources.accelerator_type}"] = 1
    if custom:
        options.append(f"--resources={json.dumps(custom)}")
    return options


def _wait_until_started(process: subprocess.Popen[bytes], log: Path, role: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        text = log.read_text(errors="replace")
        if "Ray runtime started" in text:
            return
        if process.poll() is not None:
            process_session.stop(process.pid)
            raise Unavailable(f"the {role} node did not start: {_last_line(text)} (log: {log})")
        time.sleep(0.05)
    process_session.stop(process.pid)
    raise Unavailable(f"the {role} node did not start within {START_TIMEOUT_S:g} s (log: {log})")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def stop(process: StartedProcess) -> int:
    """Ends a node that we started, and all that runs below it. Gives how many processes that were."""
    return 0 if process.is_anothers() else process_session.stop(process.pid)


def remove_runtime(state_dir: Path) -> None:
    """Forgets Ray's sessions: for a node that was ended for good."""
    for directory in (runtime_dir_for(state_dir), haproxy_dir_for(state_dir)):
        if directory.exists():
            shutil.rmtree(directory)
