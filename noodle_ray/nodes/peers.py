"""Peers: how a node's agent watches other nodes, as a state machine in that agent's own time.

Every agent sends each node that it watches a probe at a short interval, twice as often while an answer is missing.
Whoever has not answered for long enough is silent; whose agent's port is closed has lost its agent, and whose raylet's
port is closed too is gone. Only news is told, and silence again and again, for the manager may have been restarted.
Source of the scheme: SWIM (Das, Gupta, Motivala, DSN 2002), with the manager in the place of gossip.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

SAID_AGAIN_AFTER_S = 1.0
"""A silence that lasts is told this often."""

OWN_STALL_S = 1.0
"""An agent that was itself held up for this long has heard nothing, whoever spoke: the time does not count."""

What = Literal["silent", "heard", "agent gone", "gone"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a node's agent answers probes (UDP), and where its raylet listens (TCP)."""

    address: str
    port: int
    raylet_port: int


@dataclass(frozen=True, slots=True)
class Peer:
    """A node to watch or to probe."""

    node_id: str
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class Observation:
    """News of a watched node: silent for so many seconds, heard again, its agent gone, or all of it gone."""

    node_id: str
    what: What
    silent_for_s: float = 0.0


@dataclass(slots=True)
class _Watched:
    peer: Peer
    heard_at: float
    probed_at: float = float("-inf")
    owes_answer: bool = False
    said: What | Literal["nothing"] = "heard"
    said_at: float = float("-inf")


class PeerWatch:
    """What one agent knows of the nodes that it watches. Times are seconds of a clock that never jumps."""

    def __init__(self, suspect_after_s: float) -> None:
        self._suspect_after_s = suspect_after_s
        self._watched: dict[str, _Watched] = {}
        self._looked_at: float | None = None

    @property
    def peers(self) -> tuple[Peer, ...]:
        return tuple(watched.peer for watched in self._watched.values())

    def watch(self, peers: Iterable[Peer], now: float) -> None:
        """Watches these from now on; of those that were watched before, all that is known stays."""
        before = self._watched
        self._watched = {
            peer.node_id: before[peer.node_id]
            if peer.node_id in before and before[peer.node_id].peer == peer
            else _Watched(peer, now)
            for peer in peers
        }

    def due(self, now: float, interval_s: float) -> tuple[str, ...]:
        """Whom to probe now: each once in an interval, and again after half of it where no answer has come.

        To be called every half interval; whoever is named counts as probed.
        """
        due = []
        for node_id, watched in self._watched.items():
            # Three quarters, for calls do not come at the very half.
            if watched.owes_answer or now - watched.probed_at >= 0.75 * interval_s:
                watched.probed_at, watched.owes_answer = now, True
                due.append(node_id)
        return tuple(due)

    def answered(self, node_id: str, now: float) -> Observation | None:
        """An answer came. Gives what is worth telling."""
        watched = self._watched.get(node_id)
        if watched is None:
            return None
        watched.heard_at, watched.owes_answer = now, False
        if watched.said == "heard":
            return None
        watched.said, watched.said_at = "heard", now
        return Observation(node_id, "heard")

    def closed(self, node_id: str, raylet_too: bool, now: float) -> Observation | None:
        """The port of its agent is closed, or that of its raylet too. Gives what is worth telling."""
        watched = self._watched.get(node_id)
        what: What = "gone" if raylet_too else "agent gone"
        if watched is None or (watched.said == what and now - watched.said_at < SAID_AGAIN_AFTER_S):
            return None
        watched.said, watched.said_at = what, now
        return Observation(node_id, what, now - watched.heard_at)

    def look(self, now: float) -> tuple[Observation, ...]:
        """Whose silence is worth telling; to be called once in each interval."""
        stalled_s = 0.0 if self._looked_at is None else now - self._looked_at
        self._looked_at = now
        if stalled_s >= OWN_STALL_S:
            for watched in self._watched.values():
                watched.heard_at = min(watched.heard_at + stalled_s, now)
                watched.said = "nothing"  # who held this agent for dead is to learn that it hears others
        return tuple(
            observation
            for watched in self._watched.values()
            if (observation := self._silence(watched, now)) is not None
        )

    def _silence(self, watched: _Watched, now: float) -> Observation | None:
        silent_for_s = now - watched.heard_at
        if silent_for_s < self._suspect_after_s or watched.said in ("agent gone", "gone"):
            return None
        if watched.said == "silent" and now - watched.said_at < SAID_AGAIN_AFTER_S:
            return None
        watched.said, watched.said_at = "silent", now
        return Observation(watched.peer.node_id, "silent", silent_for_s)
