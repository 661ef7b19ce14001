"""A loaded module as it is kept: its revisions, its hosts, what changed of late, and the state it goes on from."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PlainSerializer

from noodle_ray.base_model import Model
from noodle_ray.errors import NotFound
from noodle_ray.modules.release import Lock

MAX_CHANGES = 10
"""Changes of a module that are remembered."""

MAX_STATE_BYTES = 16 * 2**20


def _read_bytes(given: object) -> object:
    return b64decode(given, validate=True) if isinstance(given, str) else given


StateBytes = Annotated[
    bytes,
    BeforeValidator(_read_bytes),
    PlainSerializer(lambda state: b64encode(state).decode(), when_used="json"),
]


class RevisionRecord(Model):
    """One version of the module as it was locked. Its `number` never comes twice."""

    number: int
    version: str
    lock: Lock


class HostRecord(Model):
    """One host that was taken for a revision: where it is, and in which allocation.

    `actor` is the namespace of its Ray actor, in which nothing else is.
    """

    epoch: int
    revision: int
    version: str
    actor: str
    node_id: str
    allocation_id: str | None = None
    taken_at: float


ChangeKind = Literal["load", "swap", "rollback"]


class ModuleChange(Model):
    """A load, swap or rollback, and what came of it. `number` is the one that whoever asked for it waits for."""

    number: int
    kind: ChangeKind
    version: str
    before: str | None = None
    outcome: Literal["under way", "done", "rolled back"] = "under way"
    why: str = ""
    forced: tuple[str, ...] = ()
    """What it breaks, and was done all the same."""
    at: float


class KeptState(Model):
    """What a stateful module goes on from: what a host of `version` exported, and the schema of that."""

    version: str
    schema_version: int
    state: StateBytes
    at: Annotated[float, Field(ge=0)]


class Load(Model):
    """A loaded module: the revision that calls go to, the one before, all hosts of any, and its latest changes."""

    name: str
    serving: RevisionRecord | None = None
    previous: RevisionRecord | None = None
    hosts: tuple[HostRecord, ...] = ()
    changes: tuple[ModuleChange, ...] = ()

    def host(self, epoch: int) -> HostRecord:
        """Raises NotFound."""
        for host in self.hosts:
            if host.epoch == epoch:
                return host
        raise NotFound("host", f"{self.name}#{epoch}")

    def serving_hosts(self) -> list[HostRecord]:
        """Those of the revision that calls go to, the oldest first."""
        number = self.serving.number if self.serving is not None else None
        return sorted((host for host in self.hosts if host.revision == number), key=lambda host: host.epoch)

    def with_change(self, change: ModuleChange | None) -> Load:
        """The same with this change, in place of an earlier report of it."""
        if change is None:
            return self
        others = [each for each in self.changes if each.number != change.number]
        return self.model_copy(update={"changes": (*others, change)[-MAX_CHANGES:]})

    @property
    def next_number(self) -> int:
        """One that no revision, host or change of it ever had."""
        revisions = [each.number for each in (self.serving, self.previous) if each is not None]
        return 1 + max([*revisions, *(host.epoch for host in self.hosts), *(each.number for each in self.changes)])
