"""/api/ai/fusion: one answer from texts, sounds, pictures and source code."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from starlette.datastructures import FormData, UploadFile

from noodle_ray.errors import DeadlineExceeded, Fault, InvalidInput, NotFound, Overloaded
from noodle_ray.fusion import limits
from noodle_ray.fusion.inputs import MultimodalInput
from noodle_ray.fusion.result import FusionResult
from noodle_ray.gateway.bodies import JSON, MULTIPART, UNREADABLE, JsonRoute, read_json, require_content_type
from noodle_ray.gateway.errors import documented
from noodle_ray.gateway.limits import declared_size
from noodle_ray.gateway.parts import PortsOf
from noodle_ray.gateway.schemas import inlined_schema

router = APIRouter(prefix="/api/ai/fusion", tags=["fusion"], route_class=JsonRoute)

OWN_MS = 15.0
"""What is kept of a request's time for reading it, once it has arrived, and for sending the answer."""

_LARGE = 2**20
"""From this size on a body is read in a thread: decoding its base64 takes long enough for others to notice."""

_MEDIA = ("image", "audio")
_CANDIDATES = "candidates"
_TYPED = {f"{_CANDIDATES}.{field}": field for field in ("code", *_MEDIA)}
"""In a form, candidates that are no texts; a file's name is what it is called in the answer."""
_FILES = (*_MEDIA, *(name for name, field in _TYPED.items() if field in _MEDIA))
_LISTS = ("text", "code", *_MEDIA, _CANDIDATES, *_TYPED)
_MAX_FILES = limits.ITEMS * len(_MEDIA) + limits.MEDIA_CANDIDATES
_MAX_FIELDS = limits.CANDIDATES + 100

_SCHEMA = inlined_schema(MultimodalInput)
_CHOICES = _SCHEMA["properties"][_CANDIDATES]
_CHOICES["items"] = {"anyOf": [{"type": "string", "maxLength": limits.CANDIDATE_CHARACTERS}, _CHOICES["items"]]}
_FILE = {"type": "string", "format": "binary"}


def _form_field(name: str) -> dict[str, Any]:
    return {"type": "array", "items": _FILE if name in _FILES else {"type": "string"}}


_FORM_SCHEMA = {**_SCHEMA, "properties": {**_SCHEMA["properties"], **{name: _form_field(name) for name in _LISTS}}}
_EXAMPLES: Any = {
    "choose among texts": {
        "value": {"text": "What is on the table?", "candidates": ["a cup of coffee", "a cat"], "deadline_ms": 150}
    },
    "choose among pieces of code": {
        "value": {
            "text": "wait until all have arrived",
            "candidates": [
                {"label": "barrier", "code": "def wait(self):\n    with self._cond: self._cond.wait()"},
                {"label": "counter", "code": "def count(self):\n    self._n += 1"},
            ],
        }
    },
    "find a module by what it does": {
        "value": {"text": "counts words in a text", "index": "modules", "top": 3},
    },
    "several items, in a session": {
        "value": {
            "text": ["a dog?", "or a fox?"],
            "candidates": ["a dog", "a fox"],
            "session": "rAmMZL0vW6Kk3p8pUSQ0Yg1rJf7l2nTc",
            "use_context": True,
        }
    },
    "classify": {"value": {"text": "the printer is on fire", "head": "tickets"}},
    "embed": {"value": {"code": "def add(a, b): return a + b"}},
}
_BODIES = {JSON: {"schema": _SCHEMA, "examples": _EXAMPLES}, MULTIPART: {"schema": _FORM_SCHEMA}}


@router.post(
    "",
    summary="Understand several senses together",
    responses=UNREADABLE | documented(NotFound, DeadlineExceeded, Overloaded),
    openapi_extra={"requestBody": {"required": True, "content": _BODIES}},
)
async def fuse(ports: PortsOf, request: Request) -> FusionResult:
    """A joint embedding of any subset of text, code, pictures and sounds, and an answer to what is asked of them.

    `candidates`: which of these is it? `index`: what in there matches? `head`: what does this trained head say? With
    the answer come its confidence and what each sense contributed.

    Send JSON with `image` and `audio` in base64, or a form with them as files. Each of `text`, `code`, `image` and
    `audio` may be several items that show the same thing: a JSON list, or the form's field repeated. A form's
    candidates are texts under `candidates`, code under `candidates.code`, files under `candidates.image` and
    `candidates.audio`.
    """
    return await ports.fusion.process(await read_input(request), OWN_MS)


async def read_input(request: Request) -> MultimodalInput:
    """The request's body as an input of the fusion service. Raises InvalidInput with every fault, TooLarge."""
    if require_content_type(request, JSON, MULTIPART) == JSON:
        fields = await read_json(request)
    else:
        async with request.form(max_files=_MAX_FILES, max_fields=_MAX_FIELDS) as form:
            fields = await _read_form(form)
    if 0 < declared_size(request.headers) < _LARGE:  # one that says nothing may be of any size
        return MultimodalInput.parse(fields)
    return await asyncio.to_thread(MultimodalInput.parse, fields)


async def _read_form(form: FormData) -> dict[str, Any]:
    """The form's fields as plain data. Raises InvalidInput for a file or a text where the other is wanted."""
    faults = [
        Fault(name, "must be a file" if name in _FILES else "must be text, not a file")
        for name, value in form.multi_items()
        if isinstance(value, UploadFile) != (name in _FILES)
    ]
    faults += [Fault(name, "is given more than once") for name in form if _is_repeated(form, name)]
    if faults:
        raise InvalidInput(faults, subject="form")
    fields = {name: await _value_of(form, name) for name in form if name not in _TYPED}
    typed = [await _candidate(field, value) for name, field in _TYPED.items() for value in form.getlist(name)]
    return {**fields, _CANDIDATES: [*fields.get(_CANDIDATES, []), *typed]} if typed else fields


def _is_repeated(form: FormData, name: str) -> bool:
    return name not in _LISTS and len(form.getlist(name)) > 1


async def _value_of(form: FormData, name: str) -> Any:
    if name not in _LISTS:
        return form[name]
    return [await _content(value) for value in form.getlist(name)]


async def _candidate(field: str, value: UploadFile | str) -> dict[str, Any]:
    label = value.filename if isinstance(value, UploadFile) else None
    return {field: await _content(value), **({"label": label} if label else {})}


async def _content(value: UploadFile | str) -> bytes | str:
    return await value.read() if isinstance(value, UploadFile) else value
