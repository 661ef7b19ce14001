"""A fleet of raylets on this machine that can be killed, frozen, thawed and replaced, under a node manager."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil
import ray

from noodle_ray.actors import names, ray_state
from noodle_ray.actors.ray_errors import get
from noodle_ray.entry.bench.chaos.ledger_check import Books, RaySide, leaked_units
from noodle_ray.entry.cluster import launch, process_session, ray_process
from noodle_ray.entry.cluster.cluster_file import StartedProcess, token_path
from noodle_ray.entry.cluster.components import start_actors
from noodle_ray.entry.cluster.local_cluster import LocalCluster, bare_ray
from noodle_ray.entry.cluster.ray_connection import connection
from noodle_ray.entry.cluster.ray_process import NodeOptions
from noodle_ray.errors import DeadlineExceeded
from noodle_ray.nodes.event_log import ClusterEvent
from noodle_ray.nodes.membership import Node
from noodle_ray.placement.allocation import Allocation, OnLoss
from noodle_ray.placement.claim import Claim, new_claim_id
from noodle_ray.placement.request import Request
from noodle_ray.resources import Demand, NodeResources
from noodle_ray.settings import Settings

ANSWER_S = 30.0
STEADY_S = 1.5
"""After the last agent has reported, until all of them watch each other."""

RESOURCES = NodeResources.of(cpus=8, memory="4GiB")


def _options(slot: int) -> NodeOptions:
    return NodeOptions(f"127.0.0.{slot + 10}", f"w{slot}", RESOURCES, True, 80 * 2**20)


class Fleet:
    """Workers in slots: a slot keeps its name and address, whatever raylet is in it. The head is never touched."""

    def __init__(self, cluster: LocalCluster, slots: int) -> None:
        self._cluster = cluster
        by_address = {process.node_address: process for process in cluster.file.processes}
        self._processes = {slot: by_address[_options(slot).address] for slot in range(slots)}
        self.manager = ray.get_actor(names.NODE_MANAGER, names.NAMESPACE)

    def ask(self, method: str, *args: Any) -> Any:
        return get(getattr(self.manager, method).remote(*args), timeout_s=ANSWER_S)

    @property
    def settings(self) -> Settings:
        return self._cluster.settings

    # -- nodes

    @property
    def slots(self) -> tuple[int, ...]:
        return tuple(self._processes)

    def node_in(self, slot: int) -> Node | None:
        """The node that is alive in the slot."""
        wanted = _options(slot).name
        found = [node for node in self.ask("nodes") if node.name == wanted and node.state != "dead"]
        return found[-1] if found else None

    def signal(self, slot: int, kind: signal.Signals) -> float:
        """Sends it to all processes of the node at once, as when its host loses power or freezes; the time."""
        members = process_session.members(self._processes[slot].pid)
        sent_at = time.time()
        _send(members, kind)
        return sent_at

    def kill_agent(self, slot: int) -> None:
        """The node's agent alone."""
        _send(_titled("ray::NodeAgent", self._processes[slot]), signal.SIGKILL)

    def kill_manager(self) -> None:
        """Ray starts it anew."""
        _send(_titled("ray::NodeManager", self._cluster.file.processes[0]), signal.SIGKILL)

    def replace(self, slot: int) -> None:
        """Ends what is left in the slot and starts a new raylet there."""
        self.signal(slot, signal.SIGKILL)
        old = self._processes[slot]
        psutil.wait_procs(process_session.members(old.pid), timeout=10)
        settings = self._cluster.settings
        environment = ray_process.ray_environment(settings, token_path(settings.state_dir))
        logs = settings.state_dir / "logs"
        address = self._cluster.file.address
        self._processes[slot] = ray_process.start_worker(_options(slot), address, environment, logs)

    def settle(self) -> None:
        """Waits until a node in each slot is alive and its agent has reported. Raises DeadlineExceeded, saying why."""
        try:
            wait_for("all nodes to be watched", lambda: all(self._is_watched(slot) for slot in self.slots), 60)
        except DeadlineExceeded as error:
            missing = [self._describe(slot) for slot in self.slots if not self._is_watched(slot)]
            raise DeadlineExceeded(f"{error.what} ({'; '.join(missing)})", 60_000) from error
        time.sleep(STEADY_S)

    def _is_watched(self, slot: int) -> bool:
        node = self.node_in(slot)
        return node is not None and node.state == "alive" and node.metrics is not None

    def _describe(self, slot: int) -> str:
        """What there is of a node: its processes, Ray's view of it, ours."""
        node, running = self.node_in(slot), process_session.members(self._processes[slot].pid)
        named = [one for one in ray_state.live_nodes().values() if one.name == _options(slot).name]
        ours = f"{node.state}, {'measured' if node.metrics else 'not measured'}" if node else "unknown"
        return f"w{slot}: {len(running)} processes, {len(named)} alive in Ray, {ours} here"

    def stop(self) -> None:
        for process in self._processes.values():
            process_session.stop(process.pid)

    # -- allocations

    def claim(self, on_loss: OnLoss, cpus: float = 0.25) -> Allocation:
        """Holds some CPU; what does not fit waits."""
        request = Request.of(Demand(cpus=cpus))
        allocation: Allocation = self.ask("allocate", Claim(id=new_claim_id(), request=request, on_loss=on_loss))
        return allocation

    def held_anew(self, before: Allocation, timeout_s: float) -> float:
        """Waits until it is held in another home; the time then."""
        end, seen = time.monotonic() + timeout_s, before
        while seen.state != "held" or seen.epoch == before.epoch:
            if time.monotonic() > end:
                raise DeadlineExceeded("holding an allocation anew", timeout_s * 1000)
            seen = self.ask("changed", before.id, seen.mark, 5.0)
        return time.time()

    def leaked_units(self) -> int:
        """CPU and GPU units that the ledger or Ray holds for taken although nothing is held any more."""
        nodes = {node_id: node.resources for node_id, node in ray_state.live_nodes().items()}
        in_ray = RaySide(nodes, ray_state.available(), {})
        return leaked_units(Books((), self.ask("totals"), in_ray, {}, {}))

    # -- events

    def last_event(self) -> int:
        return max((event.number for event in self.ask("node_events", 0, 0.0)), default=0)

    def first_event(self, since: int, node_id: str, kinds: set[str], timeout_s: float) -> ClusterEvent:
        """Waits for the first event of these kinds about the node."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            for event in self.ask("node_events", since, 1.0):
                since = event.number
                if event.kind in kinds and event.details.get("node") == node_id:
                    return event  # type: ignore[no-any-return]
        raise DeadlineExceeded(f"seeing {' or '.join(sorted(kinds))}", timeout_s * 1000)

    def events(self, since: int, kind: str) -> list[ClusterEvent]:
        return [event for event in self.ask("node_events", since, 0.0) if event.kind == kind]


def _send(processes: Iterable[psutil.Process], kind: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(kind)


def _titled(title: str, node: StartedProcess) -> list[psutil.Process]:
    """The processes of a node that call themselves so."""
    found = []
    for process in process_session.members(node.pid):
        with suppress(psutil.NoSuchProcess):
            if process.cmdline()[:1] == [title]:
                found.append(process)
    return found


@contextmanager
def fleet(slots: int, progress: Callable[[str], None]) -> Iterator[Fleet]:
    """A cluster with so many workers and our control actors, without Serve; ended with the block."""
    options = launch.UpOptions(head=launch.head_options(1), workers=tuple(_options(slot) for slot in range(slots)))
    with bare_ray(progress, options) as cluster, connection(cluster.file.address):
        start_actors(cluster.settings)
        running = Fleet(cluster, slots)
        try:
            running.settle()
            yield running
        finally:
            running.stop()


def wait_for(what: str, condition: Callable[[], bool], timeout_s: float) -> None:
    """Looks again and again. Raises DeadlineExceeded."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise DeadlineExceeded(what, timeout_s * 1000)
        time.sleep(0.05)
