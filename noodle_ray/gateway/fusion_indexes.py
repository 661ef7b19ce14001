"""/api/ai/fusion/indexes and /heads: what can be found, and by which trained heads can be classified."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Body, Query, Request

from noodle_ray.base_model import Model
from noodle_ray.errors import Conflict, InvalidInput, LimitReached, NotFound
from noodle_ray.fusion.index_messages import (
    ENTRIES_AT_ONCE,
    EntryName,
    HeadInfo,
    IndexInfo,
    KnownQueries,
    NewEntries,
    NewIndex,
)
from noodle_ray.gateway.bodies import JSON, UNREADABLE, JsonRoute, read_json, require_content_type
from noodle_ray.gateway.errors import documented
from noodle_ray.gateway.parts import IndexId, PortsOf
from noodle_ray.gateway.schemas import inlined_schema

M = TypeVar("M", bound=Model)

router = APIRouter(prefix="/api/ai/fusion", tags=["fusion"], route_class=JsonRoute)

Names = Annotated[
    list[EntryName],
    Query(alias="name", min_length=1, max_length=ENTRIES_AT_ONCE, description="An entry's name; give it repeatedly."),
]

_KINDS: Any = {
    "of code and texts": {"value": {"kind": "code"}},
    "one that compares embeddings alone": {"value": {"kind": "dense"}},
}
_ENTRIES = {
    "texts and code": {
        "value": {
            "entries": [
                {"name": "barrier", "text": "waits until all have arrived", "code": "def wait(self): ..."},
                {"name": "counter", "text": "counts calls", "meta": {"file": "counter.py"}},
            ]
        }
    }
}
_QUERIES = {
    "six": {
        "value": {
            "queries": [
                {"text": text, "answer": "barrier"} for text in ("wait for all", "block till everybody is there")
            ]
            * 3
        }
    }
}


def _body_of(model: type[Model], examples: dict[str, Any]) -> dict[str, Any]:
    content = {JSON: {"schema": inlined_schema(model), "examples": examples}}
    return {"requestBody": {"required": True, "content": content}}


async def _read(request: Request, model: type[M]) -> M:
    """The body as the model. In a thread, because media in base64 take long to decode."""
    require_content_type(request, JSON)
    return await asyncio.to_thread(model.parse, await read_json(request))


@router.get("/indexes", summary="List the indexes")
async def list_indexes(ports: PortsOf) -> Sequence[IndexInfo]:
    return await ports.fusion.indexes()


@router.get("/indexes/{name}", summary="Describe an index", responses=documented(NotFound))
async def describe_index(ports: PortsOf, name: IndexId) -> IndexInfo:
    return await ports.fusion.index(name)


@router.put("/indexes/{name}", summary="Create an index", responses=UNREADABLE | documented(Conflict, LimitReached))
async def create_index(
    ports: PortsOf, name: IndexId, wanted: Annotated[NewIndex, Body(openapi_examples=_KINDS)]
) -> IndexInfo:
    """An index of that name and kind. One that is there is left as it is; one of another kind is a conflict."""
    return await ports.fusion.create_index(name, wanted.kind)


@router.delete("/indexes/{name}", summary="Drop an index", status_code=204, responses=documented(NotFound, Conflict))
async def drop_index(ports: PortsOf, name: IndexId) -> None:
    """Forgets the index with all its entries."""
    await ports.fusion.drop_index(name)


@router.get("/indexes/{name}/entries", summary="List an index's entries", responses=documented(NotFound))
async def list_entries(ports: PortsOf, name: IndexId) -> Sequence[str]:
    """The entries' names, in their order."""
    return await ports.fusion.index_entries(name)


@router.post(
    "/indexes/{name}/entries",
    summary="Add entries to an index",
    responses=UNREADABLE | documented(NotFound, Conflict, LimitReached),
    openapi_extra=_body_of(NewEntries, _ENTRIES),
)
async def add_entries(ports: PortsOf, name: IndexId, request: Request) -> IndexInfo:
    """Reads texts, code, images and sounds with the encoders, and adds them; an entry of the same name is replaced.

    All are added, or none.
    """
    wanted = await _read(request, NewEntries)
    return await ports.fusion.add_to_index(name, wanted.entries)


@router.delete(
    "/indexes/{name}/entries", summary="Remove entries from an index", responses=documented(NotFound, Conflict)
)
async def remove_entries(ports: PortsOf, name: IndexId, names: Names) -> IndexInfo:
    """Removes the named entries; those that are not there are none the less gone."""
    return await ports.fusion.remove_from_index(name, names)


@router.post(
    "/indexes/{name}/fit",
    summary="Fit an index to queries",
    responses=UNREADABLE | documented(NotFound, InvalidInput),
    openapi_extra=_body_of(KnownQueries, _QUERIES),
)
async def fit_index(ports: PortsOf, name: IndexId, request: Request) -> IndexInfo:
    """Weighs the index's ways of comparing by queries whose answers are known, and calibrates its confidence."""
    wanted = await _read(request, KnownQueries)
    return await ports.fusion.fit_index(name, wanted.queries)


@router.get("/heads", summary="List the trained heads")
async def list_heads(ports: PortsOf) -> Sequence[HeadInfo]:
    return await ports.fusion.heads()
