"""The driver's client for asyncio: nodes, allocations, modules, fusion and services of a connected cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakSet

from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from noodle_ray.actors import ray_state
from noodle_ray.actors.ports import (
    ActorNodes,
    ActorResources,
    ActorServices,
)
from noodle_ray.entry.fusion import AsyncFusion
from noodle_ray.entry.keeping import Kept
from noodle_ray.entry.modules import AsyncModules
from noodle_ray.nodes.event_log import ClusterEvent
from noodle_ray.nodes.membership import Node
from noodle_ray.nodes.metrics import ResourceMetrics
from noodle_ray.nodes.snapshot import Snapshot
from noodle_ray.placement.allocation import Allocation, OnLoss
from noodle_ray.placement.claim import Claim, new_claim_id
from noodle_ray.placement.explanation import Explanation
from noodle_ray.placement.request import Request
from noodle_ray.resources import Demand
from noodle_ray.services.directory import Registration, Service
from noodle_ray.store.health import StoreHealth

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Held:
    """An allocation that is held, ready for use by Ray tasks and actors."""

    allocation: Allocation

    @property
    def id(self) -> str:
        return self.allocation.id

    @property
    def node_id(self) -> str:
        """The node; of a gang that of its first bundle."""
        return self.allocation.node_id

    def options(self, bundle: int = 0) -> dict[str, Any]:
        """Keywords for `.options(…)` of a Ray task or actor: runs it in this bundle, with all that the bundle holds."""
        demand = self.allocation.request.bundles[bundle]
        return {
            "num_cpus": demand.cpus,
            "num_gpus": demand.gpu_share or demand.gpus,
            "memory": demand.memory or None,
            "resources": dict(demand.custom) or None,
            "scheduling_strategy": PlacementGroupSchedulingStrategy(
                ray_state.find_group(self.allocation.group), placement_group_bundle_index=bundle
            ),
        }


class AsyncCluster:
    """A connected cluster, for asyncio. Every method raises errors of noodle_ray.errors."""

    def __init__(self) -> None:
        self._nodes = ActorNodes()
        self._resources = ActorResources()
        self.modules = AsyncModules()
        self.fusion = AsyncFusion()
        self.services = AsyncServices()
        self._kept: WeakSet[Kept[Held, Any]] = WeakSet()

    async def nodes(self) -> list[Node]:
        return await self._nodes.nodes()

    async def node(self, node_id: str) -> Node:
        """One node. Raises NotFound."""
        return await self._nodes.node(node_id)

    async def node_metrics(self, node_id: str) -> list[ResourceMetrics]:
        """What the node's agent measured of late, oldest first. Raises NotFound."""
        return await self._nodes.metrics(node_id)

    async def cordon(self, node_id: str, cordoned: bool = True) -> Node:
        """Places nothing new on the node, or again; opening it also calls its draining off."""
        return await self._nodes.cordon(node_id, cordoned)

    async def update_node(self, node_id: str, name: str | None = None, labels: Mapping[str, str] | None = None) -> Node:
        """Gives the node another name, or these labels beside Ray's. Raises Conflict for a label of Ray's own."""
        return await self._nodes.update(node_id, name, labels)

    async def drain(self, node_id: str, deadline_s: float = 60.0) -> Node:
        """Places nothing new on the node, and moves what is movable away, so that the node may leave.

        What is still there after `deadline_s` seconds fares as if the node had died. Raises NotFound.
        """
        return await self._nodes.drain(node_id, deadline_s)

    async def events(self, since: int = 0, wait_s: float = 0.0) -> list[ClusterEvent]:
        """What happened after the event of that number; where nothing has, waits up to `wait_s` seconds for it."""
        return await self._nodes.events(since, wait_s)

    async def store_health(self) -> StoreHealth:
        """Whether the store answers; while it does not, what changes is decided and waits to be kept."""
        return await self._nodes.store_health()

    async def resources(self) -> dict[str, Any]:
        """Totals of the fleet: what there is, what is held, what others use, and the allocation efficiency."""
        return await self._resources.totals()

    async def allocations(self) -> list[Allocation]:
        return await self._resources.allocations()

    async def allocation(self, allocation_id: str, wait_s: float = 0.0) -> Allocation:
        """One allocation as it is now: for one that waits, its place in the queue and what it waits for.

        `wait_s`: as soon as it does not wait any more, or after so many seconds.
        """
        return await self._resources.allocation(allocation_id, wait_s)

    @asynccontextmanager
    async def allocate(
        self,
        wanted: Demand | Request,
        policy: str | None = None,
        priority: int = 0,
        wait_s: float | None = None,
        on_loss: OnLoss = "fail",
        domain: str = "",
    ) -> AsyncIterator[Held]:
        """Holds what is wanted for the length of the block; waits for it as `hold` does."""
        held = await self.hold(wanted, policy, priority, wait_s, on_loss, domain)
        try:
            yield held
        finally:
            # One that has had other homes meanwhile is this block's in all of them.
            await self.release(held.id, held.allocation.group if on_loss == "fail" else None)

    async def hold(
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
        claim = Claim(
            id=new_claim_id(),
            request=Request.of(wanted),
            policy=policy,
            priority=priority,
            owner=f"job:{ray_state.runtime_job_id()}",
            wait_s=wait_s,
            on_loss=on_loss,
            domain=domain,
        )
        try:
            return Held(await self._resources.allocate(claim))
        except asyncio.CancelledError:
            self._resources.call_off(claim.id)
            raise

    async def keep(
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
        drained, before it leaves there. `start` is a plain function, called in another thread. Raises what `hold`
        raises, and what the first `start` raises, after which nothing is held. `Kept.close` releases it.
        """
        held = await self.hold(wanted, policy, priority, wait_s, on_loss, domain)
        try:
            kept = await asyncio.to_thread(Kept, held.allocation, self._resources, Held, start)
        except BaseException:
            self._resources.call_off(held.id)
            raise
        self._kept.add(kept)
        return kept

    def stop_keeping(self) -> None:
        """Follows nothing any more that is kept; releases nothing."""
        for kept in list(self._kept):
            kept.stop()

    async def release(self, allocation_id: str, fence: str | None = None) -> None:
        """Frees it, or calls off its waiting. `fence`: the home that is meant (`allocation.group`), and no later one.

        Raises NotFound, Conflict where it has another home by now.
        """
        await self._resources.release(allocation_id, fence)

    async def snapshot(self) -> Snapshot:
        """Nodes, ledger, workload and allocations at one moment, to compute from without asking the manager again."""
        return await self._resources.snapshot()

    async def explain(self, allocation_id: str) -> Explanation:
        """Which nodes were considered for it, with their scores."""
        return await self._resources.explain(allocation_id)


class AsyncServices:
    """The service directory."""

    def __init__(self) -> None:
        self._directory = ActorServices()

    async def list(self, capability: str | None = None) -> Sequence[Service]:
        return await self._directory.services(capability)

    async def register(self, service: Registration) -> Service:
        return await self._directory.register(service)

    async def renew(self, name: str) -> Service:
        return await self._directory.renew(name)

    async def unregister(self, name: str) -> None:
        await self._directory.unregister(name)
