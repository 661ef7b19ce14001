"""/api/services: the service directory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query

from noodle_ray.errors import Conflict, LimitReached, NotFound
from noodle_ray.gateway.bodies import UNREADABLE, JsonRoute
from noodle_ray.gateway.errors import documented
from noodle_ray.gateway.parts import PortsOf, ServiceId
from noodle_ray.services.directory import Capability, Registration, Service

router = APIRouter(prefix="/api/services", tags=["services"], route_class=JsonRoute)

_EXAMPLES: Any = {
    "a service with a lease": {
        "value": {
            "name": "thumbnailer",
            "kind": "service",
            "address": "http://10.0.0.7:9000",
            "capabilities": ["image.resize"],
            "version": "1.2.0",
            "ttl_s": 30,
        }
    }
}


@router.get("", summary="Find services")
async def list_services(
    ports: PortsOf, capability: Annotated[Capability | None, Query(description="Only those that offer it.")] = None
) -> Sequence[Service]:
    return await ports.services.services(capability)


@router.post(
    "", summary="Register a service", status_code=201, responses=UNREADABLE | documented(Conflict, LimitReached)
)
async def register(ports: PortsOf, registration: Annotated[Registration, Body(openapi_examples=_EXAMPLES)]) -> Service:
    """Adds the service, or replaces its own entry. With `ttl_s` it must be renewed within that many seconds."""
    return await ports.services.register(registration)


@router.delete("/{name}", summary="Remove a service", status_code=204, responses=documented(NotFound))
async def unregister(ports: PortsOf, name: ServiceId) -> None:
    await ports.services.unregister(name)


@router.post("/{name}/renew", summary="Renew a service's lease", responses=documented(NotFound))
async def renew(ports: PortsOf, name: ServiceId) -> Service:
    return await ports.services.renew(name)
