"""The driver's client: what `noodle_ray.connect()` gives, synchronous, with the same for asyncio under `.aio`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar

import ray

from noodle_ray.entry.aio import AsyncCluster, Held
from noodle_ray.entry.cluster import cluster_file
from noodle_ray.entry.cluster.cluster_file import read_cluster, token_path
from noodle_ray.entry.cluster.ray_connection import open_connection, use_token
from noodle_ray.entry.fusion import Fusion
from noodle_ray.entry.keeping import Kept
from noodle_ray.entry.loop_thread import LoopThread
from noodle_ray.entry.modules import Modules
from noodle_ray.nodes.event_log import ClusterEvent
from noodle_ray.nodes.membership import Node
from noodle_ray.nodes.metrics import ResourceMetrics
from noodle_ray.nodes.snapshot import Snapshot
from noodle_ray.placement.allocation import Allocation, OnLoss
from noodle_ray.placement.explanation import Explanation
from noodle_ray.placement.request import Request
from noodle_ray.resources import Demand
from noodle_ray.services.directory import Registration, Service
from noodle_ray.settings import Settings, read_settings
from noodle_ray.store.health import StoreHealth

T = TypeVar("T")


def connect(address: str | None = None) -> Cluster:
    """Connects this driver to a cluster: the one at the address, RAY_ADDRESS's, or the one `noodle up` started here.

    Uses the Ray connection that the process already has. Raises NotFound where there is no cluster to be found,
    Unavailable where it does not answer or noodle-ray is not installed on it.
    """
    started_here = not ray.is_initialized()
    if started_here:
        _connect_ray(address or os.environ.get("RAY_ADDRESS"), read_settings())
    return Cluster(owns_ray=started_here)


def read_token() -> str:
    """The cluster token, as the gateway's bearer token. Raises NotFound with the place where it was looked for."""
    return cluster_file.read_token(read_settings().state_dir)


def _connect_ray(address: str | None, settings: Settings) -> None:
    token = token_path(settings.state_dir)
    if token.exists():
        use_token(token)
    open_connection(address or read_cluster(settings.state_dir).address)


