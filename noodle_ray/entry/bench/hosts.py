"""Several hosts on one machine: each has a network, processes, files and a name of its own. It takes Linux, and root.

A host is a set of Linux namespaces around a process that does nothing. Its network namespace is joined to a bridge; its
files are this machine's, seen through an overlay whose changes are kept in memory and end with the host.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from noodle_ray.errors import InvalidInput, Unavailable

AUTOGROUP = Path("/proc/sys/kernel/sched_autogroup_enabled")
MOST = 200
STOP_S = 10.0
TOOLS = ("ip", "unshare", "nsenter", "mount", "chroot", "env")
DISK, SHARED_MEMORY = "4g", "1g"
"""Bounds on what a host may write, to its files and to its shared memory; both are memory, taken as it is used."""

_ENVIRONMENT = (
    "HOME=/root",
    "USER=root",
    "LANG=C.UTF-8",
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
)
_UNSHARE = ("unshare", "--net", "--pid", "--fork", "--mount")

# This machine's files with changes of one's own. $1: an empty folder.
_OVERLAY = f"""
set -eu
work=$1
mount --make-rprivate /
mount -t tmpfs -o size={DISK} tmpfs "$work"
mkdir "$work/changed" "$work/scratch" "$work/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$work/changed,workdir=$work/scratch" "$work/root"
"""

# What the first process of a host does. $2: its name; $3: what /etc/hosts is to hold; the rest: folders that stay
# visible although they lie in /tmp.
_ENTER = f"""{_OVERLAY}
root=$work/root name=$2 hosts=$3; shift 3
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o size={SHARED_MEMORY},mode=1777 tmpfs "$root/dev/shm"
mount -t tmpfs -o size={DISK},mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
for kept; do mkdir -p "$root$kept"; mount --rbind "$kept" "$root$kept"; done
printf %s "$hosts" > "$root/etc/hosts"
# This machine's name server cannot be reached from there: whoever asks is told so at once, and not after ten seconds.
rm -f "$root/etc/resolv.conf"
: > "$root/etc/resolv.conf"
hostname "$name"
exec chroot "$root" /bin/bash -c 'echo ready; trap "exit 0" TERM; while :; do sleep 3600 & wait $!; done'
"""


@dataclass(frozen=True, slots=True)
class Host:
    """A running host. process_id: of its first process, as this machine numbers it; link: this machine's end of its
    network cable."""

    name: str
    address: str
    process_id: int
    link: str

    def command(self, *words: str) -> list[str]:
        """What runs this command on the host, as for root who has just logged in: with nothing of this environment."""
        enter = ["nsenter", f"--target={self.process_id}", "--mount", "--uts", "--ipc", "--net", "--pid", "--root"]
        return [*enter, "--wd", "--", "env", "-i", *_ENVIRONMENT, *words]

    def run(self, *words: str, timeout_s: float = 60.0) -> str:
        """Runs it there, and gives what it prints. Raises Unavailable with its last words where it fails."""
        try:
            done = subprocess.run(self.command(*words), capture_output=True, text=True, timeout=timeout_s, check=False)
        except subprocess.TimeoutExpired:
            raise Unavailable(f"{words[0]} did not end on {self.name} within {timeout_s:g} s") from None
        if done.returncode:
            raise Unavailable(f"{words[0]} failed on {self.name}: {(done.stderr or done.stdout).strip()[-500:]}")
        return done.stdout

    def processes(self) -> list[int]:
        """All that run there, the first one left out."""
        own = _namespace(self.process_id)
        return [pid for pid in psutil.pids() if pid != self.process_id and _namespace(pid) == own]

    def freeze(self) -> None:
        """Every process there stands still; the network cable stays in."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """The host ends as by a power cut: every process at once, and its files."""
        with suppress(ProcessLookupError):
            os.kill(self.process_id, signal.SIGKILL)

    def unplug(self) -> None:
        """Nothing goes to it and nothing comes from it; it runs on."""
        ip("link", "set", self.link, "down")

    def plug_in(self) -> None:
        ip("link", "set", self.link, "up")

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def _namespace(pid: int) -> int | None:
    try:
        return Path(f"/proc/{pid}/ns/pid").stat().st_ino
    except OSError:  # it has ended
        return None


def why_not() -> str:
    """Why there can be no hosts here; "" where there can."""
    if sys.platform != "linux":
        return "hosts are made of Linux namespaces"
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"{', '.join(missing)}: not installed (Debian: iproute2, util-linux)"
    with tempfile.TemporaryDirectory() as work:
        tried = subprocess.run(
            [*_UNSHARE, "/bin/bash", "-c", _OVERLAY, "bash", work], capture_output=True, text=True, check=False
        )
    return f"it was tried: {tried.stderr.strip()}" if tried.returncode else ""


@contextmanager
def hosts(count: int, keep: Sequence[Path] = ()) -> Iterator[list[Host]]:
    """So many hosts on a network of their own, which this machine is on, too; they end with the block, and so does the
    block when this process is told to end.

    keep: folders in /tmp, or below it, that they are to see; the rest of /tmp is each host's own.
    Raises InvalidInput, and Unavailable with the reason where there can be none.
    """
    if not 1 <= count <= MOST:
        raise InvalidInput.of("count", f"must be 1 to {MOST}", count)
    if reason := why_not():
        raise Unavailable(f"there can be no hosts here: {reason}")
    with _an_end_in_order(), ExitStack() as stack:
        bridge, network = stack.enter_context(_bridge())
        addresses = {f"{bridge}-{number}": f"{network}.{number}" for number in range(1, count + 1)}
        names = "".join(f"{address} {name}\n" for name, address in {"localhost": "127.0.0.1", **addresses}.items())
        yield [stack.enter_context(_host(name, address, bridge, names, keep)) for name, address in addresses.items()]


@contextmanager
def _an_end_in_order() -> Iterator[None]:
    """Hosts whose maker has just gone would run on: SIGTERM leaves the block like any other exit."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def one_order_of_niceness(setting: Path = AUTOGROUP) -> Iterator[None]:
    """Has Linux weigh all processes of this machine by their niceness, on whatever host they are.

    It may give each session the same share instead, and a host of ours is one: one that starts would then get as much
    of the processors that they share as one that answers. Nothing changes where this may not be set.
    """
    with ExitStack() as stack:
        with suppress(OSError):
            before = setting.read_text()
            setting.write_text("0")
            stack.callback(setting.write_text, before)
        yield


