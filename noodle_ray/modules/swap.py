"""The hot-swap machine: how one module's calls move from host to host, so that there is always one and never two.

A host is prepared (Loading), asked whether it is well (Checking), made the one that calls go to (Switching), and the
one before it is emptied (Draining) and ended. Whatever goes wrong before the switch ends the new host, and the old one
goes on. A first load is a swap from nothing; a host that died is replaced by a swap to the same version.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, assert_never

from noodle_ray.errors import Conflict, ModuleFailed, NoodleError

Phase = Literal["empty", "loading", "checking", "switching", "draining", "serving", "restarting", "unloading"]

MAX_BACKOFF_S = 30.0
FIRST_BACKOFF_S = 0.25
LINGER_S = 5.0
"""How long a host that was replaced stays after its last call: calls on their way to it must still be told to turn."""

# -- events


@dataclass(frozen=True, slots=True)
class LoadAsked:
    """Load this version, where none is loaded."""

    version: str


@dataclass(frozen=True, slots=True)
class SwapAsked:
    """Replace what is loaded by this version."""

    version: str


@dataclass(frozen=True, slots=True)
class UnloadAsked:
    """End the module."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The host has the module in it."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Healthy:
    """The host answered that it is well."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Routed:
    """New calls go to this host, and that is kept."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The host could not be started, loaded, found well, or routed to; or that took too long."""

    epoch: int
    error: NoodleError


@dataclass(frozen=True, slots=True)
class HostDied:
    """The host's process or machine is gone."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Drained:
    """The last call on this host has ended, or the time for that is over."""

    epoch: int


Event = LoadAsked | SwapAsked | UnloadAsked | Loaded | Healthy | Routed | Failed | HostDied | Drained

# -- instructions


@dataclass(frozen=True, slots=True)
class StartHost:
    """After `after_s`, take a host and load this version into it: Loaded, Failed or HostDied comes back."""

    epoch: int
    version: str
    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class CheckHealth:
    """Ask it whether it is well: Healthy, Failed or HostDied comes back."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Route:
    """After `after_s`, keep that calls go to this host, then send them there: Routed or Failed comes back."""

    epoch: int
    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Unroute:
    """Keep that calls go nowhere, then refuse them. Finished with this number follows, when the last call has ended."""

    ticket: int


@dataclass(frozen=True, slots=True)
class Retire:
    """Have the host take no new calls and finish those it has: Drained or HostDied comes back."""

    epoch: int


@dataclass(frozen=True, slots=True)
class StopHost:
    """After `after_s`, end the host and free what it holds. Nothing comes back, and nothing waits for it."""

    epoch: int
    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Finished:
    """Tell whoever waits for this host's load or swap, or for the unload with this number, that it is done."""

    epoch: int


@dataclass(frozen=True, slots=True)
class RolledBack:
    """Tell whoever waits that it is not to be: what was loaded before, if anything, goes on."""

    epoch: int
    error: NoodleError


Instruction = StartHost | CheckHealth | Route | Unroute | Retire | StopHost | Finished | RolledBack


@dataclass(frozen=True, slots=True)
class Hosted:
    """One host of the module."""

    epoch: int
    version: str


@dataclass(slots=True)
class Candidate:
    """A host on its way to serve."""

    host: Hosted
    phase: Literal["loading", "checking", "switching"] = "loading"
    is_restart: bool = False
    is_return: bool = False
    """It is the old host, and calls go back to it."""
    died: bool = False


