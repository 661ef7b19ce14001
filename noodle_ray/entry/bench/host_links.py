"""Faults of the network between hosts, by nftables on the host that suffers them: not every kernel has netem."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from threading import Event, Thread

from noodle_ray.entry.bench.hosts import Host
from noodle_ray.errors import InvalidInput

JOIN_S = 10.0
THIN_LINEAR = "tcp_thin_linear_timeouts"
"""Linux's setting: whether a connection with little to say waits equally long before its first six repetitions, instead
of twice as long each time."""


def why_not() -> str:
    """Why the network between hosts cannot be broken here; "" where it can."""
    return "" if shutil.which("nft") else "nft: not installed (Debian: nftables)"


@contextmanager
def losing(host: Host, percent: int) -> Iterator[None]:
    """This share of what comes to the host over its cable is lost, each packet by chance. Raises InvalidInput."""
    if not 0 < percent < 100:
        raise InvalidInput.of("percent", "must be 1 to 99", percent)
    with _dropping(host, f"numgen random mod 100 < {percent}"):
        yield


@contextmanager
def thin_linear(host: Host, value: int) -> Iterator[None]:
    """Gives the host's THIN_LINEAR this value, for connections that are there, too."""
    setting = f"/proc/sys/net/ipv4/{THIN_LINEAR}"
    before = host.run("cat", setting).strip()
    host.run("sh", "-c", f"echo {value} > {setting}")
    try:
        yield
    finally:
        host.run("sh", "-c", f"echo {before} > {setting}")


@contextmanager
def deaf(host: Host, others: Sequence[Host]) -> Iterator[None]:
    """Nothing that these send reaches the host; what it sends reaches them: a one-way cut."""
    with _dropping(host, f"ip saddr {{ {', '.join(other.address for other in others)} }}"):
        yield


@contextmanager
def cut(these: Sequence[Host], those: Sequence[Host]) -> Iterator[None]:
    """Nothing passes between the two groups, either way; within each, and to others, all does."""
    with ExitStack() as stack:
        for group, others in ((these, those), (those, these)):
            for host in group:
                stack.enter_context(deaf(host, others))
        yield


@contextmanager
def flapping(host: Host, in_s: float, out_s: float) -> Iterator[None]:
    """The host's cable is in and out in turn, for so many seconds each; afterwards it is in."""
    over = Event()
    thread = Thread(target=_flap, args=(host, in_s, out_s, over))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(JOIN_S + in_s + out_s)
        host.plug_in()


def _flap(host: Host, in_s: float, out_s: float, over: Event) -> None:
    while not over.is_set():
        host.unplug()
        time.sleep(out_s)
        host.plug_in()
        over.wait(in_s)


@contextmanager
def _dropping(host: Host, what: str) -> Iterator[None]:
    """A table of its own for each fault: several may stand at once, and each goes by itself."""
    table = f"fault_{uuid.uuid4().hex[:8]}"
    rules = f"type filter hook input priority 0\niifname eth0 {what} drop\n"
    host.run("nft", f"table inet {table} {{\nchain arriving {{\n{rules}}}\n}}")
    try:
        yield
    finally:
        host.run("nft", f"delete table inet {table}")
