"""The cluster file: what `noodle up` or `noodle attach` started here, so that others find it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

import psutil
from pydantic import ValidationError

from noodle_ray.base_model import Model
from noodle_ray.errors import CorruptData, NotFound

LOOPBACK = "127.0.0."


class StartedProcess(Model):
    """A process that we started: its start time tells it from a later one with the same number.

    command: what starts it again. boot: since which start of the machine numbers count.
    """

    pid: int
    started_at: float
    role: str
    node_address: str
    command: tuple[str, ...] = ()
    boot: str = ""

    @classmethod
    def of(cls, pid: int, role: str, node_address: str, command: Sequence[str] = ()) -> StartedProcess:
        started_at = psutil.Process(pid).create_time()
        return cls(
            pid=pid,
            started_at=started_at,
            role=role,
            node_address=node_address,
            command=tuple(command),
            boot=this_boot(),
        )

    def is_running(self) -> bool:
        try:
            process = psutil.Process(self.pid)
            return bool(process.create_time() == self.started_at and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False

    def is_anothers(self) -> bool:
        """Whether the number is another's by now, which also means that nothing of its session is left."""
        if self.boot != this_boot():
            return True
        try:
            return bool(psutil.Process(self.pid).create_time() != self.started_at)
        except psutil.NoSuchProcess:
            return False


def this_boot() -> str:
    """What tells this start of the machine from others; "" where the system has no such thing."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


class ClusterFile(Model):
    """Where the cluster is and what of it is ours. joined: its head runs on another host.

    tables, store: where Ray's tables and ours are, without passwords; "": not known. gateway_host: what it listens on.
    """

    address: str
    dashboard_url: str
    gateway_url: str
    attached: bool = False
    joined: bool = False
    fusion: bool = True
    tables: str = ""
    store: str = ""
    gateway_host: str = "127.0.0.1"
    gateway_port: int = 0
    unguarded_ports: tuple[int, ...] = ()
    processes: tuple[StartedProcess, ...] = ()

    @property
    def head_address(self) -> str:
        return self.address.rpartition(":")[0]

    @property
    def spans_hosts(self) -> bool:
        """Whether its head listens for other hosts."""
        return not self.attached and not self.head_address.startswith(LOOPBACK)

    def is_running(self) -> bool:
        """Whether anything of it runs that was started here."""
        return any(process.is_running() for process in self.processes)

    def save(self, state_dir: Path) -> None:
        path = cluster_path(state_dir)
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(".tmp")
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(self.model_dump_json(indent=2))
            file.flush()
            os.fsync(file.fileno())  # a host that loses power is to find it whole
        scratch.replace(path)


def cluster_path(state_dir: Path) -> Path:
    return state_dir / "cluster.json"


def read_cluster(state_dir: Path) -> ClusterFile:
    """What was started from this state directory. Raises NotFound, or CorruptData where the file is no cluster file."""
    path = cluster_path(state_dir)
    try:
        return ClusterFile.model_validate_json(path.read_text())
    except FileNotFoundError:
        raise NotFound("running cluster", str(state_dir)) from None
    except ValidationError as error:
        raise CorruptData(
            f"{path} is no cluster file: {error.error_count()} faults; end what runs, remove it, and `noodle up` anew"
        ) from None


def token_path(state_dir: Path) -> Path:
    """The cluster token: Ray's own authentication and the gateway's bearer token."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or state_dir / "token")


def ensure_token(state_dir: Path) -> Path:
    """Makes the token on first use, readable by its owner only, and gives its path."""
    path = token_path(state_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(32))
    path.chmod(0o600)
    return path


def read_token(state_dir: Path) -> str:
    """The token. Raises NotFound with the place where it was looked for."""
    path = token_path(state_dir)
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        raise NotFound("cluster token", str(path)) from None
