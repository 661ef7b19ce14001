"""The gateway: the ASGI application that puts the cluster's ports behind HTTP."""

from __future__ import annotations

from fastapi import APIRouter, Depends, FastAPI, Security
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer

import noodle_ray
from noodle_ray.errors import InvalidInput, Unauthorized, Unavailable
from noodle_ray.gateway import (
    fusion,
    fusion_indexes,
    fusion_sessions,
    health,
    metrics,
    modules,
    nodes,
    resources,
    services,
)
from noodle_ray.gateway.auth import TokenCheck, digest_of_token
from noodle_ray.gateway.bodies import refuse_unknown_query
from noodle_ray.gateway.docs import add_docs
from noodle_ray.gateway.errors import described, documented, handle_errors
from noodle_ray.gateway.limits import BodyLimit
from noodle_ray.gateway.ports import Ports
from noodle_ray.gateway.request_log import RequestLog
from noodle_ray.settings import Settings

DESCRIPTION = """Placement, live modules and multimodal fusion for a Ray cluster.

Every route but `/healthz` wants the cluster's token: `Authorization: Bearer TOKEN` (press *Authorize* to try one out).
This page and `/openapi.json` can also be read with HTTP Basic: any user name, the token as password.

Everything that fails answers `{"error": {"code", "message", "request_id", …}}`. `code` is stable; a 422 lists every
fault with its field; a 429 or 503 may be tried again after `Retry-After` seconds. The request id is in the header
`X-Request-ID` of every answer, and in the log; a client may choose it (letters, digits, `.`, `_`, `-`; at most 64).
"""

_TAGS = [
    {"name": "nodes", "description": "The nodes of the cluster."},
    {"name": "resources", "description": "What the fleet has, and who holds it."},
    {"name": "modules", "description": "Code with versions that is replaced while it is called."},
    {"name": "fusion", "description": "One answer from text, sound, pictures and source code."},
    {"name": "services", "description": "Who offers what, and where."},
    {"name": "operation", "description": "For load balancers and monitoring."},
]

_RESOURCES = (nodes, resources, modules, fusion, fusion_sessions, fusion_indexes, services)
_INTERNAL = described("`internal`: Something went wrong inside; the log says what.", "internal")


def build_app(ports: Ports, settings: Settings, token: str) -> FastAPI:
    """The application over these ports. Raises InvalidInput where the token is too short to be one."""
    app = FastAPI(
        title="noodle-ray",
        version=noodle_ray.__version__,
        description=DESCRIPTION,
        openapi_tags=_TAGS,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
        # What a request holds is nobody else's: no copy of it goes to whoever traces this process.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    set_ports(app, ports)
    _add_routes(app)
    handle_errors(app)
    _wrap(app, settings, token)
    return app


def set_ports(app: FastAPI, ports: Ports) -> None:
    """Puts the application over these ports, with metrics that start anew."""
    app.state.ports = ports
    app.state.metrics = metrics.RequestMetrics()
    app.state.health = health.HealthCheck(ports)


def _operation_id(route: APIRoute) -> str:
    return f"{route.tags[0]}_{route.name}"


def _add_routes(app: FastAPI) -> None:
    open_to_all = {500: _INTERNAL, **documented(InvalidInput)}
    behind_token = {**open_to_all, **documented(Unauthorized)}
    # The scheme is for the documentation; TokenCheck has looked at the token long before a route is chosen.
    asks_for_token = Security(HTTPBearer(auto_error=False, description="The cluster's token."))
    checks_query = Depends(refuse_unknown_query)
    app.include_router(health.router, dependencies=[checks_query], responses=open_to_all)
    routers: list[APIRouter] = [resource.router for resource in _RESOURCES]
    for router in routers:
        responses = {**behind_token, **documented(Unavailable)}
        app.include_router(router, dependencies=[asks_for_token, checks_query], responses=responses)
    app.include_router(metrics.router, dependencies=[asks_for_token, checks_query], responses=behind_token)
    add_docs(app)


def _wrap(app: FastAPI, settings: Settings, token: str) -> None:
    """The last one added is the outermost: log, then token, then limit, then the routes."""
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(TokenCheck, digest=digest_of_token(token))
    app.add_middleware(RequestLog)
