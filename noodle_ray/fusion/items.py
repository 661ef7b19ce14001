"""How one item of a request is read: from what JSON, forms and Python carry, with a clear word where it is wrong."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from noodle_ray.errors import TooLarge
from noodle_ray.fusion import limits

Item = str | bytes
T = TypeVar("T", str, bytes)
Reader = Callable[[object, int], T]
"""Reads one item of at most so many characters or bytes. Raises ValueError with what is wrong, or TooLarge."""


def read_text(value: object, limit: int) -> str:
    return _string("text", value, limit)


def read_code(value: object, limit: int) -> str:
    return _string("code", value, limit)


def read_image(value: object, limit: int) -> bytes:
    return _bytes("image", value, limit)


def read_sound(value: object, limit: int) -> bytes:
    return _bytes("audio", value, limit)


def _string(field: str, value: object, limit: int) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text")
    if len(value) > limit:
        raise TooLarge(field, len(value), limit, "characters")
    if not value.strip():
        raise ValueError("must hold more than spaces")
    if "\0" in value:
        raise ValueError("must not hold NUL characters")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("must not hold lone surrogates: it is no Unicode text")
    return value


def _bytes(field: str, value: object, limit: int) -> bytes:
    """Takes raw bytes, or a base64 string (either alphabet) as JSON carries them."""
    if isinstance(value, str):
        value = _from_base64(field, value, limit)
    if not isinstance(value, bytes):
        raise ValueError("must be bytes, or a base64 string")
    if not value:
        raise ValueError("must not be empty")
    if len(value) > limit:
        raise TooLarge(field, len(value), limit, "bytes")
    return value


def _from_base64(field: str, text: str, limit: int) -> bytes:
    if len(text) // 4 * 3 > limit + 3:
        raise TooLarge(field, len(text) // 4 * 3, limit, "bytes")
    try:
        return base64.b64decode(text.translate(_STANDARD_ALPHABET), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"is no valid base64: {error}") from None


_STANDARD_ALPHABET = str.maketrans("-_", "+/")


def single(read: Reader[Any], limit: int) -> tuple[Any, ...]:
    """The annotations of a field with one item."""
    return (
        BeforeValidator(lambda value: None if value is None else read(value, limit)),
        PlainSerializer(_as_text, when_used="json-unless-none"),
        WithJsonSchema(_schema(read, limit)),
    )


def several(read: Reader[Any], limit: int) -> tuple[Any, ...]:
    """The annotations of a field with a tuple of items, for which a lone item may stand."""
    schema = _schema(read, limit)
    items = {"type": "array", "items": schema, "maxItems": limits.ITEMS}
    return (
        BeforeValidator(lambda value: _read_all(value, read, limit)),
        PlainSerializer(_all_as_text, when_used="json"),
        WithJsonSchema({"anyOf": [schema, items]}),
    )


def _read_all(value: object, read: Reader[Any], limit: int) -> tuple[Any, ...]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        return (read(value, limit),)
    if len(value) > limits.ITEMS:
        raise ValueError(f"must be at most {limits.ITEMS} items, not {len(value)}")
    return tuple(_read_one(item, position, read, limit) for position, item in enumerate(value, 1))


def _read_one(item: object, position: int, read: Reader[Any], limit: int) -> Any:
    try:
        return read(item, limit)
    except ValueError as error:
        raise ValueError(f"item {position} {error}") from None


def _all_as_text(items: tuple[Item, ...]) -> str | list[str]:
    written = [_as_text(item) for item in items]
    return written[0] if len(written) == 1 else written


def _as_text(item: Item) -> str:
    return base64.b64encode(item).decode() if isinstance(item, bytes) else item


def _schema(read: Reader[Any], limit: int) -> dict[str, Any]:
    if read in (read_image, read_sound):
        return {"type": "string", "contentEncoding": "base64"}
    return {"type": "string", "maxLength": limit}
