"""Membership: which nodes there are, and how fresh our news of each is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import field_serializer

from noodle_ray.base_model import Model
from noodle_ray.errors import NotFound
from noodle_ray.nodes.metrics import ResourceMetrics
from noodle_ray.resources import NodeResources

Health = Literal["alive", "suspect", "dead"]

NAME_LABEL = "noodle-ray.io/name"
"""The Ray node label that holds the name a person gave the node."""

PRETENDED_LABEL = "noodle-ray.io/pretended"
GATEWAY_LABEL = "noodle-ray.io/gateway"
"""The Ray node label of a node whose resources were declared by hand: a demonstration's GPUs."""

SUSPECT_AFTER_HEARTBEATS = 1.5
"""An agent that has been silent for this many heartbeat intervals is suspected: nothing new is placed on its node."""


HISTORY = 20
"""Changes of a node's state that are remembered."""


class StateChange(Model):
    """When a node came to be in a state, and why."""

    at: float
    state: str
    reason: str


class Node(Model):
    """A node as the manager knows it. `pretended`: its resources were declared by hand for a demonstration.

    `given_labels` are those that it was given here; they are in `resources` too, beside Ray's own.
    `drain_until`: it is being drained, and whatever is left on it then ends; `history`: its last changes, oldest first.
    """

    id: str
    name: str
    address: str
    resources: NodeResources
    state: Health = "alive"
    cordoned: bool = False
    drain_until: float | None = None
    pretended: bool = False
    given_labels: dict[str, str] = {}  # noqa: RUF012  (pydantic copies it)
    joined_at: float
    heard_at: float
    metrics: ResourceMetrics | None = None
    history: tuple[StateChange, ...] = ()

    @field_serializer("resources")
    def _in_a_persons_units(self, resources: NodeResources) -> dict[str, Any]:
        return resources.to_json()

    @property
    def is_open(self) -> bool:
        """Whether new work may be placed there."""
        return self.state == "alive" and not self.cordoned and self.drain_until is None


@dataclass(frozen=True, slots=True)
class Silence:
    """How long an agent may be silent, in seconds."""

    suspect_after_s: float
    dead_after_s: float

    def judge(self, silent_for_s: float) -> Health:
        if silent_for_s > self.dead_after_s:
            return "dead"
        return "suspect" if silent_for_s > self.suspect_after_s else "alive"


class Membership:
    """The nodes, by id. A dead node stays listed until it leaves Ray or another manager starts."""

    def __init__(self, silence: Silence) -> None:
        self._silence = silence
        self._nodes: dict[str, Node] = {}

    def nodes(self) -> list[Node]:
        return list(self._nodes.values())

    def node(self, node_id: str) -> Node:
        """Raises NotFound."""
        if node_id not in self._nodes:
            raise NotFound("node", node_id)
        return self._nodes[node_id]

    def knows(self, node_id: str) -> bool:
        return node_id in self._nodes

    def put(self, node: Node) -> Node:
        self._nodes[node.id] = node
        return node

    def change(self, node_id: str, **fields: Any) -> Node:
        return self.put(self.node(node_id).model_copy(update=fields))

    def note(self, node_id: str, word: str, reason: str, at: float, **fields: Any) -> Node:
        """Changes fields, and remembers what that means and why."""
        history = (*self.node(node_id).history, StateChange(at=at, state=word, reason=reason))[-HISTORY:]
        return self.change(node_id, history=history, **fields)

    def forget(self, node_id: str) -> None:
        self._nodes.pop(node_id, None)

    def overdue(self, now: float) -> list[tuple[Node, Health]]:
        """The nodes whose state should change because of their agent's silence, with the state it should be."""
        judged = [(node, self._silence.judge(now - node.heard_at)) for node in self._nodes.values()]
        return [(node, health) for node, health in judged if node.state != "dead" and health != node.state]
