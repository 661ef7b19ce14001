"""The hot-swap machine: how one module's calls move from version to version, so that none is lost or run twice.

A version runs as a revision, in one or more hosts. A new revision is prepared beside the one that serves, tried on some
of the calls (or, where there is state, given the state while calls wait), and then made the one that calls go to; the
one before is emptied, kept warm for a way back, and forgotten. Whatever goes wrong before the switch ends the new
revision, and the old one goes on. A host of the serving revision that dies is replaced.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, assert_never

from noodle_ray.errors import Conflict, ModuleFailed, NoodleError
from noodle_ray.modules.revision import Relocation, Revision
from noodle_ray.modules.swap_messages import (
    CheckHealth,
    Drained,
    Event,
    Expired,
    Failed,
    Finished,
    Healthy,
    HostDied,
    Instruction,
    Judged,
    KeepWarm,
    LoadAsked,
    Loaded,
    Moved,
    MoveState,
    Recovered,
    RelocationAsked,
    ReplicasAsked,
    Resume,
    Retire,
    RollbackAsked,
    RolledBack,
    Route,
    Routed,
    StageFailed,
    StartHost,
    StopHost,
    SwapAsked,
    Try,
    UnloadAsked,
    Unroute,
)

Phase = Literal[
    "empty",
    "loading",
    "checking",
    "canary",
    "moving",
    "switching",
    "draining",
    "watching",
    "serving",
    "restarting",
    "returning",
    "unloading",
]

LINGER_S = 5.0
"""How long a host that was emptied stays: calls on their way to it must still be told to turn."""


@dataclass(slots=True)
class Candidate:
    """A revision on its way to serve. `answer` is the number that somebody waits for."""

    revision: Revision
    answer: int
    phase: Literal["preparing", "canary", "moving", "switching"] = "preparing"
    reversible: bool = True
    was_tried: bool = False
    is_return: bool = False
    """It is the revision before, and calls go back to it."""
    error: NoodleError | None = None
    """Why they do, where nobody asked for it."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The hosts that calls may go to: of the serving revision, of the one that is tried, and of the one before.

    The last take such calls only as are meant for their version.
    """

    serving: tuple[int, ...] = ()
    canary: tuple[int, ...] = ()
    pinned: tuple[int, ...] = ()


@dataclass
class HotSwap:
    """One module's revisions. `handle` takes an event and gives instructions; late news changes nothing.

    `tries`: new versions are tried on calls before, or with state after, they are switched to.
    """

    module: str
    tries: bool = True
    serving: Revision | None = None
    candidate: Candidate | None = None
    previous: Revision | None = None
    reversible: bool = True
    """Whether the state of what serves could go back to `previous`."""
    draining: set[int] = field(default_factory=set)
    """Hosts of `previous` that calls still run on."""
    finishing: int | None = None
    """Who waits for the end of that."""
    watching: int | None = None
    """Who waits for the judgement on what serves, state and all."""
    leaving: dict[int, int | None] = field(default_factory=dict)
    """Hosts that are emptied and then ended, and the unload that waits for it."""
    next_number: int = 1

    @property
    def phase(self) -> Phase:
        if self.candidate is not None:
            return self._candidate_phase(self.candidate)
        if self.serving is None:
            return "unloading" if any(self.leaving.values()) else "empty"
        if self.draining:
            return "draining"
        if self.watching is not None:
            return "watching"
        return "serving" if self.serving.ready else "restarting"

    def _candidate_phase(self, candidate: Candidate) -> Phase:
        if candidate.is_return:
            return "returning"
        if candidate.phase != "preparing":
            return candidate.phase
        return "loading" if "loading" in candidate.revision.hosts.values() else "checking"

    @property
    def endpoints(self) -> Endpoints:
        """Where calls may go now: nowhere while state is moved."""
        candidate = self.candidate
        if self.serving is None:
            return Endpoints()
        if candidate is not None and _moves(candidate, self.serving) and candidate.phase in ("moving", "switching"):
            return Endpoints()
        canary = candidate.revision.ready if candidate is not None and candidate.phase == "canary" else ()
        # Where there is state, the version before has none any more.
        pinned = self.previous.ready if self.previous is not None and not self.previous.stateful else ()
        return Endpoints(tuple(self.serving.ready), tuple(canary), tuple(pinned))

    def hosts_of(self, number: int) -> tuple[int, ...]:
        """The hosts of the revision that serves, or of the one that is to: those there are, and those on their way."""
        candidate = self.candidate.revision if self.candidate is not None else None
        revisions = [each for each in (self.serving, candidate) if each is not None and each.number == number]
        return tuple(epoch for each in revisions for epoch in each.hosts)

    def handle(self, event: Event) -> list[Instruction]:
        """Applies one event. Raises Conflict where the phase forbids what is asked, and then nothing has changed."""
        match event:
            case LoadAsked():
                return self._load(event)
            case SwapAsked():
                return self._swap(event)
            case RollbackAsked():
                return self._ask_rollback()
            case UnloadAsked():
                return self._unload()
            case ReplicasAsked():
                return self._scale(event.replicas)
            case RelocationAsked():
                return self._relocate(event.epoch)
            case Recovered():
                return self._recover(event)
            case Loaded():
                return self._loaded(event.epoch)
            case Healthy():
                return self._healthy(event.epoch)
            case Failed():
                return self._failed(event.epoch, event.error)
            case HostDied():
                return self._died(event)
            case Moved():
                return self._moved(event.revision)
            case Judged():
                return self._judged(event.revision)
            case Routed():
                return self._routed(event.revision)
            case StageFailed():
                return self._stage_failed(event)
            case Drained():
                return self._drained(event)
            case Expired():
                return self._expired(event.revision)
        assert_never(event)

    # -- what is asked

    def _load(self, event: LoadAsked) -> list[Instruction]:
        if self.phase != "empty":
            raise Conflict(f"{self.module} is {self._state()}: swap it to change its version")
        return self._prepare(Revision(self._number(), event.version, event.replicas, event.stateful), True)

    def _swap(self, event: SwapAsked) -> list[Instruction]:
        self._require_one_change("swap")
        todo = self._forget_previous()
        revision = Revision(self._number(), event.version, event.replicas, event.stateful)
        return todo + self._prepare(revision, event.reversible)

    def _ask_rollback(self) -> list[Instruction]:
        serving = self._require_one_change("roll back")
        previous = self.previous
        if previous is None or self.draining or not previous.ready:
            raise Conflict(f"{self.module} has no version before {serving.version} that is still warm")
        if serving.stateful and previous.stateful and not self.reversible:
            raise Conflict(f"{self.module} {previous.version} cannot read the state of {serving.version}")
        return self._return_to(previous, self._number())

    def _unload(self) -> list[Instruction]:
        serving = self._require_one_change("unload")
        ticket = self._number()
        todo = [Unroute(ticket), *self._forget_previous(ticket), *self._leave(serving, ticket, keeps_state=True)]
        self.serving = None
        return todo if ticket in self.leaving.values() else [*todo, Finished(ticket)]

    def _scale(self, replicas: int) -> list[Instruction]:
        serving = self.serving
        if serving is None:
            return []
        serving.wanted = replicas
        return self._let_surplus_go(serving) + self._start_missing(serving)

    def _let_surplus_go(self, revision: Revision) -> list[Instruction]:
        todo: list[Instruction] = []
        for epoch in revision.surplus():
            todo += self._let_go(epoch, is_ready=revision.hosts.pop(epoch) == "ready")
        return todo

    def _relocate(self, epoch: int) -> list[Instruction]:
        """One host more is prepared, and only when that is ready this one goes; nothing while anything else goes on.

        Where it has state nothing happens either: that is in one place, and moves with a change of version only.
        """
        serving = self.serving
        if serving is None or serving.stateful or self.phase != "serving":
            return []
        if epoch not in serving.hosts or len(serving.ready) != serving.wanted or serving.unready:
            return []
        comes = self._number()
        serving.hosts[comes], serving.relocation = "loading", Relocation(comes, goes=epoch)
        return [StartHost(comes, serving.number, serving.version, apart=True)]

    def _relocated(self, revision: Revision, epoch: int) -> list[Instruction]:
        """A host is ready: one whose place it takes goes, unless the new one is needed beside it by now."""
        relocation = revision.relocation
        if relocation is None or relocation.comes != epoch:
            return []
        revision.relocation = None
        if relocation.goes not in revision.hosts or len(revision.hosts) <= revision.wanted:
            return []
        return self._let_go(relocation.goes, is_ready=revision.hosts.pop(relocation.goes) == "ready")

    def _recover(self, event: Recovered) -> list[Instruction]:
        self.next_number = event.next_number
        todo: list[Instruction] = [StopHost(epoch) for epoch in event.dead]
        for epoch in event.others:
            todo += self._let_go(epoch, is_ready=True)
        if event.revision is None:
            return todo
        # How many there were is not kept: the scaler finds it again. One may be left over from a relocation.
        wanted = max(event.replicas, min(len(event.ready), event.most))
        serving = self.serving = Revision(event.revision, event.version, wanted, event.stateful)
        serving.hosts = dict.fromkeys(event.ready, "ready")
        # One before may have stopped them for a move of state that it did not bring to an end.
        todo += [Resume(epoch) for epoch in event.ready]
        return [*todo, *self._let_surplus_go(serving), *self._start_missing(serving, serving.backoff_s(0.0))]

    def _require_one_change(self, what: str) -> Revision:
        if self.serving is None:
            raise Conflict(f"{self.module} is {self._state()}: there is nothing to {what}")
        if self.candidate is not None or self.watching is not None:
            raise Conflict(f"{self.module} is {self._state()}: one change at a time")
        return self.serving

    def _state(self) -> str:
        return {"empty": "not loaded", "serving": "loaded"}.get(self.phase, self.phase)

    def _number(self) -> int:
        number, self.next_number = self.next_number, self.next_number + 1
        return number

    # -- preparing

    def _prepare(self, revision: Revision, reversible: bool) -> list[Instruction]:
        self.candidate = Candidate(revision, answer=revision.number, reversible=reversible)
        return self._start_missing(revision)

    def _start_missing(self, revision: Revision, after_s: float = 0.0) -> list[Instruction]:
        """A host that does not get its state from another goes on from what was kept."""
        restores = revision.stateful and (self.serving is None or self.serving is revision)
        todo: list[Instruction] = []
        for _ in range(revision.missing):
            epoch = self._number()
            revision.hosts[epoch] = "loading"
            todo.append(StartHost(epoch, revision.number, revision.version, restores, after_s))
        return todo

    def _loaded(self, epoch: int) -> list[Instruction]:
        revision = self._revision_of(epoch)
        if revision is None or revision.hosts[epoch] != "loading":
            return []
        revision.hosts[epoch] = "checking"
        return [CheckHealth(epoch)]

    def _healthy(self, epoch: int) -> list[Instruction]:
        revision = self._revision_of(epoch)
        if revision is None or revision.hosts[epoch] != "checking":
            return []
        revision.hosts[epoch] = "ready"
        candidate = self.candidate
        if candidate is None or candidate.revision is not revision:
            return self._relocated(revision, epoch)
        return self._prepared(candidate) if revision.is_complete else []

    def _prepared(self, candidate: Candidate) -> list[Instruction]:
        if self.serving is not None and _moves(candidate, self.serving):
            return self._move(candidate)
        # Not where it has state: what it were told there would be nobody's when it turned back.
        if self.serving is not None and self.serving.ready and self.tries and not candidate.revision.stateful:
            candidate.phase, candidate.was_tried = "canary", True
            return [Try(candidate.revision.number)]
        return self._switch(candidate)

    def _move(self, candidate: Candidate) -> list[Instruction]:
        assert self.serving is not None
        candidate.phase = "moving"
        sources = self.serving.ready
        # Without one, the state is what was kept: nothing must start to change that now.
        dropped = self.serving.unready
        for epoch in dropped:
            del self.serving.hosts[epoch]
        source = sources[0] if sources else None
        return [
            *(StopHost(epoch) for epoch in dropped),
            MoveState(candidate.revision.number, source, candidate.revision.ready[0]),
        ]

    def _moved(self, revision: int) -> list[Instruction]:
        candidate = self._candidate_in("moving", revision)
        return self._switch(candidate) if candidate is not None else []

    def _judged(self, revision: int) -> list[Instruction]:
        candidate = self._candidate_in("canary", revision)
        if candidate is not None:
            return self._switch(candidate)
        if self.watching is None or self.serving is None or self.serving.number != revision:
            return []
        return self._settle()

    def _switch(self, candidate: Candidate) -> list[Instruction]:
        candidate.phase = "switching"
        return [Route(candidate.revision.number)]

    # -- switching

    def _routed(self, number: int) -> list[Instruction]:
        candidate = self._candidate_in("switching", number)
        if candidate is None:
            return []
        old, self.serving, self.candidate = self.serving, candidate.revision, None
        if old is None:
            return [Finished(candidate.answer), *self._replace(self.serving)]
        moved = _moves(candidate, old)
        if not self.serving.ready and old.ready and not moved and not candidate.is_return:
            # It died while calls were being moved to it: they go back to the old one, which is still there.
            self.candidate = Candidate(old, candidate.answer, "switching", is_return=True, error=self._death())
            return [Route(old.number)]
        # What was retired for a move of state, or kept warm, takes calls again: now that it is kept, and not before.
        todo: list[Instruction] = [Resume(epoch) for epoch in self.serving.ready if candidate.is_return]
        return [*todo, *self._supersede(old, candidate, moved), *self._replace(self.serving)]

    def _supersede(self, old: Revision, candidate: Candidate, moved: bool) -> list[Instruction]:
        """What served is emptied: to be kept warm, or to end where it failed or there is nothing left of it."""
        if candidate.error is not None:
            return [*self._leave(old), RolledBack(candidate.answer, candidate.error)]
        todo: list[Instruction] = [StopHost(epoch) for epoch in old.unready]
        old.hosts = dict.fromkeys(old.ready, "ready")
        if not old.hosts:
            return [*todo, Finished(candidate.answer)]
        self.previous, self.reversible = old, candidate.reversible
        self.draining, self.finishing = set(old.hosts), candidate.answer
        if moved and self.tries and candidate.reversible and not candidate.is_return:
            self.watching = candidate.answer
        # Without its state it is no use to anybody who asks for that version.
        return [*todo, *(Retire(epoch, whole=old.stateful) for epoch in old.ready)]

    def _emptied(self) -> list[Instruction]:
        """The last call on the version before has ended."""
        if self.watching is not None and self.serving is not None:
            return [Try(self.serving.number)]
        return self._settle()

    def _settle(self) -> list[Instruction]:
        """The change is done; a way back is kept for a while."""
        number, self.finishing, self.watching = self.finishing, None, None
        todo: list[Instruction] = [Finished(number)] if number is not None else []
        if self.previous is not None and not self.previous.hosts:
            self.previous = None
        return [*todo, KeepWarm(self.previous.number)] if self.previous is not None else todo

    def _expired(self, number: int) -> list[Instruction]:
        is_warm = self.previous is not None and self.previous.number == number and not self.draining
        return self._forget_previous() if is_warm and self.watching is None else []

    def _forget_previous(self, ticket: int | None = None) -> list[Instruction]:
        previous, self.previous = self.previous, None
        number, self.finishing = self.finishing, None
        self.draining.clear()
        todo: list[Instruction] = [Finished(number)] if number is not None else []
        return todo + (self._leave(previous, ticket) if previous is not None else [])

    # -- going back

    def _return_to(self, previous: Revision, answer: int, error: NoodleError | None = None) -> list[Instruction]:
        assert self.serving is not None
        self.previous, self.finishing, self.watching = None, None, None
        candidate = self.candidate = Candidate(previous, answer, is_return=True, error=error)
        if _moves(candidate, self.serving):
            return self._move(candidate)
        return self._switch(candidate)

    def _stage_failed(self, event: StageFailed) -> list[Instruction]:
        candidate = self.candidate
        if candidate is not None and candidate.revision.number == event.revision:
            return self._candidate_failed(candidate, event.error)
        if self.watching is not None and self.serving is not None and self.serving.number == event.revision:
            return self._watched_failed(event.error)
        return []

    def _candidate_failed(self, candidate: Candidate, error: NoodleError) -> list[Instruction]:
        if not candidate.is_return:
            return self._roll_back(candidate, error)
        if candidate.phase == "switching":
            return [Route(candidate.revision.number, candidate.revision.backoff_s(0.0))]
        return self._stay(candidate, error)

    def _watched_failed(self, error: NoodleError) -> list[Instruction]:
        if self.previous is None or not self.previous.ready or self.watching is None:
            return self._settle()
        return self._return_to(self.previous, self.watching, error)

    def _roll_back(self, candidate: Candidate, error: NoodleError) -> list[Instruction]:
        """The new revision ends, and what serves goes on."""
        self.candidate = None
        todo = self._leave(candidate.revision, may_have_calls=candidate.was_tried)
        todo.append(RolledBack(candidate.answer, error))
        return todo + self._go_on()

    def _stay(self, candidate: Candidate, error: NoodleError) -> list[Instruction]:
        """The way back is barred: what serves goes on."""
        self.candidate, self.previous = None, candidate.revision
        told: Instruction = Finished(candidate.answer)
        if candidate.error is None:
            told = RolledBack(candidate.answer, error)
        return [told, *self._settle(), *self._go_on()]

    def _go_on(self) -> list[Instruction]:
        """Hosts that were stopped for a move of state take calls again; those that died meanwhile are replaced."""
        if self.serving is None:
            return []
        resumed: list[Instruction] = [Resume(epoch) for epoch in self.serving.ready if self.serving.stateful]
        return resumed + self._replace(self.serving)

    # -- ends

    def _failed(self, epoch: int, error: NoodleError) -> list[Instruction]:
        candidate = self.candidate
        if candidate is not None and epoch in candidate.revision.hosts:
            return self._roll_back(candidate, error) if candidate.phase == "preparing" else []
        serving = self.serving
        if serving is None or epoch not in serving.hosts or serving.hosts[epoch] == "ready":
            return []
        del serving.hosts[epoch]
        return [StopHost(epoch), *self._replace(serving)]

    def _died(self, event: HostDied) -> list[Instruction]:
        epoch = event.epoch
        if epoch in self.leaving:
            return self._gone(epoch, 0.0)
        if self.previous is not None and epoch in self.previous.hosts:
            return self._previous_died(self.previous, epoch)
        if self.candidate is not None and epoch in self.candidate.revision.hosts:
            return self._candidate_died(self.candidate, epoch)
        if self.serving is not None and epoch in self.serving.hosts:
            return self._serving_died(self.serving, event)
        return []

    def _previous_died(self, previous: Revision, epoch: int) -> list[Instruction]:
        del previous.hosts[epoch]
        todo: list[Instruction] = [StopHost(epoch)]
        if epoch in self.draining:
            self.draining.discard(epoch)
            return todo if self.draining else todo + self._emptied()
        if not previous.hosts and self.watching is None:
            self.previous = None
        return todo

    def _candidate_died(self, candidate: Candidate, epoch: int) -> list[Instruction]:
        if candidate.phase == "switching":
            # The switch is being kept; what to do depends on how that ends.
            del candidate.revision.hosts[epoch]
            return [StopHost(epoch)]
        if candidate.is_return:
            del candidate.revision.hosts[epoch]
            return [StopHost(epoch), *self._stay(candidate, self._death())]
        return self._roll_back(candidate, self._death())

    def _serving_died(self, serving: Revision, event: HostDied) -> list[Instruction]:
        del serving.hosts[event.epoch]
        todo: list[Instruction] = [StopHost(event.epoch)]
        if self.watching is not None and not self.draining:
            return todo + self._watched_died(serving, event.lived_s)
        return todo + self._replace(serving, event.lived_s)

    def _watched_died(self, serving: Revision, lived_s: float) -> list[Instruction]:
        if self.previous is None or not self.previous.ready:
            return self._replace(serving, lived_s)
        return self._watched_failed(self._death())

    def _replace(self, revision: Revision, lived_s: float = 0.0) -> list[Instruction]:
        """Starts what is missing, unless the state of it is on its way elsewhere."""
        candidate = self.candidate
        if not revision.missing or (candidate is not None and self._is_superseding(candidate, revision)):
            return []
        return self._start_missing(revision, revision.backoff_s(lived_s))

    def _is_superseding(self, candidate: Candidate, revision: Revision) -> bool:
        is_late = candidate.phase in ("moving", "switching")
        return is_late and (candidate.is_return or _moves(candidate, revision))

    def _drained(self, event: Drained) -> list[Instruction]:
        if event.epoch in self.draining:
            self.draining.discard(event.epoch)
            return [] if self.draining else self._emptied()
        # It may have been told to take no calls of one kind, and then of any: the answer to the first is late news.
        return self._gone(event.epoch, LINGER_S) if event.whole and event.epoch in self.leaving else []

    def _gone(self, epoch: int, linger_s: float) -> list[Instruction]:
        ticket = self.leaving.pop(epoch)
        todo: list[Instruction] = [StopHost(epoch, linger_s if ticket is None else 0.0)]
        if ticket is not None and ticket not in self.leaving.values():
            todo.append(Finished(ticket))
        return todo

    def _leave(
        self, revision: Revision, ticket: int | None = None, may_have_calls: bool = True, keeps_state: bool = False
    ) -> list[Instruction]:
        """Every host of it is emptied and ended."""
        todo: list[Instruction] = []
        for epoch, stage in sorted(revision.hosts.items()):
            is_emptied = stage == "ready" and may_have_calls
            todo += self._let_go(epoch, is_emptied, ticket, keeps_state and revision.stateful)
        revision.hosts = {}
        return todo

    def _let_go(
        self, epoch: int, is_ready: bool, ticket: int | None = None, keeps_state: bool = False
    ) -> list[Instruction]:
        if not is_ready:
            return [StopHost(epoch)]
        self.leaving[epoch] = ticket
        return [Retire(epoch, whole=True, keeps_state=keeps_state)]

    # -- looking

    def _revision_of(self, epoch: int) -> Revision | None:
        candidate = self.candidate.revision if self.candidate is not None else None
        return next((each for each in (self.serving, candidate) if each is not None and epoch in each.hosts), None)

    def _candidate_in(self, phase: str, number: int) -> Candidate | None:
        candidate = self.candidate
        is_it = candidate is not None and candidate.revision.number == number and candidate.phase == phase
        return candidate if is_it else None

    def _death(self) -> ModuleFailed:
        return ModuleFailed(self.module, "its host died")


def _moves(candidate: Candidate, serving: Revision) -> bool:
    """Whether state goes from what serves to the candidate: then there is never more than one place for calls."""
    return candidate.revision.stateful and serving.stateful
