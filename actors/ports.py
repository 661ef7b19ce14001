"""The gateway's and the client's ports over Ray: each asks the actor or the Serve application that knows."""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import ray
from ray import serve

from noodle_ray.actors import names
from noodle_ray.actors.module_calls import ModuleCaller
from noodle_ray.actors.ray_errors import Gone, await_ref
from noodle_ray.errors import NotFound, Unavailable
from noodle_ray.fusion.index_messages import HeadInfo, IndexInfo, KnownQuery, NewEntry, OpenedSession
from noodle_ray.fusion.inputs import MultimodalInput
from noodle_ray.fusion.result import FusionResult
from noodle_ray.fusion.transit import Transit
from noodle_ray.gateway.ports import Ports
from noodle_ray.modules.call_route import CallTarget
from noodle_ray.nodes.event_log import ClusterEvent
from noodle_ray.nodes.membership import Node
from noodle_ray.nodes.metrics import ResourceMetrics
from noodle_ray.nodes.snapshot import Snapshot
from noodle_ray.placement.allocation import Allocation
from noodle_ray.placement.claim import Claim
from noodle_ray.placement.explanation import Explanation
from noodle_ray.services.directory import Registration, Service
from noodle_ray.settings import Settings
from noodle_ray.store.health import StoreHealth

RESTART_TIMEOUT_S = 60.0
RESTART_WAIT_S = 0.2
"""How long, and how often, an actor that is being restarted is asked again what may be asked twice."""

ENGINE_AWAY_S = 30.0
"""How much longer than the engine may take a request waits at the gateway: an engine is back sooner, if it comes."""

_ANSWERING_S = 2.0
"""A call that lasted longer than this before its actor was gone was being answered: the time starts anew."""


