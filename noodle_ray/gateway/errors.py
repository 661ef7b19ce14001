"""Errors over HTTP: one dict of status codes, one JSON shape for everything that goes wrong.

The shape is `{"error": {"code", "message", "request_id", …details of the code}}`. LimitReached is 409 and not 429: a
configured maximum does not go away by waiting, and clients retry a 429 by themselves. Overloaded is: it says in
Retry-After (whole seconds, at least 1) and in `retry_after_s` when it is worth another try.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from noodle_ray.base_model import fault_of
from noodle_ray.errors import (
    CallInterrupted,
    Conflict,
    CorruptData,
    DeadlineExceeded,
    DoesNotFit,
    Fault,
    Incompatible,
    InvalidInput,
    InvalidSettings,
    LimitReached,
    ModuleFailed,
    NoodleError,
    NotFound,
    Overloaded,
    TooLarge,
    Unauthorized,
    Unavailable,
    Unresolvable,
)

log = structlog.get_logger()

STATUS: dict[type[NoodleError], int] = {
    InvalidInput: 422,
    InvalidSettings: 500,
    TooLarge: 413,
    Unauthorized: 401,
    NotFound: 404,
    Conflict: 409,
    Incompatible: 409,
    LimitReached: 409,
    DoesNotFit: 409,
    Unresolvable: 409,
    ModuleFailed: 502,
    CallInterrupted: 502,
    DeadlineExceeded: 504,
    Unavailable: 503,
    Overloaded: 429,
    CorruptData: 500,
}
"""The status of each error; a subclass that is not listed has its nearest base's, and anything else is 500."""

RETRY_AFTER_S = 1
_HEADERS: dict[int, dict[str, str]] = {
    401: {"WWW-Authenticate": 'Bearer realm="noodle-ray"'},
    # What is left of the body is not read, so the connection cannot carry another request.
    413: {"Connection": "close"},
    503: {"Retry-After": str(RETRY_AFTER_S)},
}
_CODES = {400: "invalid_input", 404: "not_found", 405: "method_not_allowed", 415: "unsupported_media_type"}
INTERNAL_MESSAGE = "something went wrong inside; the log has it under this request id"


class FailureDetail(BaseModel):
    """What went wrong. A code may bring more fields, such as `faults` with `invalid_input`."""

    model_config = ConfigDict(extra="allow")

    code: str
    message: str
    request_id: str


class Failure(BaseModel):
    """The body of every answer that is not a success."""

    error: FailureDetail


def status_of(error: NoodleError) -> int:
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def documented(*kinds: type[NoodleError]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may raise these, for its documentation."""
    found: dict[int | str, dict[str, Any]] = {}
    for status in sorted({STATUS[kind] for kind in kinds}):
        together = [kind for kind in kinds if STATUS[kind] == status]
        meanings = [f"`{kind.code}`: {_first_sentence(kind)}" for kind in together]
        found[status] = described(" ".join(meanings), together[0].code)
    return found


def described(description: str, code: str) -> dict[str, Any]:
    """One entry of a route's `responses`, with an example."""
    example = {"error": {"code": code, "message": "what a person should know", "request_id": "5f1c9a"}}
    return {"model": Failure, "description": description, "content": {"application/json": {"example": example}}}


def _first_sentence(kind: type[NoodleError]) -> str:
    return (kind.__doc__ or "").split("\n")[0].split(". ")[0].rstrip(".") + "."


def error_response(error: NoodleError, request_id: str) -> Response:
    """The error as an answer. Where it is our own fault, only the log has the message."""
    status = status_of(error)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("request failed", error=str(error), code=error.code, request_id=request_id)
        return failure(status, error.code, INTERNAL_MESSAGE, request_id)
    details = error.to_json()["error"]
    return failure(status, details.pop("code"), details.pop("message"), request_id, details, _headers_of(error))


def _headers_of(error: NoodleError) -> dict[str, str]:
    return {"Retry-After": str(max(1, math.ceil(error.retry_after_s)))} if isinstance(error, Overloaded) else {}


def failure(
    status: int,
    code: str,
    message: str,
    request_id: str,
    details: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    body = {"error": {"code": code, "message": message, "request_id": request_id, **(details or {})}}
    # ASCII, because a message may quote what cannot be encoded.
    content = json.dumps(body, default=str).encode("ascii")
    return Response(content, status, {**_HEADERS.get(status, {}), **(headers or {})}, "application/json")


def request_id_of(request: Request) -> str:
    return str(request.state.request_id)


def handle_errors(app: FastAPI) -> None:
    """Gives every exception that a route may raise its answer; what is left is caught around the application."""
    app.add_exception_handler(NoodleError, _on_our_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)


async def _on_our_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, NoodleError)
    return error_response(error, request_id_of(request))


async def _on_invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = [_without_place(fault_of(entry)) for entry in error.errors()]
    return error_response(InvalidInput(faults, subject="request"), request_id_of(request))


def _without_place(fault: Fault) -> Fault:
    """The fault of "body.demand.cpus" is that of "demand.cpus": where it was sent is no part of a field's name."""
    place, _, field = fault.field.partition(".")
    return Fault(field or place, fault.problem, fault.given)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, "http_error")
    message = f"{error.detail}".lower() if error.status_code in (404, 405) else f"{error.detail}"
    return failure(error.status_code, code, message, request_id_of(request), headers=error.headers)


async def _on_disconnect(request: Request, error: Exception) -> Response:
    log.info("client went away", request_id=request_id_of(request))
    return Response(status_code=400)  # nobody is there to read it
