"""Request bodies: their content type is checked, and JSON is read strictly (UTF-8, no NaN, no deep nesting)."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from email.message import Message
from typing import Any

from fastapi import HTTPException, Request
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.responses import Response

from noodle_ray.errors import InvalidInput, TooLarge
from noodle_ray.gateway.errors import described, documented

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

JSON = "application/json"
MULTIPART = "multipart/form-data"

UNREADABLE: dict[int | str, dict[str, Any]] = {
    **documented(TooLarge),
    415: described("`unsupported_media_type`: The body has a type that is not read here.", "unsupported_media_type"),
}
"""The `responses` of a route that reads a body, for its documentation."""


def require_content_type(request: Request, *allowed: str) -> str:
    """The body's media type, in lower case. Answers 415 where it is not among the allowed ones, or is encoded."""
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise HTTPException(415, f"content encoding {encoding[:40]!r} is not understood: send the body as it is")
    message = Message()
    message["content-type"] = request.headers.get("content-type", "application/octet-stream")
    given, charset = message.get_content_type(), message.get_content_charset("utf-8")
    if given not in allowed or charset not in ("utf-8", "us-ascii"):
        raise HTTPException(415, f"send the body as {' or '.join(allowed)}")
    return given


async def read_json(request: Request) -> Any:
    """The body as JSON. Raises InvalidInput with the line and column of the fault, TooLarge."""
    body = await request.body()
    if not body:
        raise InvalidInput.of("body", "is empty: send a JSON object")
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidInput.of("body", f"is not JSON: {error}") from None


class JsonRequest(Request):
    """A request whose JSON has been read, strictly, before the framework asks for it."""

    parsed: Any = None

    async def json(self) -> Any:
        return self.parsed


class JsonRoute(APIRoute):
    """A route whose body, where it takes one, is JSON."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle

        async def handle_json(given: Request) -> Response:
            require_content_type(given, JSON)
            request = JsonRequest(given.scope, given.receive)
            request.parsed = await read_json(request)
            return await handle(request)

        return handle_json


async def refuse_unknown_query(request: Request) -> None:  # not async, it would run in a thread
    """A misspelt query parameter must not be taken for none at all. Raises InvalidInput."""
    known = {field.alias for field in request.scope["route"].dependant.query_params}
    for name in request.query_params:
        if name not in known:
            raise InvalidInput.of("query", f"has no such parameter; known are {sorted(known) or 'none'}", name)
