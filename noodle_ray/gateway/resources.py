"""/api/distributed/resources: what the fleet has, and the allocations that hold it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Response
from pydantic import Field, ValidationInfo, field_validator

from noodle_ray.base_model import Model
from noodle_ray.errors import Conflict, DoesNotFit, NotFound
from noodle_ray.gateway.bodies import UNREADABLE, JsonRoute
from noodle_ray.gateway.errors import documented
from noodle_ray.gateway.parts import AllocationId, PortsOf
from noodle_ray.placement.allocation import Allocation, OnLoss
from noodle_ray.placement.claim import Claim, Priority, new_claim_id
from noodle_ray.placement.explanation import Explanation
from noodle_ray.placement.request import Request
from noodle_ray.resources import Demand

router = APIRouter(prefix="/api/distributed/resources", tags=["resources"], route_class=JsonRoute)

OWNER = "http"
"""The owner of what is held over HTTP: nobody's job ends with it, so its lease has a timer."""


class AllocationRequest(Model):
    """A demand, or a request of several, to hold for `lease_s` seconds at a time: renew it before they are over.

    `id`: of your choice, and nobody else's: the same again is the same allocation, so that a lost answer costs nothing.
    `wait_s`: how long it may wait to be held, in the order of `priority` (higher first). Its lease runs meanwhile.
    `on_loss`: what becomes of it when its node dies: it is lost ("fail"), held anew elsewhere ("restart"), or goes on
    in a second home that is held all the time ("standby"), on a node with another value of the label `domain` ("":
    simply on another node).
    """

    request: Request | None = None
    demand: Annotated[Demand | None, Field(validate_default=True)] = None
    id: Annotated[str, Field(pattern=r"^noodle-[A-Za-z0-9_-]{1,64}$")] | None = None
    policy: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    priority: Priority = 0
    wait_s: Annotated[float, Field(ge=0, le=86_400)] = 0.0
    lease_s: Annotated[float, Field(ge=1, le=86_400)] = 60.0
    on_loss: OnLoss = "fail"
    domain: Annotated[str, Field(max_length=253)] = ""

    @field_validator("demand")
    @classmethod
    def _asks_for_one_thing(cls, demand: Demand | None, read: ValidationInfo) -> Demand | None:
        if "request" in read.data and (demand is None) == (read.data["request"] is None):
            raise ValueError("give a demand, or a request with its bundles, and not both")
        return demand

    def claim(self) -> Claim:
        wanted = self.demand or self.request
        assert wanted is not None
        more = self.model_dump(include={"policy", "priority", "wait_s", "lease_s", "on_loss", "domain"})
        return Claim(id=self.id or new_claim_id(), request=Request.of(wanted), owner=OWNER, **more)


Fence = Annotated[
    str | None,
    Query(max_length=200, description="The home that you believe to hold, `id.epoch`: refused where it has another."),
]

WaitForIt = Annotated[
    float, Query(ge=0, le=60, description="How many seconds to wait until one that waits is held, or refused.")
]


_EXAMPLES: Any = {
    "half a GPU": {"value": {"demand": {"cpus": 1, "gpu_share": 0.5, "memory": "2GiB"}}},
    "two CPUs for an hour": {"value": {"demand": {"cpus": 2}, "lease_s": 3600}},
    "a second home on another rack": {
        "value": {"demand": {"gpus": 1}, "on_loss": "standby", "domain": "rack", "lease_s": 600}
    },
    "two nodes, or wait": {
        "value": {"request": {"bundles": [{"gpus": 1}, {"gpus": 1}], "strategy": "strict-spread"}, "wait_s": 600}
    },
}


@router.get("", summary="Totals of the fleet")
async def read_totals(ports: PortsOf) -> dict[str, Any]:
    """For each resource what there is in all, what allocations hold, what others use, and what is free."""
    return await ports.resources.totals()


@router.get("/allocations", summary="List the allocations")
async def list_allocations(ports: PortsOf) -> Sequence[Allocation]:
    return await ports.resources.allocations()


@router.post(
    "/allocations",
    summary="Hold resources",
    status_code=201,
    responses=UNREADABLE
    | documented(DoesNotFit, NotFound)
    | {
        202: {
            "model": Allocation,
            "description": "It waits for room: read it with `wait_s`, and renew its lease meanwhile.",
        }
    },
)
async def allocate(
    ports: PortsOf, request: Annotated[AllocationRequest, Body(openapi_examples=_EXAMPLES)], response: Response
) -> Allocation:
    """Places the demand on the best node under the policy, and holds it until the lease ends or it is released."""
    made = await ports.resources.allocate(request.claim(), until_held=False)
    response.headers["Location"] = f"{router.prefix}/allocations/{made.id}"
    if made.state == "waiting":
        response.status_code = 202
    return made


@router.get(
    "/allocations/{allocation_id}", summary="One allocation", responses=documented(NotFound, DoesNotFit, Conflict)
)
async def read_allocation(ports: PortsOf, allocation_id: AllocationId, wait_s: WaitForIt = 0.0) -> Allocation:
    """As it is now, or as soon as it does not wait any more; where it is refused meanwhile, what its asker is told."""
    return await ports.resources.allocation(allocation_id, wait_s)


@router.delete(
    "/allocations/{allocation_id}", summary="Release", status_code=204, responses=documented(NotFound, Conflict)
)
async def release(ports: PortsOf, allocation_id: AllocationId, fence: Fence = None) -> None:
    """Frees it; one that waits is called off."""
    await ports.resources.release(allocation_id, fence)


@router.post("/allocations/{allocation_id}/renew", summary="Renew a lease", responses=documented(NotFound, Conflict))
async def renew(ports: PortsOf, allocation_id: AllocationId, fence: Fence = None) -> Allocation:
    """The lease starts anew, with the length it was asked for."""
    return await ports.resources.renew(allocation_id, fence)


@router.get("/allocations/{allocation_id}/explain", summary="Why it is where it is", responses=documented(NotFound))
async def explain(ports: PortsOf, allocation_id: AllocationId) -> Explanation:
    """The nodes that were considered, with their scores and the penalties that make them; or why none would do yet."""
    return await ports.resources.explain(allocation_id)
