"""The detector: from what agents observe of each other to which node is suspected, and which is dead.

A node that one agent does not hear any more is suspected at once. It is dead when two others, asked to probe it, got
no answer either, while all of them went on living; or at once when its ports are closed, for then its kernel says so.
One agent that hears it is enough to clear it. With fewer than two others only the outer limit decides. Whoever is
silent for two others is believed of a third only if one of them says the same: it may be the one that hears nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from noodle_ray.nodes.peers import Endpoint, Observation, Peer

WATCHERS = 3
"""Agents that watch each node: one that hears nothing is enough to suspect it."""

PROBERS = 3
VOTES = 2
"""Agents that are asked to probe a suspected node, and how many of them must fail."""

WITNESSES = 2
"""Watchers for whom a node must be silent, if so many watch it, for one round of probes to be enough."""

ROUND_S = 2.5
"""After this long without a verdict others are asked."""

FRESH_S = 3.0
"""A silence that was not said again for this long is over, or its witness is: probes that fail then are no votes."""

SETTLED_S = 0.8
"""How long a watcher must have heard nothing, since it first said so, to be a witness of more than a stall."""

DEAF_S = 10.0
"""For how long an agent that does not hear what others reach is not listened to about it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a node is from now on, and why."""

    node_id: str
    state: Literal["alive", "suspect", "dead"]
    reason: str


@dataclass(slots=True)
class _Silence:
    """One watcher's: when it first said that it hears nothing, and when last."""

    since: float
    said_at: float


@dataclass(slots=True)
class _Case:
    """One suspected node: who hears nothing of it, and the rounds of probes."""

    silent_for: dict[str, _Silence] = field(default_factory=dict)
    asked_at: float = float("-inf")
    failed: set[str] = field(default_factory=set)
    rounds: int = 0

    @property
    def said_at(self) -> float:
        return max((silence.said_at for silence in self.silent_for.values()), default=float("-inf"))

    def witnesses(self, now: float) -> set[str]:
        """Who has said of late that it hears nothing."""
        return {by for by, silence in self.silent_for.items() if now - silence.said_at <= FRESH_S}