def this_machine(host: Host) -> str:
    """This machine's address on the host's network."""
    return f"{host.address.rpartition('.')[0]}.254"


@contextmanager
def _bridge() -> Iterator[tuple[str, str]]:
    """Its name, and the first three numbers of its network; this machine is 254 there."""
    taken = subprocess.run(["ip", "-o", "addr"], capture_output=True, text=True, check=True).stdout
    free = [number for number in range(1, 255) if f" 10.77.{number}." not in taken]
    if not free:
        raise Unavailable("all networks from 10.77.1.0 to 10.77.254.0 are taken")
    number = random.choice(free)  # noqa: S311  (two that start at once rarely choose the same)
    name, network = f"noodle{number}", f"10.77.{number}"
    ip("link", "add", name, "type", "bridge")
    try:
        ip("addr", "add", f"{network}.254/24", "dev", name)
        ip("link", "set", name, "up")
        yield name, network
    finally:
        ip("link", "delete", name)


@contextmanager
def _host(name: str, address: str, bridge: str, names: str, keep: Sequence[Path]) -> Iterator[Host]:
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as work:
        kept = [str(folder.resolve()) for folder in keep]
        process = subprocess.Popen(
            [*_UNSHARE, "--uts", "--ipc", "--kill-child", "/bin/bash", "-c", _ENTER, "bash", work, name, names, *kept],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            host = Host(name, address, _first_process(process), f"{bridge}h{address.rpartition('.')[2]}")
            _connect(host, bridge)
            yield host
        finally:
            _end(process)


def _first_process(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None and process.stderr is not None
    if process.stdout.readline().strip() != "ready":
        raise Unavailable(f"a host did not start: {process.stderr.read().strip()[-500:]}")
    [child] = psutil.Process(process.pid).children()
    return int(child.pid)


def _connect(host: Host, bridge: str) -> None:
    gateway = this_machine(host)
    ip("link", "add", host.link, "type", "veth", "peer", "name", "eth0", "netns", str(host.process_id))
    ip("link", "set", host.link, "master", bridge, "up")
    for words in (
        ("addr", "add", f"{host.address}/24", "dev", "eth0"),
        ("link", "set", "lo", "up"),
        ("link", "set", "eth0", "up"),
        ("route", "add", "default", "via", gateway),
    ):
        host.run("ip", *words)


def _end(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None and process.stderr is not None
    process.kill()  # and with it, by --kill-child, the host's first process, and with that all others
    process.wait(STOP_S)
    process.stdout.close()
    process.stderr.close()


def ip(*words: str) -> None:
    """The command `ip` on this machine. Raises Unavailable with its last words."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"ip {' '.join(words)}: {done.stderr.strip()}")