@dataclass
class HotSwap:
    """One module's hosts. `handle` takes an event and gives instructions; late news of ended hosts changes nothing.

    `serving` is the host that calls are routed to, `serving_died` whether it is gone and a replacement under way.
    """

    module: str
    serving: Hosted | None = None
    serving_died: bool = False
    candidate: Candidate | None = None
    retiring: dict[int, int] = field(default_factory=dict)
    unloading: bool = False
    next_epoch: int = 1
    restarts: int = 0
    """Attempts in a row that a dead host's replacement has taken."""

    @property
    def phase(self) -> Phase:
        if self.candidate is not None:
            return "restarting" if self.candidate.is_restart else self.candidate.phase
        if self.retiring:
            return "unloading" if self.unloading else "draining"
        return "serving" if self.serving is not None else "empty"

    def handle(self, event: Event) -> list[Instruction]:
        """Applies one event. Raises Conflict where the phase forbids what is asked, and then nothing has changed."""
        match event:
            case LoadAsked():
                return self._load(event.version)
            case SwapAsked():
                return self._swap(event.version)
            case UnloadAsked():
                return self._unload()
            case Loaded():
                return self._advance(event.epoch, "loading", "checking", CheckHealth(event.epoch))
            case Healthy():
                return self._advance(event.epoch, "checking", "switching", Route(event.epoch))
            case Routed():
                return self._routed(event.epoch)
            case Failed():
                return self._failed(event)
            case HostDied():
                return self._died(event.epoch)
            case Drained():
                return self._drained(event.epoch, linger_s=0.0 if self.unloading else LINGER_S)
        assert_never(event)

    # -- what is asked

    def _load(self, version: str) -> list[Instruction]:
        if self.phase != "empty":
            raise Conflict(f"{self.module} is {self._state()}: swap it to change its version")
        return self._start(version)

    def _swap(self, version: str) -> list[Instruction]:
        if self.serving is None:
            raise Conflict(f"{self.module} is {self._state()}: there is nothing to swap")
        self._require_one_change()
        return [*self._drop_restart(), *self._start(version)]

    def _unload(self) -> list[Instruction]:
        if self.serving is None:
            raise Conflict(f"{self.module} is {self._state()}: there is nothing to unload")
        self._require_one_change()
        ticket, self.next_epoch = self.next_epoch, self.next_epoch + 1
        todo = [Unroute(ticket), *self._drop_restart(), *self._retire(self.serving.epoch, ticket)]
        self.serving, self.serving_died, self.restarts, self.unloading = None, False, 0, bool(self.retiring)
        return todo

    def _require_one_change(self) -> None:
        if self.candidate is not None and (not self.candidate.is_restart or self.candidate.phase == "switching"):
            raise Conflict(f"{self.module} is {self._state()}: one change at a time")

    def _drop_restart(self) -> list[Instruction]:
        """Someone mends or ends a module whose host died: the restart under way is not wanted any more."""
        dropped, self.candidate = self.candidate, None
        return [StopHost(dropped.host.epoch)] if dropped is not None else []

    def _state(self) -> str:
        return {"empty": "not loaded", "serving": "loaded"}.get(self.phase, self.phase)

    # -- what comes back

    def _start(self, version: str, after_s: float = 0.0, is_restart: bool = False) -> list[Instruction]:
        host = Hosted(self.next_epoch, version)
        self.next_epoch += 1
        self.candidate = Candidate(host, is_restart=is_restart)
        return [StartHost(host.epoch, version, after_s)]

    def _is_candidate(self, epoch: int) -> bool:
        return self.candidate is not None and self.candidate.host.epoch == epoch

    def _advance(
        self, epoch: int, before: str, after: Literal["checking", "switching"], order: Instruction
    ) -> list[Instruction]:
        if self.candidate is None or not self._is_candidate(epoch) or self.candidate.phase != before:
            return []
        self.candidate.phase = after
        return [order]

    def _routed(self, epoch: int) -> list[Instruction]:
        candidate = self.candidate
        if candidate is None or not self._is_candidate(epoch) or candidate.phase != "switching":
            return []
        if candidate.died and self.serving is not None and not self.serving_died:
            return self._route_back(candidate, self.serving)
        old, old_died = self.serving, self.serving_died
        self.serving, self.serving_died, self.candidate, self.restarts = candidate.host, False, None, 0
        if old is not None and not old_died:
            todo = self._retire(old.epoch, epoch)
        else:
            todo = [StopHost(old.epoch)] if old is not None else []
            todo += [] if candidate.is_restart else [Finished(epoch)]
        return todo + (self._serving_died(candidate.host) if candidate.died else [])

    def _route_back(self, candidate: Candidate, old: Hosted) -> list[Instruction]:
        """The new host died while calls were being moved to it: they go back to the old one, which is still there."""
        self.candidate = Candidate(old, phase="switching", is_restart=True, is_return=True)
        self.serving, self.serving_died = candidate.host, True
        return [Route(old.epoch), RolledBack(candidate.host.epoch, self._death())]

    def _failed(self, event: Failed) -> list[Instruction]:
        candidate = self.candidate
        if candidate is None or not self._is_candidate(event.epoch):
            return []
        if candidate.is_return:
            # The old host may be gone too by now; once calls are routed to it, that is a death like any other.
            return [Route(event.epoch, self._backoff_s())]
        return self._roll_back(candidate, event.error)

    def _roll_back(self, candidate: Candidate, error: NoodleError) -> list[Instruction]:
        self.candidate = None
        todo: list[Instruction] = [StopHost(candidate.host.epoch)]
        if not candidate.is_restart:
            todo.append(RolledBack(candidate.host.epoch, error))
        if self.serving is not None and self.serving_died:
            todo += self._restart(self.serving.version)
        return todo

    def _died(self, epoch: int) -> list[Instruction]:
        if epoch in self.retiring:
            return self._drained(epoch, linger_s=0.0)
        if self.candidate is not None and self._is_candidate(epoch):
            if self.candidate.phase == "switching":
                self.candidate.died = True  # the switch is being kept; what to do depends on how that ends
                return []
            return self._roll_back(self.candidate, self._death())
        if self.serving is not None and self.serving.epoch == epoch and not self.serving_died:
            return self._serving_died(self.serving)
        return []

    def _serving_died(self, serving: Hosted) -> list[Instruction]:
        self.serving_died = True
        return self._restart(serving.version) if self.candidate is None else []

    def _restart(self, version: str) -> list[Instruction]:
        return self._start(version, self._backoff_s(), is_restart=True)

    def _backoff_s(self) -> float:
        """Nothing at the first attempt, then twice as long each time, up to a limit."""
        self.restarts += 1
        return 0.0 if self.restarts == 1 else min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2 ** min(self.restarts - 2, 20))

    def _retire(self, epoch: int, for_epoch: int) -> list[Instruction]:
        """Empties a host for the sake of another; one that is dead already is only cleared away."""
        if self.serving_died and self.serving is not None and self.serving.epoch == epoch:
            return [StopHost(epoch), Finished(for_epoch)]
        self.retiring[epoch] = for_epoch
        return [Retire(epoch)]

    def _drained(self, epoch: int, linger_s: float) -> list[Instruction]:
        if epoch not in self.retiring:
            return []
        for_epoch = self.retiring.pop(epoch)
        self.unloading = self.unloading and bool(self.retiring)
        return [StopHost(epoch, linger_s), Finished(for_epoch)]

    def _death(self) -> ModuleFailed:
        return ModuleFailed(self.module, "its host died")
