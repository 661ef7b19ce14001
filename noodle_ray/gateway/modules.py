"""/api/modules: publish, resolve, load, call, swap, unload and yank modules."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from pydantic import Field
from starlette.datastructures import UploadFile
from starlette.responses import StreamingResponse

from noodle_ray.base_model import Model
from noodle_ray.errors import (
    CallInterrupted,
    Conflict,
    DeadlineExceeded,
    DoesNotFit,
    Incompatible,
    InvalidInput,
    LimitReached,
    ModuleFailed,
    NoodleError,
    NotFound,
    Unresolvable,
)
from noodle_ray.gateway.bodies import MULTIPART, UNREADABLE, JsonRoute, require_content_type
from noodle_ray.gateway.errors import documented
from noodle_ray.gateway.parts import ModuleId, PortsOf, VersionId
from noodle_ray.modules.call_route import CallTarget
from noodle_ray.modules.graph import ModuleGraph

router = APIRouter(prefix="/api/modules", tags=["modules"], route_class=JsonRoute)

LINES = "application/x-ndjson"
ARCHIVES = ("application/zip", "application/octet-stream")
Wanted = Annotated[
    str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9][A-Za-z0-9._-]*\])?$")
]
Constraint = Annotated[str, Field(max_length=200)]

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FORM = {
    "schema": {
        "type": "object",
        "required": ["archive"],
        "properties": {"archive": {"type": "string", "format": "binary"}},
    }
}
_ARCHIVE_BODY = {"requestBody": {"required": True, "content": {**dict.fromkeys(ARCHIVES, _BINARY), MULTIPART: _FORM}}}


class Requirements(Model):
    """Modules, or features of them ("module[feature]"), with PEP 440 constraints; an empty one means any version.

    `minimal_change`: versions that are loaded already come before newer ones, where they will do.
    """

    requirements: Annotated[dict[Wanted, Constraint], Field(min_length=1, max_length=100)]
    minimal_change: bool = False


class Selection(Model):
    """Which versions will do, as a PEP 440 constraint; empty means the newest.

    `minimal_change`: of what it needs, versions that are loaded already come before newer ones, where they will do.
    """

    constraint: Constraint = ""
    minimal_change: bool = False


class FirstLoad(Selection):
    """Which versions will do. `fresh`: a state that an unload left is forgotten."""

    fresh: bool = False


class Replacement(Selection):
    """Which version is to replace what runs. `force`: also where callers of what runs would stumble over it."""

    force: bool = False


class Call(Model):
    """A function of the module, and what to call it with.

    Calls of one `session` that one gateway gets run one after the other, on one host as long as that is there.
    `version` is a constraint: only running versions that satisfy it are called.
    """

    function: Annotated[str, Field(max_length=100, pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
    args: list[Any] = Field(default_factory=list)
    kwargs: dict[str, Any] = Field(default_factory=dict)
    session: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    version: Constraint | None = None

    def target(self, name: str) -> CallTarget:
        return CallTarget(name, self.function, self.session, self.version)


class CallResult(Model):
    """What the function returned."""

    result: Any


_RESOLVE_EXAMPLES: Any = {"two modules": {"value": {"requirements": {"greeter": ">=1,<2", "tokenizer": ""}}}}
_LOAD_EXAMPLES: Any = {"any 1.x": {"value": {"constraint": ">=1,<2"}}, "the newest": {"value": {}}}
_CALL_EXAMPLES: Any = {"a call": {"value": {"function": "greet", "args": ["Ada"], "kwargs": {"polite": True}}}}


@router.get("", summary="List the modules")
async def list_modules(ports: PortsOf) -> Sequence[dict[str, Any]]:
    return await ports.modules.modules()


@router.post(
    "",
    summary="Publish a module",
    status_code=201,
    responses=UNREADABLE | documented(Conflict, LimitReached),
    openapi_extra=_ARCHIVE_BODY,
)
async def publish(ports: PortsOf, request: Request) -> dict[str, Any]:
    """Takes a packed module or a wheel, as the raw body or as the file `archive` of a form.

    The same content twice is no error; other content under a published version is a conflict.
    """
    return await ports.modules.publish(await read_archive(request))


async def read_archive(request: Request) -> bytes:
    """The archive's bytes, unread. Raises InvalidInput where there are none, TooLarge."""
    if require_content_type(request, *ARCHIVES, MULTIPART) == MULTIPART:
        archive = await _read_form(request)
    else:
        archive = await request.body()
    if not archive:
        raise InvalidInput.of("archive", "is empty: send a module's zip archive or wheel")
    return archive


async def _read_form(request: Request) -> bytes:
    async with request.form(max_files=1, max_fields=1) as form:
        archive = form.get("archive")
        if not isinstance(archive, UploadFile) or len(form) != 1:
            raise InvalidInput.of("archive", "send one file of this name, and nothing else")
        return await archive.read()


@router.post("/resolve", summary="Resolve requirements", responses=UNREADABLE | documented(NotFound, Unresolvable))
async def resolve(
    ports: PortsOf, request: Annotated[Requirements, Body(openapi_examples=_RESOLVE_EXAMPLES)]
) -> dict[str, Any]:
    """Exact versions that satisfy everybody's constraints, in the order of loading."""
    return await ports.modules.resolve(dict(request.requirements), request.minimal_change)


