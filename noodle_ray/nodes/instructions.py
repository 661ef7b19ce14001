"""What a manager wants done: every instruction that `Manager.handle` gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from noodle_ray.errors import NoodleError
from noodle_ray.nodes.peers import Peer
from noodle_ray.nodes.scaling import Room
from noodle_ray.placement.allocation import Allocation
from noodle_ray.store.changes import Change


@dataclass(frozen=True, slots=True)
class Keep:
    """Change the store, before a group that follows is created or removed.

    Those who wait may be told at once: a row that says less than they were told is completed from Ray's groups.
    """

    change: Change


@dataclass(frozen=True, slots=True)
class PinnedBundle:
    """Amounts, as Ray names them, on exactly this node."""

    node_id: str
    amounts: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class CreateGroup:
    """Reserve all bundles or none; the outcome comes back as GroupCreated or GroupFailed."""

    allocation_id: str
    epoch: int
    group: str
    bundles: tuple[PinnedBundle, ...]


@dataclass(frozen=True, slots=True)
class RemoveGroup:
    """Free the group; GroupRemoved comes back when its amounts are free. A group that is not there is gone already."""

    allocation_id: str
    epoch: int
    group: str


@dataclass(frozen=True, slots=True)
class Granted:
    """Tell whoever waits: it is held."""

    allocation: Allocation


@dataclass(frozen=True, slots=True)
class Queued:
    """Tell whoever does not want to wait for long: it waits for room."""

    allocation: Allocation


@dataclass(frozen=True, slots=True)
class Refused:
    """Tell whoever waits: it is not."""

    allocation_id: str
    error: NoodleError


@dataclass(frozen=True, slots=True)
class Released:
    """Tell whoever waits: it is free."""

    allocation_id: str


@dataclass(frozen=True, slots=True)
class AskForNodes:
    """Tell the autoscaler what the cluster must be able to hold; nothing: what it was told before is withdrawn."""

    rooms: tuple[Room, ...]


@dataclass(frozen=True, slots=True)
class WatchPeers:
    """Have a node's agent watch these nodes, and no others."""

    by: str
    peers: tuple[Peer, ...]


@dataclass(frozen=True, slots=True)
class ProbeNode:
    """Have agents probe a suspected node now; each answer comes back as NodeProbed."""

    peer: Peer
    by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RetireNode:
    """Have Ray let the node go: it is drained."""

    node_id: str


@dataclass(frozen=True, slots=True)
class Notice:
    """Something worth a line in the log; `warns` where somebody should look into it."""

    kind: str
    message: str
    details: Mapping[str, object] = field(default_factory=dict)
    warns: bool = False


Instruction = (
    Keep
    | CreateGroup
    | RemoveGroup
    | Granted
    | Queued
    | Refused
    | Released
    | AskForNodes
    | WatchPeers
    | ProbeNode
    | RetireNode
    | Notice
)

Instructions = list[Instruction]
