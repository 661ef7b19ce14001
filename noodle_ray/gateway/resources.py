"""/api/distributed/resources: what the fleet has, and the allocations that hold it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Body, Response
from pydantic import Field

from noodle_ray.base_model import Model
from noodle_ray.errors import DoesNotFit, NotFound
from noodle_ray.gateway.bodies import UNREADABLE, JsonRoute
from noodle_ray.gateway.errors import documented
from noodle_ray.gateway.parts import AllocationId, PortsOf
from noodle_ray.placement.allocation import Allocation
from noodle_ray.placement.planner import Explanation
from noodle_ray.resources import Demand

router = APIRouter(prefix="/api/distributed/resources", tags=["resources"], route_class=JsonRoute)

OWNER = "http"
"""The owner of what is held over HTTP: nobody's job ends with it, so its lease has a timer."""


class AllocationRequest(Model):
    """A demand to hold, for `lease_s` seconds at a time: renew it before they are over."""

    demand: Demand
    policy: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    lease_s: Annotated[float, Field(ge=1, le=86_400)] = 60.0


_EXAMPLES: Any = {
    "half a GPU": {"value": {"demand": {"cpus": 1, "gpu_share": 0.5, "memory": "2GiB"}}},
    "two CPUs for an hour": {"value": {"demand": {"cpus": 2}, "lease_s": 3600}},
}


@router.get("", summary="Totals of the fleet")
async def read_totals(ports: PortsOf) -> dict[str, Any]:
    """For each resource what there is in all, what allocations hold, what others use, and what is free."""
    return await ports.resources.totals()


@router.get("/allocations", summary="List the allocations")
async def list_allocations(ports: PortsOf) -> Sequence[Allocation]:
    return await ports.resources.allocations()


@router.post(
    "/allocations", summary="Hold resources", status_code=201, responses=UNREADABLE | documented(DoesNotFit, NotFound)
)
async def allocate(
    ports: PortsOf, request: Annotated[AllocationRequest, Body(openapi_examples=_EXAMPLES)], response: Response
) -> Allocation:
    """Places the demand on the best node under the policy, and holds it until the lease ends or it is released."""
    held = await ports.resources.allocate(request.demand, request.policy, OWNER, request.lease_s)
    response.headers["Location"] = f"{router.prefix}/allocations/{held.id}"
    return held


@router.get("/allocations/{allocation_id}", summary="One allocation", responses=documented(NotFound))
async def read_allocation(ports: PortsOf, allocation_id: AllocationId) -> Allocation:
    return await ports.resources.allocation(allocation_id)


@router.delete("/allocations/{allocation_id}", summary="Release", status_code=204, responses=documented(NotFound))
async def release(ports: PortsOf, allocation_id: AllocationId) -> None:
    await ports.resources.release(allocation_id)


@router.post("/allocations/{allocation_id}/renew", summary="Renew a lease", responses=documented(NotFound))
async def renew(ports: PortsOf, allocation_id: AllocationId) -> Allocation:
    """The lease starts anew, with the length it was asked for."""
    return await ports.resources.renew(allocation_id)


@router.get("/allocations/{allocation_id}/explain", summary="Why it is where it is", responses=documented(NotFound))
async def explain(ports: PortsOf, allocation_id: AllocationId) -> Explanation:
    """The nodes that were considered, with their scores and the penalties that make them."""
    return await ports.resources.explain(allocation_id)
