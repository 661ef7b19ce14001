"""The cluster's ports in memory: they keep what they are told, and raise what the real ones raise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from noodle_ray.errors import Conflict, DoesNotFit, NoodleError, NotFound
from noodle_ray.fusion.index_messages import HeadInfo, IndexInfo, KnownQuery, NewEntry, OpenedSession
from noodle_ray.fusion.inputs import MultimodalInput
from noodle_ray.fusion.result import FusionResult, RankedCandidate
from noodle_ray.gateway.ports import Ports
from noodle_ray.modules.call_route import CallTarget
from noodle_ray.nodes.event_log import ClusterEvent, EventLog
from noodle_ray.nodes.membership import Node
from noodle_ray.nodes.metrics import ResourceMetrics
from noodle_ray.placement.allocation import Allocation, Bundle
from noodle_ray.placement.claim import Claim
from noodle_ray.placement.explanation import Candidate, Explanation
from noodle_ray.placement.refusal import Refusal
from noodle_ray.resources import NodeResources
from noodle_ray.services.directory import Directory, Register, Renew, Service, Unregister
from noodle_ray.store.health import StoreHealth

TOKEN = "a-token-of-the-tests"
MAX_BODY = 100_000
NOW = 1_000.0


@dataclass
class Fake:
    """Raises `error` from every method while it is set, or never answers while `hangs`; notes the calls."""

    error: BaseException | None = None
    hangs: bool = False
    calls: list[tuple[Any, ...]] = field(default_factory=list)

    async def _called(self, *call: Any) -> None:
        self.calls.append(call)
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error


def a_node(node_id: str, **fields: Any) -> Node:
    resources = NodeResources.of(cpus=8, memory="32GiB", gpus=2)
    given = {"name": f"name of {node_id}", "address": "10.0.0.1", "resources": resources}
    return Node(**{"id": node_id, "joined_at": NOW, "heard_at": NOW, **given, **fields})


def a_measurement(at: float, **fields: Any) -> ResourceMetrics:
    sizes = {"memory_total_bytes": 100, "memory_used_bytes": 25, "disk_total_bytes": 100, "disk_used_bytes": 50}
    counters = {"network_sent_bytes": 0, "network_received_bytes": 0}
    return ResourceMetrics(**{"cpu_count": 8, "cpu_used_ratio": 0.5, "taken_at": at, **sizes, **counters, **fields})


def an_explanation(node_id: str) -> Explanation:
    candidate = Candidate(node_id=node_id, score=0.5, parts={"waste": -0.5})
    return Explanation(policy="best_fit", considered=2, filtered={"gpus": 1}, candidates=(candidate,), chosen=node_id)


def a_result() -> FusionResult:
    return FusionResult(
        request_id="f-1",
        embedding=(0.6, 0.8),
        candidates=(RankedCandidate(candidate="a cat", probability=1.0),),
        confidence=1.0,
        confident=True,
        contributions={"text": 0.5},
        modalities_used=("text",),
        encoders={"text": "a-text-encoder"},
        readings={"text": "a cat"},
        stage_ms={"total": 12.5},
    )


@dataclass
class FakeNodes(Fake):
    store: StoreHealth = field(default_factory=StoreHealth)
    known: dict[str, Node] = field(default_factory=lambda: {name: a_node(name) for name in ("node-a", "node-b")})
    log: EventLog = field(default_factory=EventLog)
    waiting: int = 0

    async def nodes(self) -> Sequence[Node]:
        await self._called("nodes")
        return list(self.known.values())

    async def node(self, node_id: str) -> Node:
        await self._called("node", node_id)
        if node_id not in self.known:
            raise NotFound("node", node_id)
        return self.known[node_id]

    async def store_health(self) -> StoreHealth:
        await self._called("store_health")
        return self.store

    async def cordon(self, node_id: str, cordoned: bool) -> Node:
        node = await self.node(node_id)
        self.known[node_id] = node.model_copy(update={"cordoned": cordoned})
        return self.known[node_id]

    async def update(self, node_id: str, name: str | None, labels: Mapping[str, str] | None) -> Node:
        node = await self.node(node_id)
        self.known[node_id] = node.model_copy(update={"name": name or node.name, "given_labels": labels or {}})
        return self.known[node_id]

    async def drain(self, node_id: str, deadline_s: float) -> Node:
        node = await self.node(node_id)
        self.known[node_id] = node.model_copy(update={"drain_until": NOW + deadline_s})
        return self.known[node_id]

    async def metrics(self, node_id: str) -> Sequence[ResourceMetrics]:
        await self.node(node_id)
        return [a_measurement(NOW + number) for number in range(3)]

    async def events(self, since: int, wait_s: float) -> Sequence[ClusterEvent]:
        await self._called("events", since, wait_s)
        self.waiting += 1
        try:
            for _ in range(int(wait_s * 100)):
                if found := self.log.since(since):
                    return found
                await asyncio.sleep(0.01)
            return self.log.since(since)
        finally:
            self.waiting -= 1


@dataclass
class FakeResources(Fake):
    held: dict[str, Allocation] = field(default_factory=dict)
    cpus: float = 8.0

    async def totals(self) -> dict[str, Any]:
        await self._called("totals")
        cpus = {"total": self.cpus, "held": self.used, "others": 0.0, "free": self.cpus - self.used}
        waiting = sum(allocation.state == "waiting" for allocation in self.held.values())
        counts = {"nodes": 1, "allocations": len(self.held), "waiting": waiting}
        return {**counts, "allocation_ratio": self.used / self.cpus, "cpus": cpus}

    @property
    def used(self) -> float:
        return sum(bundle.demand.cpus for allocation in self.held.values() for bundle in allocation.bundles)

    async def allocations(self) -> Sequence[Allocation]:
        await self._called("allocations")
        return list(self.held.values())

    async def allocation(self, allocation_id: str, wait_s: float = 0.0) -> Allocation:
        await self._called("allocation", allocation_id, wait_s)
        if allocation_id not in self.held:
            raise NotFound("allocation", allocation_id)
        return self.held[allocation_id]

    async def allocate(self, claim: Claim, until_held: bool = True) -> Allocation:
        await self._called("allocate", claim, until_held)
        wanted = sum(demand.cpus for demand in claim.request.bundles)
        fits = wanted <= self.cpus - self.used
        if wanted > self.cpus or not (fits or claim.wait_s):
            failed = {"cpus": 1}
            raise DoesNotFit(Refusal(str(claim.request), 1, failed, {"cpus": f"{self.cpus:g}"}, wanted > self.cpus))
        bundles = tuple(Bundle(demand=demand, node_id="node-a") for demand in claim.request.bundles)
        allocation = Allocation(
            id=f"a-{len(self.held) + 1}",
            epoch=1 if fits else 0,
            state="held" if fits else "waiting",
            request=claim.request,
            bundles=bundles if fits else (),
            policy=claim.policy or "best_fit",
            priority=claim.priority,
            owner=claim.owner,
            lease_s=claim.lease_s,
            created_at=NOW,
            explanation=an_explanation("node-a"),
        )
        self.held[allocation.id] = allocation
        return allocation

    async def release(self, allocation_id: str, fence: str | None = None) -> None:
        await self._at_home(allocation_id, fence)
        del self.held[allocation_id]

    async def renew(self, allocation_id: str, fence: str | None = None) -> Allocation:
        allocation = await self._at_home(allocation_id, fence)
        self.held[allocation_id] = allocation.model_copy(update={"expires_at": NOW + 60})
        return self.held[allocation_id]

    async def _at_home(self, allocation_id: str, fence: str | None) -> Allocation:
        allocation = await self.allocation(allocation_id)
        if fence not in (None, allocation.group):
            raise Conflict(f"the allocation's home is {allocation.group} now")
        return allocation

    async def explain(self, allocation_id: str) -> Explanation:
        explanation = (await self.allocation(allocation_id)).explanation
        assert explanation is not None
        return explanation


@dataclass
class FakeModules(Fake):
    published: dict[str, dict[str, Any]] = field(default_factory=lambda: {"greeter": {"name": "greeter"}})
    result: Any = "Hello"

    async def modules(self) -> Sequence[dict[str, Any]]:
        await self._called("modules")
        return list(self.published.values())

    async def describe(self, name: str) -> dict[str, Any]:
        await self._called("describe", name)
        if name not in self.published:
            raise NotFound("module", name)
        return self.published[name]

    async def graph(self) -> dict[str, Any]:
        await self._called("graph")
        return {"nodes": [{"name": "greeter", "version": "1.0", "loaded": True}], "edges": []}

    async def publish(self, archive: bytes) -> dict[str, Any]:
        await self._called("publish", archive)
        return {"name": "greeter", "bytes": len(archive)}

    async def resolve(self, requirements: dict[str, str], minimal_change: bool) -> dict[str, Any]:
        await self._called("resolve", requirements)
        return {"lock": sorted(requirements)}

    async def load(self, name: str, constraint: str, minimal_change: bool, fresh: bool) -> dict[str, Any]:
        await self._called("load", name, constraint)
        return await self.describe(name)

    async def call(self, target: CallTarget, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        await self._called("call", target, args, kwargs)
        await self.describe(target.module)
        return self.result

    async def stream(self, target: CallTarget, args: Sequence[Any], kwargs: Mapping[str, Any]) -> AsyncIterator[Any]:
        await self._called("stream", target, args, kwargs)
        await self.describe(target.module)
        for item in self.result:
            if isinstance(item, Exception):
                raise item
            yield item

    async def swap(self, name: str, constraint: str, minimal_change: bool, force: bool) -> dict[str, Any]:
        await self._called("swap", name, constraint)
        return await self.describe(name)

    async def rollback(self, name: str) -> dict[str, Any]:
        await self._called("rollback", name)
        return await self.describe(name)

    async def unload(self, name: str) -> None:
        await self._called("unload", name)
        await self.describe(name)

    async def yank(self, name: str, version: str) -> dict[str, Any]:
        await self._called("yank", name, version)
        return await self.describe(name)


@dataclass
class FakeFusion(Fake):
    result: Any = field(default_factory=lambda: a_result())
    sessions: list[str] = field(default_factory=list)
    known: dict[str, dict[str, NewEntry]] = field(default_factory=lambda: {"toys": {}})

    async def process(self, request: MultimodalInput, spent_ms: float = 0.0) -> Any:
        assert 0 < spent_ms < 50
        await self._called("process", request)
        return self.result

    async def open_session(self) -> OpenedSession:
        await self._called("open_session")
        self.sessions.append(f"session-{len(self.sessions)}")
        return OpenedSession(session=self.sessions[-1], idle_ms=1000)

    async def forget_session(self, session: str) -> None:
        await self._called("forget_session", session)
        if session not in self.sessions:
            raise NotFound("session", session)
        self.sessions.remove(session)

    async def indexes(self) -> Sequence[IndexInfo]:
        await self._called("indexes")
        return [self._info(name) for name in self.known]

    async def index(self, name: str) -> IndexInfo:
        await self._called("index", name)
        return self._info(name)

    async def index_entries(self, name: str) -> Sequence[str]:
        await self._called("index_entries", name)
        return list(self._entries(name))

    async def create_index(self, name: str, kind: str) -> IndexInfo:
        await self._called("create_index", name, kind)
        self.known.setdefault(name, {})
        return self._info(name)

    async def add_to_index(self, name: str, entries: Sequence[NewEntry]) -> IndexInfo:
        await self._called("add_to_index", name, entries)
        self._entries(name).update({entry.name: entry for entry in entries})
        return self._info(name)

    async def remove_from_index(self, name: str, gone: Sequence[str]) -> IndexInfo:
        await self._called("remove_from_index", name, gone)
        for entry in gone:
            self._entries(name).pop(entry, None)
        return self._info(name)

    async def fit_index(self, name: str, queries: Sequence[KnownQuery]) -> IndexInfo:
        await self._called("fit_index", name, queries)
        return self._info(name)

    async def drop_index(self, name: str) -> None:
        await self._called("drop_index", name)
        self._entries(name)
        del self.known[name]

    async def heads(self) -> Sequence[HeadInfo]:
        await self._called("heads")
        return [HeadInfo(name="tickets", labels=("bug", "wish"))]

    def _entries(self, name: str) -> dict[str, NewEntry]:
        if name not in self.known:
            raise NotFound("index", name)
        return self.known[name]

    def _info(self, name: str) -> IndexInfo:
        return IndexInfo(name=name, kind="dense", entries=len(self._entries(name)))


@dataclass
class FakeServices(Fake):
    directory: Directory = field(default_factory=Directory)

    async def services(self, capability: str | None) -> Sequence[Service]:
        await self._called("services", capability)
        return self.directory.services() if capability is None else self.directory.find(capability)

    async def register(self, service: Service) -> Service:
        await self._called("register", service)
        self.directory.handle(Register(service, NOW))
        return self.directory.service(service.name)

    async def renew(self, name: str) -> Service:
        await self._called("renew", name)
        self.directory.handle(Renew(name, NOW + 10))
        return self.directory.service(name)

    async def unregister(self, name: str) -> None:
        await self._called("unregister", name)
        self.directory.handle(Unregister(name))


@dataclass
class FakePorts:
    """One fake for each port, and all of them together as the application wants them."""

    nodes: FakeNodes = field(default_factory=FakeNodes)
    resources: FakeResources = field(default_factory=FakeResources)
    modules: FakeModules = field(default_factory=FakeModules)
    fusion: FakeFusion = field(default_factory=FakeFusion)
    services: FakeServices = field(default_factory=FakeServices)

    def ports(self) -> Ports:
        return Ports(self.nodes, self.resources, self.modules, self.fusion, self.services)

    def fail(self, error: NoodleError | Exception | None) -> None:
        for fake in (self.nodes, self.resources, self.modules, self.fusion, self.services):
            fake.error = error
