"""Who may come in: everybody with the cluster's token, checked before anything else is looked at.

Every path asks for `Authorization: Bearer TOKEN`, those that do not exist too, so that nobody without the token learns
which do. Only the health check is open. Browsers cannot be told to send a bearer token, so reading the documentation
also works with HTTP Basic (any user name, the token as password). Nothing that changes state, or that holds data, does:
a browser sends Basic credentials by itself, also when another site makes it ask.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from noodle_ray.errors import InvalidInput, Unauthorized
from noodle_ray.gateway.errors import error_response

OPEN_PATHS = frozenset({"/healthz"})
DOCUMENTATION_PATHS = ("/docs", "/openapi.json")
MIN_TOKEN_LENGTH = 16
_READING = frozenset({"GET", "HEAD"})
_REFUSAL = "give the cluster's token: Authorization: Bearer TOKEN"


def digest_of_token(token: str) -> bytes:
    """What is kept of the token. Raises InvalidInput where it is too short to be one."""
    if len(token) < MIN_TOKEN_LENGTH or token != token.strip():
        raise InvalidInput.of("token", f"must be at least {MIN_TOKEN_LENGTH} characters, without spaces around them")
    return _digest(token.encode())


class TokenCheck:
    """ASGI middleware that answers 401 to whoever does not know the token behind this digest."""

    def __init__(self, app: ASGIApp, digest: bytes) -> None:
        self._app = app
        self._digest = digest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or (scope["type"] == "http" and self._may_pass(scope)):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._refuse(scope, receive, send)
        else:  # there is no WebSocket route
            await send({"type": "websocket.close", "code": 1008})

    def _may_pass(self, scope: Scope) -> bool:
        reading = scope["method"] in _READING
        if reading and scope["path"] in OPEN_PATHS:
            return True
        given = Headers(scope=scope).getlist("authorization")
        if len(given) != 1:
            return False
        scheme, _, credentials = given[0].partition(" ")
        if scheme.lower() == "bearer":
            return self._is_token(credentials.strip().encode("latin-1"))
        if scheme.lower() == "basic" and reading and is_documentation(scope["path"]):
            return self._is_token(_password(credentials))
        return False

    def _is_token(self, given: bytes) -> bool:
        """Compares digests, so that neither the token's bytes nor its length can be timed."""
        return hmac.compare_digest(_digest(given), self._digest)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = error_response(Unauthorized(_REFUSAL), scope["state"]["request_id"])
        if scope["method"] in _READING and is_documentation(scope["path"]):
            response.headers["WWW-Authenticate"] = 'Basic realm="noodle-ray", charset="UTF-8"'
        if _has_body(Headers(scope=scope)):
            response.headers["Connection"] = "close"  # a stranger's body is not read
        await response(scope, receive, send)


def is_documentation(path: str) -> bool:
    return any(path == root or path.startswith(root + "/") for root in DOCUMENTATION_PATHS)


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def _password(credentials: str) -> bytes:
    try:
        decoded = base64.b64decode(credentials.strip(), validate=True)
    except (binascii.Error, ValueError):
        return b""
    return decoded.partition(b":")[2]


def _has_body(headers: Headers) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
