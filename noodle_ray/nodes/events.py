"""What happens to a manager: every event that `Manager.handle` takes. `at` is in seconds since 1970."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from noodle_ray.nodes.metrics import ResourceMetrics
from noodle_ray.resources import Demand, NodeResources
from noodle_ray.store.changes import Document


@dataclass(frozen=True, slots=True)
class NodeJoined:
    """Ray has a node that we do not know, or one that we held for dead."""

    node_id: str
    name: str
    address: str
    resources: NodeResources
    pretended: bool
    at: float


@dataclass(frozen=True, slots=True)
class NodeLeft:
    """Ray has lost the node, or was asked to let it go."""

    node_id: str
    at: float


@dataclass(frozen=True, slots=True)
class NodeReported:
    """A node's agent has measured its machine."""

    node_id: str
    metrics: ResourceMetrics
    at: float


@dataclass(frozen=True, slots=True)
class NodeCordoned:
    """Somebody wants nothing new placed on the node, or wants that again."""

    node_id: str
    cordoned: bool
    at: float


@dataclass(frozen=True, slots=True)
class FreeObserved:
    """What Ray holds for free on a node while no group of ours is on its way; GPUs as one sum of units."""

    node_id: str
    cpu_units: int
    memory_bytes: int
    gpu_units: int
    custom_units: Mapping[str, int]
    at: float


@dataclass(frozen=True, slots=True)
class AllocationRequested:
    """Somebody wants a demand placed. The id is the asker's: the same id again is the same request."""

    allocation_id: str
    demand: Demand
    policy: str | None
    owner: str
    lease_s: float | None
    at: float


@dataclass(frozen=True, slots=True)
class GroupCreated:
    """Ray has reserved the group."""

    allocation_id: str
    epoch: int
    at: float


@dataclass(frozen=True, slots=True)
class GroupFailed:
    """Ray did not reserve the group."""

    allocation_id: str
    epoch: int
    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class GroupRemoved:
    """The group is gone, and what it held is free in Ray."""

    allocation_id: str
    epoch: int
    at: float


@dataclass(frozen=True, slots=True)
class ReleaseRequested:
    """The holder wants it freed."""

    allocation_id: str
    at: float


@dataclass(frozen=True, slots=True)
class LeaseRenewed:
    """The holder is still there."""

    allocation_id: str
    at: float


@dataclass(frozen=True, slots=True)
class OwnerGone:
    """The owner (a Ray job) has ended: what it held is freed."""

    owner: str
    at: float


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""

    at: float


@dataclass(frozen=True, slots=True)
class Recovered:
    """A manager starts: the rows that the store has, and the names of our groups that Ray has."""

    allocations: tuple[Document, ...]
    nodes: tuple[Document, ...]
    groups: frozenset[str]
    at: float


Event = (
    NodeJoined
    | NodeLeft
    | NodeReported
    | NodeCordoned
    | FreeObserved
    | AllocationRequested
    | GroupCreated
    | GroupFailed
    | GroupRemoved
    | ReleaseRequested
    | LeaseRenewed
    | OwnerGone
    | Tick
    | Recovered
)
