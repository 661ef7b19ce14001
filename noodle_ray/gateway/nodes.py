"""/api/distributed/nodes: the nodes of the cluster, and whether new work may be placed on them."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter

from noodle_ray.errors import NotFound
from noodle_ray.gateway.bodies import JsonRoute
from noodle_ray.gateway.errors import documented
from noodle_ray.gateway.parts import NodeId, PortsOf
from noodle_ray.nodes.membership import Node

router = APIRouter(prefix="/api/distributed/nodes", tags=["nodes"], route_class=JsonRoute)


@router.get("", summary="List the nodes")
async def list_nodes(ports: PortsOf) -> Sequence[Node]:
    """Every node with its resources, state and last measurement."""
    return await ports.nodes.nodes()


@router.get("/{node_id}", summary="One node", responses=documented(NotFound))
async def read_node(ports: PortsOf, node_id: NodeId) -> Node:
    return await ports.nodes.node(node_id)


@router.post("/{node_id}/cordon", summary="Place nothing new on a node", responses=documented(NotFound))
async def cordon(ports: PortsOf, node_id: NodeId) -> Node:
    """What runs there goes on running."""
    return await ports.nodes.cordon(node_id, True)


@router.post("/{node_id}/uncordon", summary="Open a node again", responses=documented(NotFound))
async def uncordon(ports: PortsOf, node_id: NodeId) -> Node:
    return await ports.nodes.cordon(node_id, False)
