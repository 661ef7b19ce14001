"""/api/distributed/nodes: the nodes of the cluster, what happens to them, and whether work may be placed there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Body, Header, Query
from pydantic import Field
from starlette.responses import StreamingResponse

from noodle_ray.base_model import Model
from noodle_ray.errors import Conflict, NoodleError, NotFound
from noodle_ray.gateway.bodies import UNREADABLE, JsonRoute
from noodle_ray.gateway.errors import documented
from noodle_ray.gateway.parts import NodeId, PortsOf
from noodle_ray.gateway.ports import Nodes
from noodle_ray.nodes.event_log import ClusterEvent
from noodle_ray.nodes.membership import Node
from noodle_ray.nodes.metrics import ResourceMetrics

log = structlog.get_logger()
router = APIRouter(prefix="/api/distributed/nodes", tags=["nodes"], route_class=JsonRoute)

KEEP_ALIVE_S = 15.0
"""How often a stream on which nothing happens sends a comment: whoever is between must not take it for dead."""

EVENT_STREAM = "text/event-stream"


class DrainRequest(Model):
    """How long what runs on the node has to move, in seconds; what is left then ends, or is held anew elsewhere."""

    deadline_s: Annotated[float, Field(ge=0, le=86_400)] = 60.0


Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$")]
LabelName = Annotated[str, Field(min_length=1, max_length=253)]


class NodeUpdate(Model):
    """Another name, or all the labels that the node is to have beside Ray's; what is left out stays."""

    name: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    labels: dict[LabelName, Label] | None = None


EventNumber = Annotated[int, Field(ge=0, le=2**53)]
Since = Annotated[EventNumber, Query(description="Only events after this number; 0: all that are remembered.")]
LastEventId = Annotated[
    EventNumber | None,
    Header(alias="Last-Event-ID", description="What a reconnecting browser saw last; counts before `since`."),
]

_DRAINS: Any = {
    "within a minute": {"value": {"deadline_s": 60}},
    "at once": {"value": {"deadline_s": 0}},
}
_UPDATES: Any = {
    "a failure domain": {"value": {"labels": {"zone": "a"}}},
    "another name": {"value": {"name": "rack-3"}},
}
_STREAM: Any = {
    200: {
        "description": "`id` is the event's number, `event` its kind, `data` all of it as JSON.",
        "content": {
            EVENT_STREAM: {
                "schema": {"type": "string"},
                "example": 'id: 7\nevent: node_dead\ndata: {"number": 7, "kind": "node_dead", …}\n\n',
            }
        },
    }
}


@router.get("", summary="List the nodes")
async def list_nodes(ports: PortsOf) -> Sequence[Node]:
    """Every node with its resources, state and last measurement."""
    return await ports.nodes.nodes()


# Before the routes of one node, or "events" would be taken for a node's id.
@router.get(
    "/events", summary="Follow what happens", response_class=StreamingResponse, responses=_STREAM | documented(NotFound)
)
async def follow_events(ports: PortsOf, since: Since = 0, last_event_id: LastEventId = None) -> StreamingResponse:
    """Server-sent events, from those that are remembered on, until the client goes away.

    Numbers start anew when the manager does; a number that it does not know gets all that it remembers.
    """
    after = since if last_event_id is None else last_event_id
    first = await ports.nodes.events(after, 0.0)  # whatever fails here still has an answer of its own
    return StreamingResponse(_stream(ports.nodes, after, first), media_type=EVENT_STREAM)


async def _stream(nodes: Nodes, after: int, events: Sequence[ClusterEvent]) -> AsyncIterator[str]:
    """The events as they come. Where the log is away for good the stream ends, and the client connects again."""
    yield ": what happens from here on\n\n"
    while True:
        for event in events:
            yield _as_text(event)
            after = event.number  # not the largest: another manager counts from one
        try:
            events = await nodes.events(after, KEEP_ALIVE_S)
        except NoodleError as error:
            log.warning("events_ended", error=str(error))
            return
        if not events:
            yield ": still here\n\n"


def _as_text(event: ClusterEvent) -> str:
    return f"id: {event.number}\nevent: {event.kind}\ndata: {event.model_dump_json()}\n\n"


@router.get("/{node_id}", summary="One node", responses=documented(NotFound))
async def read_node(ports: PortsOf, node_id: NodeId) -> Node:
    return await ports.nodes.node(node_id)


@router.patch("/{node_id}", summary="Rename or label a node", responses=UNREADABLE | documented(NotFound, Conflict))
async def update(
    ports: PortsOf, node_id: NodeId, update: Annotated[NodeUpdate, Body(openapi_examples=_UPDATES)]
) -> Node:
    """Labels count for what is placed from now on. Ray's own cannot be changed (409)."""
    return await ports.nodes.update(node_id, update.name, update.labels)


@router.get("/{node_id}/metrics", summary="What a node's agent measured of late", responses=documented(NotFound))
async def read_metrics(ports: PortsOf, node_id: NodeId) -> Sequence[ResourceMetrics]:
    """Oldest first."""
    return await ports.nodes.metrics(node_id)


@router.post("/{node_id}/cordon", summary="Place nothing new on a node", responses=documented(NotFound))
async def cordon(ports: PortsOf, node_id: NodeId) -> Node:
    """What runs there goes on running."""
    return await ports.nodes.cordon(node_id, True)


@router.post("/{node_id}/uncordon", summary="Open a node again", responses=documented(NotFound))
async def uncordon(ports: PortsOf, node_id: NodeId) -> Node:
    """Also calls its draining off."""
    return await ports.nodes.cordon(node_id, False)


@router.post("/{node_id}/drain", summary="Empty a node", responses=UNREADABLE | documented(NotFound))
async def drain(
    ports: PortsOf, node_id: NodeId, request: Annotated[DrainRequest, Body(openapi_examples=_DRAINS)]
) -> Node:
    """Places nothing new there and moves what is movable; the rest fares at the deadline as if the node had died."""
    return await ports.nodes.drain(node_id, request.deadline_s)