class Detector:
    """Verdicts from observations of agents, who watch each other in a ring."""

    def __init__(self) -> None:
        self._endpoints: dict[str, Endpoint] = {}
        self._cases: dict[str, _Case] = {}
        self._ring: list[str] = []
        self._places: dict[str, int] = {}
        self._is_stale = False
        self._watching: dict[str, tuple[Peer, ...]] = {}
        self._to_tell: set[str] = set()
        self._deaf: dict[tuple[str, str], float] = {}
        self._agentless: dict[str, float] = {}

    def started(self, node_id: str, endpoint: Endpoint) -> None:
        """Its agent runs there, perhaps anew."""
        self._endpoints[node_id] = endpoint
        self._close(node_id)
        place = self._places.get(node_id)
        if place is None:
            self._is_stale = True
        else:  # those before it on the ring watch it, and it does not know any more whom it watches
            self._to_tell |= {self._ring[place - step] for step in range(self._reach + 1)}

    def forget(self, node_id: str) -> None:
        """The node has left."""
        self._endpoints.pop(node_id, None)
        self._close(node_id)
        self._is_stale = True

    def _close(self, node_id: str) -> None:
        self._cases.pop(node_id, None)
        self._agentless.pop(node_id, None)
        self._deaf = {pair: until for pair, until in self._deaf.items() if node_id not in pair}

    def forgive_stall(self) -> None:
        """The clock was set: who was asked when, and who is not listened to until when, is not known any more."""
        self._deaf.clear()
        self._agentless.clear()
        for case in self._cases.values():
            case.asked_at = float("-inf")
            for silence in case.silent_for.values():
                silence.said_at = float("-inf")

    def endpoint(self, node_id: str) -> Endpoint | None:
        """Where its agent answers, as far as it has said so."""
        return self._endpoints.get(node_id)

    # -- who watches whom

    @property
    def _reach(self) -> int:
        """How many each agent watches, and is watched by."""
        return min(WATCHERS, max(len(self._ring) - 1, 0))

    def agents_changed(self) -> None:
        """Others are alive than before: the ring is to be made anew."""
        self._is_stale = True

    def new_watches(self, agents: Callable[[], Iterable[str]]) -> Iterator[tuple[str, tuple[Peer, ...]]]:
        """Who is to be told whom to watch. `agents` gives all that are on the ring; it is asked where that changed."""
        if self._is_stale:
            self._is_stale = False
            self._make_ring(agents())
        told, self._to_tell = sorted(self._to_tell), set()
        for by in told:
            if by in self._places:
                self._watching[by] = self._peers_of(by)
                yield by, self._watching[by]

    def _make_ring(self, agents: Iterable[str]) -> None:
        self._ring = sorted((node_id for node_id in agents if node_id in self._endpoints), key=_place)
        self._places = {node_id: place for place, node_id in enumerate(self._ring)}
        self._watching = {by: peers for by, peers in self._watching.items() if by in self._places}
        self._to_tell |= {by for by in self._ring if self._watching.get(by) != self._peers_of(by)}

    def _peers_of(self, by: str) -> tuple[Peer, ...]:
        ring, place = self._ring, self._places[by]
        watched = (ring[(place + step) % len(ring)] for step in range(1, self._reach + 1))
        return tuple(Peer(node_id, self._endpoints[node_id]) for node_id in watched)

    def tell_again(self, by: str) -> None:
        """What it was told may not have arrived: it is told once more whom to watch."""
        self._to_tell.add(by)

    # -- what they say

    def observed(self, by: str, seen: Observation, now: float) -> list[Verdict]:
        """Takes an agent's observation; gives the verdicts that follow, in their order."""
        node_id = seen.node_id
        if node_id not in self._endpoints:
            return []
        match seen.what:
            case "heard":
                self._deaf.pop((by, node_id), None)
                self._cases.pop(node_id, None)
                return [Verdict(node_id, "alive", f"heard by {_short(by)}")]
            case "gone":
                self._cases.pop(node_id, None)
                return [Verdict(node_id, "dead", f"its raylet's port is closed, says {_short(by)}")]
            case "agent gone":
                self._agentless[node_id] = now
                return [Verdict(node_id, "suspect", f"its agent's port is closed, says {_short(by)}")]
            case "silent":
                if self._deaf.get((by, node_id), float("-inf")) > now:
                    return []  # others hear it: it is their link that is cut
                self._note_silence(by, node_id, now)
                suspect = Verdict(node_id, "suspect", f"silent for {seen.silent_for_s:.1f} s, says {_short(by)}")
                return [suspect, *self._clear_after(by, now), *self._clear_after(node_id, now)]

    def _note_silence(self, by: str, node_id: str, now: float) -> None:
        case = self._cases.setdefault(node_id, _Case())
        if now - case.said_at > FRESH_S:  # another silence: probes that were asked for before say nothing of it
            case.asked_at, case.failed = float("-inf"), set()
        case.silent_for.setdefault(by, _Silence(now, now)).said_at = now

    def _clear_after(self, by: str, now: float) -> Iterator[Verdict]:
        """Clears those that only `by` does not hear, where two others do not hear `by`."""
        own = self._cases.get(by)
        if own is None or len(own.witnesses(now)) < WITNESSES:
            return
        for peer in self._watching.get(by, ()):
            case = self._cases.get(peer.node_id)
            if case is not None and case.witnesses(now) == {by}:
                del self._cases[peer.node_id]
                self._deaf[by, peer.node_id] = now + DEAF_S
                yield Verdict(peer.node_id, "alive", f"silent for {_short(by)} alone, whom others do not hear either")

    def probed(self, node_id: str, by: str, reached: bool, now: float) -> Verdict | None:
        """Takes the outcome of a probe; gives the verdict, where there is one now."""
        case = self._cases.get(node_id)
        if case is None:
            return None
        if reached:
            del self._cases[node_id]
            self._deaf |= {(watcher, node_id): now + DEAF_S for watcher in case.silent_for.keys() - {by}}
            return Verdict(node_id, "alive", f"reached by {_short(by)}")
        # Where only the agent is gone, nobody is there to answer, and its kernel has just said that the node lives.
        is_agentless = now - self._agentless.get(node_id, float("-inf")) <= FRESH_S
        if is_agentless or now - case.said_at > FRESH_S:
            return None
        case.failed.add(by)
        if len(case.failed) < VOTES or (case.rounds < 2 and self._is_doubtful(node_id, case, now)):
            return None
        del self._cases[node_id]
        return Verdict(node_id, "dead", f"not reached by {' and '.join(_short(one) for one in sorted(case.failed))}")

    def _is_doubtful(self, node_id: str, case: _Case, now: float) -> bool:
        """Whether too few hear nothing for it to be more than a cut link and a short stall: then it is probed again.

        Who was deaf to it before does not count, nor does who has only just begun to hear nothing.
        """
        settled = [by for by, silence in case.silent_for.items() if now - silence.since >= SETTLED_S]
        witnesses = sum((by, node_id) not in self._deaf for by in settled)
        return witnesses < max(1, min(WITNESSES, self._reach))

    def due_probes(self, is_alive: Callable[[str], bool], now: float) -> Iterator[tuple[Peer, tuple[str, ...]]]:
        """Who is to be probed now, and by whom: agents of nodes that are alive."""
        for node_id, case in self._cases.items():
            if now - case.asked_at < ROUND_S:
                continue
            probers = [one for one in self._ring if one != node_id and is_alive(one)]
            if len(probers) < VOTES:
                continue
            first = int(_place(f"{node_id}{case.rounds}"), 16) % len(probers)
            chosen = tuple((probers * 2)[first : first + min(PROBERS, len(probers))])
            case.asked_at, case.failed = now, set()
            case.rounds += 1
            yield Peer(node_id, self._endpoints[node_id]), chosen


@lru_cache(maxsize=100_000)
def _place(node_id: str) -> str:
    """A node's place on the ring: the same for everybody, whatever the order in which nodes joined."""
    return hashlib.blake2b(node_id.encode(), digest_size=8).hexdigest()


def _short(node_id: str) -> str:
    return node_id[:8]
