"""What a fault of the schedule does to a cluster over hosts, and how it is undone."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from noodle_ray.entry.bench.chaos.records import Inflicted
from noodle_ray.entry.bench.chaos.schedule import FLAP_S, LOSS_PERCENT, Fault, Kind
from noodle_ray.entry.bench.host_cluster import HostCluster
from noodle_ray.entry.bench.host_links import deaf, flapping, losing
from noodle_ray.entry.bench.hosts import Host
from noodle_ray.errors import NoodleError, NotFound

Affliction = Callable[[Host], AbstractContextManager[None]]


class Afflicting:
    """Inflicts faults on one cluster; each call blocks until the fault is undone.

    start: from when times count, on the monotonic clock. seed: which of several processes a fault takes.
    """

    def __init__(self, cluster: HostCluster, start: float, seed: int) -> None:
        self._cluster, self._start = cluster, start
        self._chance = random.Random(seed)  # noqa: S311

    def inflict(self, fault: Fault) -> Inflicted:
        """Never raises what is wrong with the cluster: it says why the fault could not be inflicted."""
        injected_s = self._now()
        try:
            with self._affliction(fault):
                injected_s = self._now()
                time.sleep(fault.seconds)
        except NoodleError as error:
            return Inflicted(fault, injected_s, self._now(), str(error))
        return Inflicted(fault, injected_s, injected_s if not fault.seconds else self._now())

    def _now(self) -> float:
        return time.monotonic() - self._start

    def _affliction(self, fault: Fault) -> AbstractContextManager[None]:
        action, _, part = fault.kind.partition("_")
        if fault.kind in LINKS:
            return self._link(fault.kind, self._host(fault.host))
        if fault.kind == "freeze_host":
            return _frozen(self._host(fault.host))
        if fault.kind == "kill_host_processes":
            return self._signalled(fault.host, ALL_BUT_SUPERVISOR, signal.SIGKILL)
        number = signal.SIGKILL if action == "kill" else signal.SIGSTOP
        return self._signalled(fault.host, part, number)

    @contextmanager
    def _signalled(self, name: str, part: str, number: signal.Signals) -> Iterator[None]:
        """One process of the kind, or all of the host's; stopped ones go on afterwards."""
        hosts = [self._host(name)] if name else list(self._cluster.hosts)
        found = sorted(pid for host in hosts for pid in self._pids(host, part))
        if not found:
            raise NotFound("process", part, [])
        chosen = found if part == ALL_BUT_SUPERVISOR else [self._chance.choice(found)]
        self._cluster.send(chosen, number)
        try:
            yield
        finally:
            if number == signal.SIGSTOP:
                self._cluster.send(chosen, signal.SIGCONT)

    def _pids(self, host: Host, part: str) -> list[int]:
        if part != ALL_BUT_SUPERVISOR:
            return self._cluster.pids(host, part)
        supervisors = set(self._cluster.pids(host, "supervisor"))
        return [pid for pid in host.processes() if pid not in supervisors]

    def _link(self, kind: Kind, host: Host) -> AbstractContextManager[None]:
        others = [other for other in self._cluster.hosts if other is not host]
        match kind:
            case "one_way_cut":
                return deaf(host, others)
            case "flap_link":
                return flapping(host, FLAP_S, FLAP_S)
            case "lose_packets":
                return losing(host, LOSS_PERCENT)
            case _:
                return _unplugged(host)

    def _host(self, name: str) -> Host:
        return next(host for host in self._cluster.hosts if host.name == name)


LINKS: frozenset[Kind] = frozenset(("cut_link", "one_way_cut", "flap_link", "lose_packets"))
ALL_BUT_SUPERVISOR = "all but the supervisor"


@contextmanager
def _frozen(host: Host) -> Iterator[None]:
    host.freeze()
    try:
        yield
    finally:
        host.thaw()


@contextmanager
def _unplugged(host: Host) -> Iterator[None]:
    host.unplug()
    try:
        yield
    finally:
        host.plug_in()
