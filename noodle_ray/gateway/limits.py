"""The body limit: no request sends more bytes than NOODLE_MAX_BODY allows, whether or not it says so first."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from noodle_ray.errors import TooLarge
from noodle_ray.gateway.errors import error_response


class BodyLimit:
    """ASGI middleware that refuses a declared size over the limit at once, and counts what arrives otherwise.

    Reading past the limit raises TooLarge in the route that reads, which answers 413.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif (declared := declared_size(Headers(scope=scope))) > self._max_bytes:
            response = error_response(self._too_large(declared), scope["state"]["request_id"])
            await response(scope, receive, send)
        else:
            await self._app(scope, self._counted(receive), send)

    def _counted(self, receive: Receive) -> Receive:
        size = 0

        async def receive_within_limit() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._max_bytes:
                raise self._too_large(size)
            return message

        return receive_within_limit

    def _too_large(self, size: int) -> TooLarge:
        return TooLarge("body", size, self._max_bytes, "bytes")


def declared_size(headers: Headers) -> int:
    """What a body says of its size, in bytes; 0 where it says nothing that can be understood."""
    text = headers.get("content-length", "0")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0