@router.get("/-/graph", summary="Who needs whom")
async def graph(ports: PortsOf) -> ModuleGraph:
    """Of each module the loaded version, else the newest. No module can be called "-"."""
    return ModuleGraph.parse(await ports.modules.graph())


@router.get("/{name}", summary="One module", responses=documented(NotFound))
async def describe(ports: PortsOf, name: ModuleId) -> dict[str, Any]:
    """Its versions, what they need, and what is loaded."""
    return await ports.modules.describe(name)


@router.delete("/{name}", summary="Unload a module", status_code=204, responses=documented(NotFound, Conflict))
async def unload(ports: PortsOf, name: ModuleId) -> None:
    """Ends its host and frees what it held. The versions stay published."""
    await ports.modules.unload(name)


@router.post(
    "/{name}/load",
    summary="Load a module",
    responses=UNREADABLE
    | documented(NotFound, Conflict, Unresolvable, DoesNotFit, LimitReached, ModuleFailed, DeadlineExceeded),
)
async def load(
    ports: PortsOf, name: ModuleId, request: Annotated[FirstLoad, Body(openapi_examples=_LOAD_EXAMPLES)]
) -> dict[str, Any]:
    """Places a host for it and loads the newest version that satisfies the constraint."""
    return await ports.modules.load(name, request.constraint, request.minimal_change, request.fresh)


@router.post(
    "/{name}/swap",
    summary="Swap to another version",
    responses=UNREADABLE
    | documented(NotFound, Conflict, Incompatible, Unresolvable, DoesNotFit, ModuleFailed, DeadlineExceeded),
)
async def swap(
    ports: PortsOf, name: ModuleId, request: Annotated[Replacement, Body(openapi_examples=_LOAD_EXAMPLES)]
) -> dict[str, Any]:
    """Replaces the running version; calls in flight end on the old one.

    A version that would break callers is refused, one that does worse than the old one is rolled back.
    """
    return await ports.modules.swap(name, request.constraint, request.minimal_change, request.force)


@router.post(
    "/{name}/rollback",
    summary="Go back to the version before",
    responses=documented(NotFound, Conflict, DoesNotFit, ModuleFailed, DeadlineExceeded),
)
async def rollback(ports: PortsOf, name: ModuleId) -> dict[str, Any]:
    """Goes back to the version that ran before the last swap: at once where it is still warm."""
    return await ports.modules.rollback(name)


@router.post(
    "/{name}/call",
    summary="Call a function of a loaded module",
    responses=UNREADABLE | documented(NotFound, Conflict, ModuleFailed, CallInterrupted, DeadlineExceeded),
)
async def call(
    ports: PortsOf, name: ModuleId, request: Annotated[Call, Body(openapi_examples=_CALL_EXAMPLES)]
) -> CallResult:
    """What the function returns must be JSON; over the Python client it may be any value."""
    result = await ports.modules.call(request.target(name), request.args, request.kwargs)
    _as_json(name, result)
    return CallResult(result=result)


@router.post(
    "/{name}/stream",
    summary="Stream what a generator of a loaded module yields",
    response_class=StreamingResponse,
    responses=UNREADABLE
    | documented(NotFound, Conflict, ModuleFailed, CallInterrupted, DeadlineExceeded)
    | {200: {"content": {LINES: {}}, "description": "One JSON value a line, as they are made"}},
)
async def stream(
    ports: PortsOf, name: ModuleId, request: Annotated[Call, Body(openapi_examples=_CALL_EXAMPLES)]
) -> StreamingResponse:
    """One line of JSON for each item, as it is made. What goes wrong after the first one is the last line."""
    items = ports.modules.stream(request.target(name), request.args, request.kwargs)
    # The first is awaited here: what goes wrong before it has a status of its own.
    first = [_as_json(name, item) async for item in _up_to(1, items)]
    return StreamingResponse(_lines(name, first, items), media_type=LINES)


async def _up_to(count: int, items: AsyncIterator[Any]) -> AsyncIterator[Any]:
    for _ in range(count):
        try:
            yield await anext(items)
        except StopAsyncIteration:
            return


async def _lines(name: str, first: list[bytes], items: AsyncIterator[Any]) -> AsyncIterator[bytes]:
    for line in first:
        yield line + b"\n"
    try:
        async for item in items:
            yield _as_json(name, item) + b"\n"
    except NoodleError as error:
        yield json.dumps(error.to_json()).encode() + b"\n"


def _as_json(name: str, result: object) -> bytes:
    try:
        return json.dumps(result, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ModuleFailed(name, f"what it gave is not JSON: {error}") from None


@router.post("/{name}/{version}/yank", summary="Yank a version", responses=documented(NotFound))
async def yank(ports: PortsOf, name: ModuleId, version: VersionId) -> dict[str, Any]:
    """Takes a version out of future resolutions; what runs goes on."""
    return await ports.modules.yank(name, version)