class Cluster:
    """A connected cluster. Use it in a `with` block, or call `close`; methods raise errors of noodle_ray.errors."""

    def __init__(self, owns_ray: bool) -> None:
        self._owns_ray = owns_ray
        self._loop = LoopThread("noodle-ray-client")
        self.aio = AsyncCluster()
        self.modules = Modules(self._loop, self.aio.modules)
        self.fusion = Fusion(self._loop, self.aio.fusion)
        self.services = Services(self)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; frees nothing by itself, but Ray ends the job, and with it go what it holds."""
        self.aio.stop_keeping()
        self._loop.close()
        if self._owns_ray:
            ray.shutdown()

    def nodes(self) -> list[Node]:
        return self._loop.run(self.aio.nodes())

    def node(self, node_id: str) -> Node:
        """One node. Raises NotFound."""
        return self._loop.run(self.aio.node(node_id))

    def node_metrics(self, node_id: str) -> list[ResourceMetrics]:
        """What the node's agent measured of late, oldest first. Raises NotFound."""
        return self._loop.run(self.aio.node_metrics(node_id))

    def cordon(self, node_id: str, cordoned: bool = True) -> Node:
        """Places nothing new on the node, or again; opening it also calls its draining off."""
        return self._loop.run(self.aio.cordon(node_id, cordoned))

    def update_node(self, node_id: str, name: str | None = None, labels: Mapping[str, str] | None = None) -> Node:
        """Gives the node another name, or these labels beside Ray's. Raises Conflict for a label of Ray's own."""
        return self._loop.run(self.aio.update_node(node_id, name, labels))

    def drain(self, node_id: str, deadline_s: float = 60.0) -> Node:
        """Places nothing new on the node, and moves what is movable away, so that the node may leave.

        What is still there after `deadline_s` seconds fares as if the node had died. Raises NotFound.
        """
        return self._loop.run(self.aio.drain(node_id, deadline_s))

    def events(self, since: int = 0, wait_s: float = 0.0) -> list[ClusterEvent]:
        """What happened after the event of that number; where nothing has, waits up to `wait_s` seconds for it."""
        return self._loop.run(self.aio.events(since, wait_s))

    def store_health(self) -> StoreHealth:
        """Whether the store answers; while it does not, what changes is decided and waits to be kept."""
        return self._loop.run(self.aio.store_health())

    def resources(self) -> dict[str, Any]:
        """Totals of the fleet: what there is, what is held, what others use, and the allocation efficiency."""
        return self._loop.run(self.aio.resources())

    def allocations(self) -> list[Allocation]:
        return self._loop.run(self.aio.allocations())

    def allocation(self, allocation_id: str, wait_s: float = 0.0) -> Allocation:
        """One allocation as it is now: for one that waits, its place in the queue and what it waits for.

        `wait_s`: as soon as it does not wait any more, or after so many seconds.
        """
        return self._loop.run(self.aio.allocation(allocation_id, wait_s))

    @contextmanager
    def allocate(
        self,
        wanted: Demand | Request,
        policy: str | None = None,
        priority: int = 0,
        wait_s: float | None = None,
        on_loss: OnLoss = "fail",
        domain: str = "",
    ) -> Iterator[Held]:
        """Holds what is wanted for the length of the block; waits for it as `hold` does."""
        held = self.hold(wanted, policy, priority, wait_s, on_loss, domain)
        try:
            yield held
        finally:
            # One that has had other homes meanwhile is this block's in all of them.
            self.release(held.id, held.allocation.group if on_loss == "fail" else None)

    def hold(
        self,
        wanted: Demand | Request,
        policy: str | None = None,
        priority: int = 0,
        wait_s: float | None = None,
        on_loss: OnLoss = "fail",
        domain: str = "",
    ) -> Held:
        """Holds a demand, or all of a request, until `release`, or until this Ray job ends.

        What does not fit now waits for room: `wait_s` seconds, None as long as it takes, 0 not at all. Higher
        priorities are served first. Raises DoesNotFit with the reason per dimension: at once where no node could ever
        take it, else when the time is over.

        `on_loss`: when its node dies it is lost ("fail"), held anew elsewhere ("restart"), or goes on in a second home
        that is held all the time ("standby"), on a node with another value of the label `domain` ("": on another
        node). What ran in the old home is gone in any case: `keep` starts it again.
        """
        return self._loop.run(self.aio.hold(wanted, policy, priority, wait_s, on_loss, domain))

    def keep(
        self,
        wanted: Demand | Request,
        start: Callable[[Held], T],
        on_loss: OnLoss = "restart",
        domain: str = "",
        policy: str | None = None,
        priority: int = 0,
        wait_s: float | None = None,
    ) -> Kept[Held, T]:
        """Holds what is wanted, calls `start` with it, and calls `start` again in each home that it gets later.

        That is so after its node has died (`on_loss`, `domain`: as for `hold`), and when it moves off a node that is
        drained, before it leaves there. `start` is called in another thread. Raises what `hold` raises, and what the
        first `start` raises, after which nothing is held. `Kept.close` releases it.
        """
        return self._loop.run(self.aio.keep(wanted, start, on_loss, domain, policy, priority, wait_s))

    def release(self, allocation_id: str, fence: str | None = None) -> None:
        """Frees it, or calls off its waiting. `fence`: the home that is meant (`allocation.group`), and no later one.

        Raises NotFound, Conflict where it has another home by now.
        """
        self._loop.run(self.aio.release(allocation_id, fence))

    def snapshot(self) -> Snapshot:
        """Nodes, ledger, workload and allocations at one moment, to compute from without asking the manager again."""
        return self._loop.run(self.aio.snapshot())

    def explain(self, allocation_id: str) -> Explanation:
        """Which nodes were considered for it, with their scores."""
        return self._loop.run(self.aio.explain(allocation_id))


class Services:
    """The service directory, synchronous."""

    def __init__(self, cluster: Cluster) -> None:
        self._run, self._aio = cluster._loop.run, cluster.aio.services

    def list(self, capability: str | None = None) -> Sequence[Service]:
        return self._run(self._aio.list(capability))

    def register(self, service: Registration) -> Service:
        return self._run(self._aio.register(service))

    def renew(self, name: str) -> Service:
        return self._run(self._aio.renew(name))

    def unregister(self, name: str) -> None:
        self._run(self._aio.unregister(name))
