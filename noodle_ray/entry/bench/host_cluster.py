"""A cluster of ours over several hosts of namespaces, started as its users start it: `noodle up`, `noodle join`."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

import noodle_ray
from noodle_ray.entry.bench.host_storage import Storage, embedded
from noodle_ray.entry.bench.hosts import Host, hosts, one_order_of_niceness, this_machine
from noodle_ray.entry.cluster.local_nodes import Progress
from noodle_ray.errors import DeadlineExceeded, NotFound
from noodle_ray.nodes.event_log import ClusterEvent
from noodle_ray.placement.allocation import Allocation, OnLoss
from noodle_ray.settings import read_settings

BIN = Path(sys.executable).parent
GATEWAY_PORT, GCS_PORT = 8000, 6379
ALLOCATIONS = "/api/distributed/resources/allocations"
QUIET_S = 1.0
"""A stream of events that says nothing for so long has told what there was."""

START_S, ANSWER_S = 240.0, 30.0
STATE_DIR = "/root/.noodle-ray"
"""Where each host keeps its own, as for a user root."""

LOGS = {".log", ".out", ".err", ".txt"}

TITLES = {
    "gcs": "gcs_server",
    "raylet": "raylet",
    "supervisor": "noodle_ray.entry.cluster.supervisor",
    "agent": "ray::NodeAgent",
    "manager": "ray::NodeManager",
    "registry": "ray::ModuleRegistry",
    "directory": "ray::ServiceDirectory",
    "gateway": "ray::ServeReplica:gateway:",
    "encoder": "ray::ServeReplica:noodle-module-",
    "engine": "ray::ServeReplica:fusion:FusionEngine",
    "controller": "ray::ServeController",
    "proxy": "haproxy",
}
"""What processes of a host do, by how a word of their command line begins, or its last part does."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be started. announce: hosts find the head by themselves. variables: for every host."""

    hosts: int = 3
    fusion: bool = False
    gateways: int = 1
    cpus: int = 2
    announce: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SeenNode:
    """A node as the gateway tells it."""

    id: str
    name: str
    address: str
    state: str
    has_reported: bool

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> SeenNode:
        return cls(told["id"], told["name"], told["address"], told["state"], told["metrics"] is not None)


