"""/api/ai/fusion: one answer from text, sound, a picture and source code."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from starlette.datastructures import FormData, UploadFile

from noodle_ray.errors import DeadlineExceeded, Fault, InvalidInput
from noodle_ray.fusion.inputs import MultimodalInput
from noodle_ray.fusion.result import FusionResult
from noodle_ray.gateway.bodies import JSON, MULTIPART, UNREADABLE, JsonRoute, read_json, require_content_type
from noodle_ray.gateway.errors import documented
from noodle_ray.gateway.parts import PortsOf

router = APIRouter(prefix="/api/ai/fusion", tags=["fusion"], route_class=JsonRoute)

_MEDIA = ("image", "audio")
_LISTS = ("candidates",)
_MAX_FIELDS = 1000

_SCHEMA = MultimodalInput.model_json_schema()
_FORM_SCHEMA = {
    **_SCHEMA,
    "properties": {**_SCHEMA["properties"], **{name: {"type": "string", "format": "binary"} for name in _MEDIA}},
}
_EXAMPLE = {"text": "What is on the table?", "candidates": ["a cup of coffee", "a cat"]}
_BODIES = {
    JSON: {"schema": _SCHEMA, "example": _EXAMPLE},
    MULTIPART: {"schema": _FORM_SCHEMA},
}


@router.post(
    "",
    summary="Understand several senses together",
    responses=UNREADABLE | documented(DeadlineExceeded),
    openapi_extra={"requestBody": {"required": True, "content": _BODIES}},
)
async def fuse(ports: PortsOf, request: Request) -> FusionResult:
    """A joint embedding of any subset of text, code, a picture and a sound, and an answer among given candidates.

    With it come the answer's confidence and what each sense contributed. Send JSON with `image` and `audio` in
    base64, or a form with them as files and `candidates` repeated.
    """
    return await ports.fusion.process(await read_input(request))


async def read_input(request: Request) -> MultimodalInput:
    """The request's body as an input of the fusion service. Raises InvalidInput with every fault, TooLarge."""
    if require_content_type(request, JSON, MULTIPART) == JSON:
        fields = await read_json(request)
    else:
        async with request.form(max_files=len(_MEDIA), max_fields=_MAX_FIELDS) as form:
            fields = await _read_form(form)
    # In a thread, because decoding megabytes of base64 takes long enough for others to notice.
    return await asyncio.to_thread(MultimodalInput.parse, fields)


async def _read_form(form: FormData) -> dict[str, Any]:
    """The form's fields as plain data. Raises InvalidInput for a file or a text where the other is wanted."""
    faults = [
        Fault(name, "must be a file" if name in _MEDIA else "must be text, not a file")
        for name, value in form.multi_items()
        if isinstance(value, UploadFile) != (name in _MEDIA)
    ]
    faults += [Fault(name, "is given more than once") for name in form if _is_repeated(form, name)]
    if faults:
        raise InvalidInput(faults, subject="form")
    return {name: await _value_of(form, name) for name in form}


def _is_repeated(form: FormData, name: str) -> bool:
    return name not in _LISTS and len(form.getlist(name)) > 1


async def _value_of(form: FormData, name: str) -> Any:
    value = form[name]
    if isinstance(value, UploadFile):
        return await value.read()
    return form.getlist(name) if name in _LISTS else value
