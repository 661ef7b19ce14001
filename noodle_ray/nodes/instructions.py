"""What a manager wants done: every instruction that `Manager.handle` gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from noodle_ray.errors import NoodleError
from noodle_ray.placement.allocation import Allocation
from noodle_ray.store.changes import Change


@dataclass(frozen=True, slots=True)
class Keep:
    """Change the store, before anything that follows is done."""

    change: Change


@dataclass(frozen=True, slots=True)
class CreateGroup:
    """Reserve the bundle on exactly this node; the outcome comes back as GroupCreated or GroupFailed."""

    allocation_id: str
    epoch: int
    group: str
    bundle: Mapping[str, float]
    node_id: str


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
class Refused:
    """Tell whoever waits: it is not."""

    allocation_id: str
    error: NoodleError


@dataclass(frozen=True, slots=True)
class Released:
    """Tell whoever waits: it is free."""

    allocation_id: str


@dataclass(frozen=True, slots=True)
class Notice:
    """Something worth a line in the log."""

    kind: str
    message: str
    details: Mapping[str, object] = field(default_factory=dict)


Instruction = Keep | CreateGroup | RemoveGroup | Granted | Refused | Released | Notice
