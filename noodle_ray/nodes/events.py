"""What happens to a manager: every event that `Manager.handle` takes. `at` is in seconds since 1970."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from noodle_ray.nodes.metrics import ResourceMetrics
from noodle_ray.nodes.peers import Endpoint, Observation
from noodle_ray.nodes.scaling import NodeType
from noodle_ray.placement.claim import Claim
from noodle_ray.placement.prices import Prices
from noodle_ray.resources import NodeResources
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
    """A node's agent has measured its machine. `endpoint`: where it answers, for what it said before may be lost."""

    node_id: str
    metrics: ResourceMetrics
    at: float
    endpoint: Endpoint | None = None


@dataclass(frozen=True, slots=True)
class NodeCordoned:
    """Somebody wants nothing new placed on the node, or wants that again."""

    node_id: str
    cordoned: bool
    at: float


@dataclass(frozen=True, slots=True)
class NodeUpdated:
    """Somebody gives the node another name, or labels beside those that Ray has (None: as before)."""

    node_id: str
    at: float
    name: str | None = None
    labels: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class DrainRequested:
    """Somebody wants the node to leave: what is movable moves before `until`, the rest ends then."""

    node_id: str
    until: float
    at: float


@dataclass(frozen=True, slots=True)
class AgentStarted:
    """A node's agent runs and can be probed at its endpoint."""

    node_id: str
    endpoint: Endpoint
    at: float


@dataclass(frozen=True, slots=True)
class PeersObserved:
    """What an agent observed of the nodes that it watches."""

    by: str
    observations: tuple[Observation, ...]
    at: float


@dataclass(frozen=True, slots=True)
class NodeProbed:
    """An agent has probed a suspected node: whether it got an answer."""

    node_id: str
    by: str
    reached: bool
    at: float


@dataclass(frozen=True, slots=True)
class OthersObserved:
    """What others than us use on a node, by dimension in the ledger's units; GPUs as one sum."""

    node_id: str
    amounts: Mapping[str, int]
    gpu_units: int
    at: float


@dataclass(frozen=True, slots=True)
class GpusObserved:
    """Which GPUs Ray gave a bundle of an allocation, as its node's agent read it."""

    allocation_id: str
    epoch: int
    bundle: int
    gpu_indices: tuple[int, ...]
    at: float


@dataclass(frozen=True, slots=True)
class NodeTypesSeen:
    """The kinds of nodes that the cluster's autoscaler may launch; none where there is no autoscaler."""

    types: tuple[NodeType, ...]
    at: float


@dataclass(frozen=True, slots=True)
class Priced:
    """New prices were computed for the workload."""

    prices: Prices
    at: float


@dataclass(frozen=True, slots=True)
class Claimed:
    """Somebody claims resources. The same id again is the same claim: the asker may not have heard the answer."""

    claim: Claim
    at: float


@dataclass(frozen=True, slots=True)
class GroupCreated:
    """Ray has reserved the group."""

    allocation_id: str
    epoch: int
    at: float


@dataclass(frozen=True, slots=True)
class GroupFailed:
    """Ray did not reserve the group. `node_ids`: the nodes that lack room, where that is known."""

    allocation_id: str
    epoch: int
    reason: str
    at: float
    node_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GroupRemoved:
    """The group is gone, and what it held is free in Ray."""

    allocation_id: str
    epoch: int
    at: float


@dataclass(frozen=True, slots=True)
class GroupVanished:
    """The group of an allocation that is held is not in Ray any more, and nobody here removed it."""

    allocation_id: str
    epoch: int
    at: float


@dataclass(frozen=True, slots=True)
class GroupFound:
    """Ray has a group of ours that is not on its way out."""

    group: str
    at: float


@dataclass(frozen=True, slots=True)
class ReleaseRequested:
    """The holder wants it freed, or does not want to wait any more. `fence`: the home that it believes to hold."""

    allocation_id: str
    at: float
    fence: str | None = None


@dataclass(frozen=True, slots=True)
class LeaseRenewed:
    """The holder is still there. `fence`: the home that it believes to hold."""

    allocation_id: str
    at: float
    fence: str | None = None


@dataclass(frozen=True, slots=True)
class MoveConfirmed:
    """The holder works in the second home of this epoch: the first is not needed any more."""

    allocation_id: str
    epoch: int
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
    """A manager starts: the rows that the store has, and the names of our groups that Ray has.

    `unready` are those of the groups for which Ray has not reserved everything (yet, or any more). `asked`: the
    manager before this one has asked the autoscaler for room, and not taken that back.
    """

    allocations: tuple[Document, ...]
    nodes: tuple[Document, ...]
    groups: frozenset[str]
    at: float
    unready: frozenset[str] = frozenset()
    asked: bool = False


Event = (
    NodeJoined
    | NodeLeft
    | NodeReported
    | NodeCordoned
    | NodeUpdated
    | DrainRequested
    | AgentStarted
    | PeersObserved
    | NodeProbed
    | OthersObserved
    | GpusObserved
    | NodeTypesSeen
    | Priced
    | Claimed
    | GroupCreated
    | GroupFailed
    | GroupRemoved
    | GroupVanished
    | GroupFound
    | ReleaseRequested
    | LeaseRenewed
    | MoveConfirmed
    | OwnerGone
    | Tick
    | Recovered
)
