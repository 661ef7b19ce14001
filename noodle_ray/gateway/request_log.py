"""Around every request: its id, its log line, its place in the metrics, and the answer to an unexpected error."""

from __future__ import annotations

import re
import time
import uuid
from dataclasses import dataclass

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from noodle_ray.gateway.errors import INTERNAL_MESSAGE, failure
from noodle_ray.gateway.metrics import RequestMetrics

log = structlog.get_logger()

_CLEAN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass
class _Answer:
    """What has been sent so far; 0 is nothing."""

    status: int = 0


class RequestLog:
    """The outermost ASGI middleware: whatever happens inside, the client gets an id, and no internals."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = choose_request_id(Headers(scope=scope).get("x-request-id", ""))
        scope.setdefault("state", {})["request_id"] = request_id
        answer, started = _Answer(), time.perf_counter()
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._answer(scope, receive, _marked(send, request_id, answer), answer)
            finally:
                _note(scope, answer.status, time.perf_counter() - started)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, answer: _Answer) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception:
            log.exception("request failed", method=scope["method"], route=route_of(scope))
            if answer.status:  # too late for another answer: the server cuts the connection
                raise
            response = failure(500, "internal", INTERNAL_MESSAGE, scope["state"]["request_id"])
            await response(scope, receive, send)


def _note(scope: Scope, status: int, seconds: float) -> None:
    method, route = scope["method"], route_of(scope)
    metrics: RequestMetrics = scope["app"].state.metrics
    metrics.note(method, route, status, seconds)
    log.debug("request", method=method, route=route, status=status, ms=round(seconds * 1000, 1))


def choose_request_id(given: str) -> str:
    """The client's own id where it is short and clean, else a new one."""
    return given if _CLEAN_ID.fullmatch(given) else uuid.uuid4().hex


def route_of(scope: Scope) -> str:
    """The template of the route that took the request; never the raw path, which a client can vary without end."""
    return str(getattr(scope.get("route"), "path", "none"))


def _marked(send: Send, request_id: str, answer: _Answer) -> Send:
    async def send_marked(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = request_id
            headers["X-Content-Type-Options"] = "nosniff"
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return send_marked
