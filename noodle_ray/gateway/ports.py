"""What the gateway needs of the cluster: five ports, which whoever serves the application fills in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from noodle_ray.fusion.index_messages import HeadInfo, IndexInfo, KnownQuery, NewEntry, OpenedSession
from noodle_ray.fusion.inputs import MultimodalInput
from noodle_ray.fusion.result import FusionResult
from noodle_ray.modules.call_route import CallTarget
from noodle_ray.nodes.event_log import ClusterEvent
from noodle_ray.nodes.membership import Node
from noodle_ray.nodes.metrics import ResourceMetrics
from noodle_ray.placement.allocation import Allocation
from noodle_ray.placement.claim import Claim
from noodle_ray.placement.explanation import Explanation
from noodle_ray.services.directory import Registration, Service
from noodle_ray.store.health import StoreHealth


class Nodes(Protocol):
    """The nodes of the cluster. Raises NotFound for an unknown one."""

    async def nodes(self) -> Sequence[Node]: ...

    async def node(self, node_id: str) -> Node: ...

    async def cordon(self, node_id: str, cordoned: bool) -> Node: ...

    async def update(self, node_id: str, name: str | None, labels: Mapping[str, str] | None) -> Node:
        """Another name, or these labels beside Ray's; None: as before. Raises Conflict for a label of Ray's own."""
        ...

    async def drain(self, node_id: str, deadline_s: float) -> Node:
        """Moves what is movable away, and ends what is left after `deadline_s` seconds."""
        ...

    async def store_health(self) -> StoreHealth:
        """Whether the store answers, in which the node manager keeps what it decides."""
        ...

    async def metrics(self, node_id: str) -> Sequence[ResourceMetrics]:
        """What its agent measured of late, oldest first."""
        ...

    async def events(self, since: int, wait_s: float) -> Sequence[ClusterEvent]:
        """What happened after that number, as soon as there is something; nothing where `wait_s` seconds are over."""
        ...


class Resources(Protocol):
    """What the fleet has, and who holds it. Raises NotFound for an unknown allocation or policy."""

    async def totals(self) -> dict[str, Any]: ...

    async def allocations(self) -> Sequence[Allocation]: ...

    async def allocation(self, allocation_id: str, wait_s: float = 0.0) -> Allocation:
        """As soon as it is held, or as it is after `wait_s` seconds.

        Raises DoesNotFit, Conflict where it is refused meanwhile.
        """
        ...

    async def allocate(self, claim: Claim, until_held: bool = True) -> Allocation:
        """Holds what is claimed; with `until_held` false it may also come back waiting. Raises DoesNotFit, Conflict."""
        ...

    async def release(self, allocation_id: str, fence: str | None = None) -> None:
        """Raises Conflict where `fence` is not its home any more."""
        ...

    async def renew(self, allocation_id: str, fence: str | None = None) -> Allocation:
        """Raises Conflict where `fence` is not its home any more."""
        ...

    async def explain(self, allocation_id: str) -> Explanation: ...


class Modules(Protocol):
    """The module registry; descriptions are JSON-ready. Raises NotFound for an unknown module or version."""

    async def modules(self) -> Sequence[dict[str, Any]]: ...

    async def describe(self, name: str) -> dict[str, Any]: ...

    async def graph(self) -> dict[str, Any]: ...

    async def publish(self, archive: bytes) -> dict[str, Any]:
        """Raises InvalidInput where the archive is no module, Conflict, LimitReached."""
        ...

    async def resolve(self, requirements: dict[str, str], minimal_change: bool) -> dict[str, Any]:
        """Raises Unresolvable."""
        ...

    async def load(self, name: str, constraint: str, minimal_change: bool, fresh: bool) -> dict[str, Any]:
        """Raises Unresolvable, DoesNotFit, ModuleFailed, DeadlineExceeded."""
        ...

    async def call(self, target: CallTarget, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Raises ModuleFailed, CallInterrupted."""
        ...

    def stream(self, target: CallTarget, args: Sequence[Any], kwargs: Mapping[str, Any]) -> AsyncIterator[Any]:
        """What a generator of the module yields. Raises ModuleFailed, CallInterrupted."""
        ...

    async def swap(self, name: str, constraint: str, minimal_change: bool, force: bool) -> dict[str, Any]:
        """Raises Unresolvable, Conflict, Incompatible, DoesNotFit, ModuleFailed."""
        ...

    async def rollback(self, name: str) -> dict[str, Any]:
        """Raises Conflict, ModuleFailed."""
        ...

    async def unload(self, name: str) -> None: ...

    async def yank(self, name: str, version: str) -> dict[str, Any]: ...


class Fusion(Protocol):
    """The fusion service, and what it remembers. Raises NotFound for an unknown index, head or session."""

    async def process(self, request: MultimodalInput, spent_ms: float = 0.0) -> FusionResult:
        """One answer; `spent_ms` of the request's time are gone elsewhere.

        Raises InvalidInput, TooLarge, DeadlineExceeded, Overloaded.
        """
        ...

    async def open_session(self) -> OpenedSession:
        """Raises LimitReached."""
        ...

    async def forget_session(self, session: str) -> None: ...

    async def indexes(self) -> Sequence[IndexInfo]: ...

    async def index(self, name: str) -> IndexInfo: ...

    async def index_entries(self, name: str) -> Sequence[str]: ...

    async def create_index(self, name: str, kind: str) -> IndexInfo:
        """Raises InvalidInput for an unknown kind, Conflict where there is one of another kind, LimitReached."""
        ...

    async def add_to_index(self, name: str, entries: Sequence[NewEntry]) -> IndexInfo:
        """Raises InvalidInput and TooLarge for what cannot be read, Conflict, LimitReached."""
        ...

    async def remove_from_index(self, name: str, gone: Sequence[str]) -> IndexInfo:
        """Raises Conflict."""
        ...

    async def fit_index(self, name: str, queries: Sequence[KnownQuery]) -> IndexInfo:
        """Raises InvalidInput for answers that are no entries, and for what cannot be read."""
        ...

    async def drop_index(self, name: str) -> None:
        """Raises Conflict."""
        ...

    async def heads(self) -> Sequence[HeadInfo]: ...


class Services(Protocol):
    """The service directory. Raises NotFound for an unknown name."""

    async def services(self, capability: str | None) -> Sequence[Service]: ...

    async def register(self, service: Registration) -> Service:
        """Raises Conflict, LimitReached."""
        ...

    async def renew(self, name: str) -> Service: ...

    async def unregister(self, name: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Ports:
    """All that the application calls. Every method may raise Unavailable."""

    nodes: Nodes
    resources: Resources
    modules: Modules
    fusion: Fusion
    services: Services
