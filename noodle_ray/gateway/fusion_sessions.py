"""/api/ai/fusion/sessions: what is remembered from one request to the next."""

from __future__ import annotations

from fastapi import APIRouter, Response

from noodle_ray.errors import LimitReached, NotFound
from noodle_ray.fusion.index_messages import OpenedSession
from noodle_ray.gateway.bodies import JsonRoute
from noodle_ray.gateway.errors import documented
from noodle_ray.gateway.parts import PortsOf, SessionInPath

PATH = "/api/ai/fusion/sessions"
router = APIRouter(prefix=PATH, tags=["fusion"], route_class=JsonRoute)


@router.post("", summary="Open a session", status_code=201, responses=documented(LimitReached))
async def open_session(ports: PortsOf, response: Response) -> OpenedSession:
    """A new session, for the `session` of requests. Its id is the right to use it, and cannot be found out again."""
    opened = await ports.fusion.open_session()
    response.headers["Location"] = f"{PATH}/{opened.session}"
    return opened


@router.delete("/{session}", summary="Forget a session", status_code=204, responses=documented(NotFound))
async def forget_session(ports: PortsOf, session: SessionInPath) -> None:
    """Ends a session, and all that it remembers with it."""
    await ports.fusion.forget_session(session)