class NamedActor:
    """A named actor of ours, looked up at the first call. Raises Unavailable where it does not run."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._handle: Any = None

    @property
    def handle(self) -> Any:
        if self._handle is None:
            try:
                self._handle = ray.get_actor(self._name, names.NAMESPACE)
            except ValueError:
                raise Unavailable(
                    f"no {self._name} runs on this cluster: `noodle up` or `noodle attach` starts it"
                ) from None
        return self._handle

    async def ask(self, method: str, *args: Any) -> Any:
        return await await_ref(getattr(self.handle, method).remote(*args))

    async def ask_again(self, method: str, *args: Any) -> Any:
        """The same for what has one effect however often it is asked: asked until it is answered, through restarts."""
        clock, gone_since = asyncio.get_running_loop().time, None
        while True:
            asked_at = clock()
            try:
                return await self.ask(method, *args)
            except Gone:
                if gone_since is None or clock() - asked_at > _ANSWERING_S:  # it was there meanwhile
                    gone_since = clock()
                if clock() - gone_since > RESTART_TIMEOUT_S:
                    raise
            await asyncio.sleep(RESTART_WAIT_S)


class ActorNodes:
    """The port `Nodes` over the node manager."""

    def __init__(self) -> None:
        self._manager = NamedActor(names.NODE_MANAGER)

    async def nodes(self) -> list[Node]:
        return list(await self._manager.ask_again("nodes"))

    async def node(self, node_id: str) -> Node:
        node: Node = await self._manager.ask_again("node", node_id)
        return node

    async def cordon(self, node_id: str, cordoned: bool) -> Node:
        node: Node = await self._manager.ask_again("cordon", node_id, cordoned)
        return node

    async def update(self, node_id: str, name: str | None, labels: Mapping[str, str] | None) -> Node:
        node: Node = await self._manager.ask_again("update_node", node_id, name, labels)
        return node

    async def store_health(self) -> StoreHealth:
        health: StoreHealth = await self._manager.ask("store_health")
        return health

    async def drain(self, node_id: str, deadline_s: float) -> Node:
        node: Node = await self._manager.ask_again("drain", node_id, deadline_s)
        return node

    async def metrics(self, node_id: str) -> list[ResourceMetrics]:
        return list(await self._manager.ask_again("node_metrics", node_id))

    async def events(self, since: int, wait_s: float) -> list[ClusterEvent]:
        return list(await self._manager.ask_again("node_events", since, wait_s))


class ActorResources:
    """The port `Resources` over the node manager."""

    def __init__(self) -> None:
        self._manager = NamedActor(names.NODE_MANAGER)

    async def totals(self) -> dict[str, Any]:
        return dict(await self._manager.ask_again("totals"))

    async def allocations(self) -> list[Allocation]:
        return list(await self._manager.ask_again("allocations"))

    async def allocation(self, allocation_id: str, wait_s: float = 0.0) -> Allocation:
        allocation: Allocation = await self._manager.ask_again("allocation", allocation_id, wait_s)
        return allocation

    async def allocate(self, claim: Claim, until_held: bool = True) -> Allocation:
        allocation: Allocation = await self._manager.ask_again("allocate", claim, until_held)
        return allocation

    def call_off(self, allocation_id: str) -> None:
        """Releases it without waiting for that: for one who was interrupted while it waited."""
        self._manager.handle.release.remote(allocation_id)

    async def release(self, allocation_id: str, fence: str | None = None) -> None:
        try:
            await self._manager.ask("release", allocation_id, fence)
        except Gone:
            with suppress(NotFound):  # then the manager that was gone had done it
                await self._manager.ask_again("release", allocation_id, fence)

    async def renew(self, allocation_id: str, fence: str | None = None) -> Allocation:
        allocation: Allocation = await self._manager.ask_again("renew", allocation_id, fence)
        return allocation

    async def changed(self, allocation_id: str, mark: str, wait_s: float) -> Allocation:
        """The allocation as soon as its mark is another, or as it is after `wait_s` seconds."""
        allocation: Allocation = await self._manager.ask_again("changed", allocation_id, mark, wait_s)
        return allocation

    async def move_confirmed(self, allocation_id: str, epoch: int) -> None:
        """The holder works in the second home of this epoch: the first is not needed any more."""
        await self._manager.ask_again("move_confirmed", allocation_id, epoch)

    async def snapshot(self) -> Snapshot:
        snapshot: Snapshot = pickle.loads(await self._manager.ask_again("snapshot"))  # noqa: S301  # our own manager's
        return snapshot

    async def explain(self, allocation_id: str) -> Explanation:
        explanation: Explanation = await self._manager.ask_again("explain", allocation_id)
        return explanation


class ActorModules:
    """The port `Modules` over the registry; calls go to the module's host directly."""

    def __init__(self) -> None:
        self._registry = NamedActor(names.MODULE_REGISTRY)
        self._caller: ModuleCaller | None = None

    async def modules(self) -> list[dict[str, Any]]:
        return list(await self._registry.ask_again("modules"))

    async def describe(self, name: str) -> dict[str, Any]:
        return dict(await self._registry.ask_again("describe", name))

    async def graph(self) -> dict[str, Any]:
        return dict(await self._registry.ask_again("graph"))

    async def publish(self, archive: bytes) -> dict[str, Any]:
        return dict(await self._registry.ask_again("publish", archive))

    async def resolve(self, requirements: dict[str, str], minimal_change: bool) -> dict[str, Any]:
        return dict(await self._registry.ask_again("resolve", requirements, minimal_change))

    async def load(self, name: str, constraint: str, minimal_change: bool, fresh: bool) -> dict[str, Any]:
        return dict(await self._registry.ask("load", name, constraint, minimal_change, fresh))

    async def call(self, target: CallTarget, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        return await self._calls().call(target, args, kwargs)

    def stream(self, target: CallTarget, args: Sequence[Any], kwargs: Mapping[str, Any]) -> AsyncIterator[Any]:
        return self._calls().stream(target, args, kwargs)

    def _calls(self) -> ModuleCaller:
        if self._caller is None:
            self._caller = ModuleCaller(self._registry.handle)
        return self._caller

    async def swap(self, name: str, constraint: str, minimal_change: bool, force: bool) -> dict[str, Any]:
        return dict(await self._registry.ask("swap", name, constraint, minimal_change, force))

    async def rollback(self, name: str) -> dict[str, Any]:
        return dict(await self._registry.ask("rollback", name))

    async def unload(self, name: str) -> None:
        await self._registry.ask("unload", name)

    async def yank(self, name: str, version: str) -> dict[str, Any]:
        return dict(await self._registry.ask("yank", name, version))


class ActorServices:
    """The port `Services` over the service directory."""

    def __init__(self) -> None:
        self._directory = NamedActor(names.SERVICE_DIRECTORY)

    async def services(self, capability: str | None) -> Sequence[Service]:
        return list(await self._directory.ask_again("services", capability))

    async def register(self, service: Registration) -> Service:
        registered: Service = await self._directory.ask_again("register", service)
        return registered

    async def renew(self, name: str) -> Service:
        renewed: Service = await self._directory.ask_again("renew", name)
        return renewed

    async def unregister(self, name: str) -> None:
        await self._directory.ask("unregister", name)


class AppFusion:
    """The port `Fusion` over the Serve application of that name: its engine reads, its keeper remembers.

    within_s: how long a request may wait for its answer, as one does whose engine is being started again.
    """

    def __init__(self, application: str, within_s: float | None = None) -> None:
        self._application, self._within_s = application, within_s
        self._handles: dict[str, Any] = {}
        self._transit = Transit()

    async def process(self, request: MultimodalInput, spent_ms: float = 0.0) -> FusionResult:
        """The deadline holds here, not at the engine: it is told what the way there and back usually takes."""
        asked_s, expected_ms = time.perf_counter(), self._transit.expected_ms
        try:
            async with asyncio.timeout(self._within_s):
                result: FusionResult = await self._ask(names.FUSION_ENGINE, "process", request, spent_ms + expected_ms)
        except TimeoutError:
            raise Unavailable("the fusion engine does not answer: it may be starting; ask again") from None
        self._transit.note((time.perf_counter() - asked_s) * 1000 - result.stage_ms["total"])
        return result

    async def open_session(self) -> OpenedSession:
        opened: OpenedSession = await self._ask(names.FUSION_KEEPER, "open_session")
        return opened

    async def forget_session(self, session: str) -> None:
        await self._ask(names.FUSION_KEEPER, "forget_session", session)

    async def indexes(self) -> Sequence[IndexInfo]:
        return list(await self._ask(names.FUSION_KEEPER, "indexes"))

    async def index(self, name: str) -> IndexInfo:
        return await self._about_index("index", name)

    async def index_entries(self, name: str) -> Sequence[str]:
        return list(await self._ask(names.FUSION_KEEPER, "index_entries", name))

    async def create_index(self, name: str, kind: str) -> IndexInfo:
        return await self._about_index("create_index", name, kind)

    async def add_to_index(self, name: str, entries: Sequence[NewEntry]) -> IndexInfo:
        info: IndexInfo = await self._ask(names.FUSION_ENGINE, "add_to_index", name, tuple(entries))
        return info

    async def remove_from_index(self, name: str, gone: Sequence[str]) -> IndexInfo:
        return await self._about_index("remove_from_index", name, tuple(gone))

    async def fit_index(self, name: str, queries: Sequence[KnownQuery]) -> IndexInfo:
        info: IndexInfo = await self._ask(names.FUSION_ENGINE, "fit_index", name, tuple(queries))
        return info

    async def drop_index(self, name: str) -> None:
        await self._ask(names.FUSION_KEEPER, "drop_index", name)

    async def heads(self) -> Sequence[HeadInfo]:
        return list(await self._ask(names.FUSION_KEEPER, "heads"))

    async def _about_index(self, method: str, *args: Any) -> IndexInfo:
        info: IndexInfo = await self._ask(names.FUSION_KEEPER, method, *args)
        return info

    async def _ask(self, deployment: str, method: str, *args: Any) -> Any:
        if deployment not in self._handles:
            self._handles[deployment] = serve.get_deployment_handle(deployment, self._application)
        return await await_ref(getattr(self._handles[deployment], method).remote(*args))


def cluster_ports(settings: Settings) -> Ports:
    """All ports of the gateway, over the cluster that this process belongs to."""
    return Ports(
        nodes=ActorNodes(),
        resources=ActorResources(),
        modules=ActorModules(),
        fusion=AppFusion(names.FUSION_APP, settings.fusion_max_processing_time_ms / 1000 + ENGINE_AWAY_S),
        services=ActorServices(),
    )