class HostCluster:
    """hosts[0] is the head. What is asked of the cluster goes over HTTP, from this machine, which is on its network."""

    def __init__(self, made: Sequence[Host], plan: Plan) -> None:
        self.hosts, self.plan = tuple(made), plan
        self.token = secrets.token_urlsafe(32)
        self._client = httpx.Client(headers={"Authorization": f"Bearer {self.token}"}, timeout=ANSWER_S)

    @property
    def head(self) -> Host:
        return self.hosts[0]

    @property
    def gateway_hosts(self) -> tuple[Host, ...]:
        """Those that answer HTTP."""
        return self.hosts[: self.plan.gateways]

    # -- starting and ending

    def start(self, progress: Progress) -> None:
        """The head, and then all others side by side."""
        for host in self.hosts:
            self._give_token(host)
        progress("starting the head")
        self.up()
        progress(f"{len(self.hosts) - 1} hosts join")
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(self.join, self.hosts[1:]))
        self.wait_for("all nodes to be watched", lambda: len(self.watched()) == len(self.hosts))

    def up(self) -> None:
        """Starts the head, or has it go on where it was."""
        fusion = "--fusion" if self.plan.fusion else "--no-fusion"
        options = ("--gateway-host", "0.0.0.0", "--gateway-port", str(GATEWAY_PORT), "--cpus", str(self.plan.cpus))  # noqa: S104
        where = ("--announce",) if self.plan.announce else ("--address", self.head.address)
        self.noodle(self.head, "up", *where, "--port", str(GCS_PORT), *options, fusion)

    def join(self, host: Host) -> None:
        cpus = ("--cpus", str(self.plan.cpus), "--object-store", "100MiB")
        where = () if self.plan.announce else (f"{self.head.address}:{GCS_PORT}",)
        gateway = ("--gateway",) if host in self.gateway_hosts else ()
        self.noodle(host, "join", *where, "--name", host.name, *cpus, *gateway)

    def noodle(self, host: Host, *words: str) -> str:
        """The command line on a host, as its user would call it; what it prints. Raises Unavailable."""
        return self.run_on(host, str(BIN / "noodle"), *words)

    def run_on(self, host: Host, *words: str) -> str:
        """Any command on a host, in the cluster's environment; what it prints. Raises Unavailable."""
        return host.run("env", *self.environment(), *words, timeout_s=START_S)

    def environment(self) -> list[str]:
        """NAME=VALUE for what runs on the hosts."""
        cache = read_settings().cache_dir.resolve()
        ours = {"NOODLE_GATEWAY_REPLICAS": str(self.plan.gateways), "NOODLE_CACHE_DIR": str(cache)}
        return [f"{name}={value}" for name, value in {**ours, **self.plan.variables}.items()]

    def _give_token(self, host: Host) -> None:
        host.run(
            "/bin/bash",
            "-c",
            f"umask 077; rm -rf {STATE_DIR}; mkdir {STATE_DIR}; printf %s $1 > {STATE_DIR}/token",
            "bash",
            self.token,
        )

    def keep_logs(self, folder: Path) -> None:
        """Copies what Ray, its workers and the supervisors have written on each host into a folder of its name."""
        for host in self.hosts:
            theirs = Path(f"/proc/{host.process_id}/root{STATE_DIR}")
            shutil.copytree(theirs, folder / host.name, ignore=_all_but_logs, symlinks=True, dirs_exist_ok=True)

    def close(self) -> None:
        self._client.close()

    # -- asking

    def url(self, host: Host) -> str:
        return f"http://{host.address}:{GATEWAY_PORT}"

    def get(self, path: str, host: Host | None = None) -> Any:
        """What the gateway of the host, else the head's, answers. Raises httpx.HTTPError."""
        answer = self._client.get(f"{self.url(host or self.head)}{path}")
        return answer.raise_for_status().json()

    def post(self, path: str, body: Any, host: Host | None = None) -> Any:
        answer = self._client.post(f"{self.url(host or self.head)}{path}", json=body)
        return answer.raise_for_status().json()

    def post_bytes(self, path: str, body: bytes) -> Any:
        headers = {"Content-Type": "application/zip"}
        answer = self._client.post(f"{self.url(self.head)}{path}", content=body, headers=headers)
        return answer.raise_for_status().json()

    def patch(self, path: str, body: Any) -> Any:
        return self._client.patch(f"{self.url(self.head)}{path}", json=body).raise_for_status().json()

    def delete(self, path: str, host: Host | None = None) -> None:
        self._client.delete(f"{self.url(host or self.head)}{path}").raise_for_status()

    def nodes(self) -> list[SeenNode]:
        return [SeenNode.of(one) for one in self.get("/api/distributed/nodes")]

    def node_of(self, host: Host) -> SeenNode:
        """The node that lives on the host. Raises NotFound."""
        living = [one for one in self.nodes() if one.address == host.address and one.state != "dead"]
        if not living:
            raise NotFound("node", host.name)
        return living[-1]

    def watched(self) -> set[str]:
        """Addresses of the nodes that live and whose agents have reported."""
        return {one.address for one in self.nodes() if one.state == "alive" and one.has_reported}

    def host_of(self, node_id: str) -> Host:
        """The host that the node lives on. Raises NotFound."""
        for host in self.hosts:
            if any(one.id == node_id and one.address == host.address for one in self.nodes()):
                return host
        raise NotFound("node", node_id)

    def events(self, *kinds: str) -> list[ClusterEvent]:
        """Of these kinds, or all, that the manager remembers, oldest first."""
        found = []
        url, until_quiet = f"{self.url(self.head)}/api/distributed/nodes/events", httpx.Timeout(ANSWER_S, read=QUIET_S)
        with suppress(httpx.ReadTimeout), self._client.stream("GET", url, timeout=until_quiet) as stream:
            for line in stream.iter_lines():
                if line.startswith("data: "):
                    found.append(ClusterEvent.model_validate_json(line.removeprefix("data: ")))
        return [event for event in found if not kinds or event.kind in kinds]

    def hold(self, cpus: float, on_loss: OnLoss = "restart", lease_s: float = 3600.0) -> Allocation:
        """Holds some CPU. Raises httpx.HTTPError."""
        return Allocation.parse(
            self.post(ALLOCATIONS, {"demand": {"cpus": cpus}, "on_loss": on_loss, "lease_s": lease_s})
        )

    def allocations(self) -> list[Allocation]:
        return [Allocation.parse(one) for one in self.get(ALLOCATIONS)]

    def allocation(self, allocation_id: str) -> Allocation:
        return Allocation.parse(self.get(f"{ALLOCATIONS}/{allocation_id}"))

    def release(self, allocation_id: str) -> None:
        self.delete(f"{ALLOCATIONS}/{allocation_id}")

    def wait_for(self, what: str, condition: Any, timeout_s: float = 60.0) -> float:
        """Asks until it is so; the seconds that it took. Without an answer it is not so. Raises DeadlineExceeded."""
        start = time.monotonic()
        while True:
            with suppress(httpx.HTTPError, NotFound):
                if condition():
                    return time.monotonic() - start
            if time.monotonic() - start > timeout_s:
                raise DeadlineExceeded(what, timeout_s * 1000)
            time.sleep(0.1)

    # -- breaking

    def pids(self, host: Host, kind: str) -> list[int]:
        """This machine's numbers of the host's processes of a kind of TITLES."""
        return [pid for pid in host.processes() if any(_is(word, TITLES[kind]) for word in _words(pid)[:4])]

    def strike(self, host: Host, kind: str, number: signal.Signals) -> int:
        """Sends it to all of that kind on the host. Gives how many there were."""
        found = self.pids(host, kind)
        self.send(found, number)
        return len(found)

    def kill_all(self, host: Host) -> None:
        """All that runs on the host ends at once; its files stay."""
        self.send(host.processes(), signal.SIGKILL)

    def send(self, pids: Sequence[int], number: signal.Signals) -> None:
        """Sends it to processes of the hosts, by this machine's numbers of them."""
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def _words(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:  # it has ended
        return []


def _is(word: str, title: str) -> bool:
    return word.startswith(title) or word.rpartition("/")[2] == title


def _all_but_logs(folder: str, names: list[str]) -> set[str]:
    paths = {name: Path(folder, name) for name in names}
    return {
        name
        for name, path in paths.items()
        if path.is_symlink() or not (path.is_dir() or (path.is_file() and path.suffix in LOGS))
    }


def visible() -> list[Path]:
    """What hosts must see although it lies in /tmp: code, interpreter, weights."""
    needed = (Path(noodle_ray.__file__).parents[1], Path(sys.prefix), read_settings().cache_dir.resolve())
    return [path for path in needed if path.is_relative_to("/tmp")]  # noqa: S108


@contextmanager
def host_cluster(plan: Plan, progress: Progress, storage: Storage = embedded) -> Iterator[HostCluster]:
    """Such a cluster, with all of its hosts alive; it ends with the block, and so do they. Raises Unavailable."""
    with (
        one_order_of_niceness(),
        hosts(plan.hosts, keep=visible()) as made,
        storage(this_machine(made[0])) as variables,
    ):
        cluster = HostCluster(made, replace(plan, variables={**variables, **plan.variables}))
        try:
            cluster.start(progress)
            yield cluster
        finally:
            cluster.close()
