"""What the hot-swap machine is told, and what it orders.

Hosts, revisions and unloads are numbered by one count, `epoch` where it is a host's: a number never comes twice.
"""

from __future__ import annotations

from dataclasses import dataclass

from noodle_ray.errors import NoodleError

# -- events


@dataclass(frozen=True, slots=True)
class LoadAsked:
    """Load this version, where none is loaded, in so many hosts. `stateful`: it has state that must not be lost."""

    version: str
    replicas: int = 1
    stateful: bool = False


@dataclass(frozen=True, slots=True)
class SwapAsked:
    """Replace what is loaded by this version. `reversible`: the version before it could read its state again."""

    version: str
    replicas: int = 1
    stateful: bool = False
    reversible: bool = True


@dataclass(frozen=True, slots=True)
class RollbackAsked:
    """Go back to the version before, which is still warm."""


@dataclass(frozen=True, slots=True)
class UnloadAsked:
    """End the module."""


@dataclass(frozen=True, slots=True)
class ReplicasAsked:
    """Run what is loaded in so many hosts."""

    replicas: int


@dataclass(frozen=True, slots=True)
class RelocationAsked:
    """Have another host, on a node that has none of it, take the place of this one."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Recovered:
    """A new registry finds what one before it left.

    `ready` are the hosts of the revision that calls go to which live, `others` all that live and are not of it, `dead`
    those that do not. There are to be `replicas` at least and `most` at most. `next_number` is one that was never used.
    """

    revision: int | None
    version: str
    stateful: bool
    replicas: int
    most: int
    ready: tuple[int, ...]
    others: tuple[int, ...]
    dead: tuple[int, ...]
    next_number: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """The host has the module in it."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Healthy:
    """The host answered that it is well."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The host could not be started, loaded or found well; or that took too long."""

    epoch: int
    error: NoodleError


@dataclass(frozen=True, slots=True)
class HostDied:
    """The host's process or machine is gone. `lived_s`: how long it had been ready."""

    epoch: int
    lived_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Moved:
    """The state is in this revision now, and kept."""

    revision: int


@dataclass(frozen=True, slots=True)
class Judged:
    """The calls that this revision was tried on went well enough."""

    revision: int


@dataclass(frozen=True, slots=True)
class Routed:
    """It is kept that calls go to this revision."""

    revision: int


@dataclass(frozen=True, slots=True)
class StageFailed:
    """What was ordered of a revision as a whole went wrong: trying it, moving its state, or keeping its route."""

    revision: int
    error: NoodleError


@dataclass(frozen=True, slots=True)
class Drained:
    """The last call on this host has ended, or the time for that is over; `whole` as it was told to retire."""

    epoch: int
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Expired:
    """This revision has been warm for long enough."""

    revision: int


Event = (
    LoadAsked
    | SwapAsked
    | RollbackAsked
    | UnloadAsked
    | ReplicasAsked
    | RelocationAsked
    | Recovered
    | Loaded
    | Healthy
    | Failed
    | HostDied
    | Moved
    | Judged
    | Routed
    | StageFailed
    | Drained
    | Expired
)

# -- instructions


@dataclass(frozen=True, slots=True)
class StartHost:
    """After `after_s`, take a host and load this version into it: Loaded, Failed or HostDied comes back.

    `restores`: the host is to go on from the state that was kept last. `apart`: it is of no use on a node where another
    host of the revision is; others are only better on a node of their own.
    """

    epoch: int
    revision: int
    version: str
    restores: bool = False
    after_s: float = 0.0
    apart: bool = False


@dataclass(frozen=True, slots=True)
class CheckHealth:
    """Ask it whether it is well: Healthy, Failed or HostDied comes back."""

    epoch: int


@dataclass(frozen=True, slots=True)
class MoveState:
    """Empty the source of calls, and bring its state to the target: Moved or StageFailed comes back.

    Where there is no source (any more), what was kept last is brought to it.
    """

    revision: int
    source: int | None
    target: int


@dataclass(frozen=True, slots=True)
class Try:
    """Watch how calls fare on this revision, beside what they did before: Judged or StageFailed comes back."""

    revision: int


@dataclass(frozen=True, slots=True)
class Route:
    """After `after_s`, keep that calls go to this revision: Routed or StageFailed comes back."""

    revision: int
    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Unroute:
    """Keep that calls go nowhere. Finished with this number follows, when the last call has ended."""

    ticket: int


@dataclass(frozen=True, slots=True)
class Retire:
    """Have the host take no new calls and finish those it has: Drained or HostDied comes back.

    Unless `whole`, it still takes calls that are meant for its version and no other. `keeps_state`: its state then is
    what the next load goes on from.
    """

    epoch: int
    whole: bool = False
    keeps_state: bool = False


@dataclass(frozen=True, slots=True)
class Resume:
    """Have the host take calls again."""

    epoch: int


@dataclass(frozen=True, slots=True)
class KeepWarm:
    """When nobody has called this revision for a while: Expired comes back."""

    revision: int


@dataclass(frozen=True, slots=True)
class StopHost:
    """After `after_s`, end the host and free what it holds. Nothing comes back, and nothing waits for it."""

    epoch: int
    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Finished:
    """Tell whoever waits for this load, swap, rollback or unload that it is done."""

    number: int


@dataclass(frozen=True, slots=True)
class RolledBack:
    """Tell whoever waits that it is not to be: what was loaded before, if anything, goes on."""

    number: int
    error: NoodleError


Instruction = (
    StartHost
    | CheckHealth
    | MoveState
    | Try
    | Route
    | Unroute
    | Retire
    | Resume
    | KeepWarm
    | StopHost
    | Finished
    | RolledBack
)
