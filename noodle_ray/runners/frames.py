"""The messages between a host and the process in which a module's code runs: plain data, packed, with its length."""

from __future__ import annotations

import asyncio
from typing import Any

import msgpack

MAX_FRAME_BYTES = 64 * 2**20
MAX_DEPTH = 100
MAX_CONTAINERS = 2**20
"""Lists and dicts in one message. An empty one is a byte when packed and sixty in memory."""

LENGTH_BYTES = 4
_SCALARS = (type(None), bool, int, float, str, bytes)
_SCALAR_TYPES = frozenset(_SCALARS)


class NotPlain(Exception):
    """A value that cannot be sent; says what it holds."""


class Malformed(Exception):
    """Bytes that are no message."""


def pack(value: object) -> bytes:
    """Packs plain data: None, bool, int, float, str, bytes, lists, and dicts with str keys; tuples become lists.

    Raises NotPlain, also where it is too large.
    """
    _require_plain(value)
    try:
        packed: bytes = msgpack.packb(value)
    except OverflowError:
        raise NotPlain("an int of more than 64 bits") from None
    except ValueError as error:  # half a surrogate pair, more than 4 GiB
        raise NotPlain(f"what cannot be packed: {error}") from None
    if len(packed) > MAX_FRAME_BYTES:
        raise NotPlain(f"{len(packed)} bytes, allowed are {MAX_FRAME_BYTES}")
    return packed


def unpack(packed: bytes) -> Any:
    """The data again. Raises Malformed: the other side is not trusted to send what `pack` gives."""
    containers = 0

    def count(container: Any) -> Any:
        nonlocal containers
        containers += 1
        if containers > MAX_CONTAINERS:
            raise Malformed(f"it holds more than {MAX_CONTAINERS} lists and dicts")
        return container

    try:
        value = msgpack.unpackb(packed, list_hook=count, object_hook=count)
        _require_plain(value)
    except Malformed:
        raise
    except Exception as error:  # msgpack has no common class for all that can be wrong with bytes
        raise Malformed(f"{type(error).__name__}: {error}") from None
    return value


def frame(packed: bytes) -> bytes:
    """A packed message as it is sent: its length before it."""
    return len(packed).to_bytes(LENGTH_BYTES, "big") + packed


async def read_message(reader: asyncio.StreamReader) -> Any:
    """The next message. Raises EOFError where there is none any more, Malformed, OSError."""
    length = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")
    if length > MAX_FRAME_BYTES:
        raise Malformed(f"a message of {length} bytes, allowed are {MAX_FRAME_BYTES}")
    return unpack(await reader.readexactly(length))


def _require_plain(value: object) -> None:
    waiting = [(value, 0)]
    containers = 0
    while waiting:
        item, depth = waiting.pop()
        if isinstance(item, dict):
            inside: list[Any] = _values(item)
        elif isinstance(item, msgpack.ExtType):  # a tuple, but not when it is packed
            raise NotPlain("a value of type ExtType")
        elif isinstance(item, list | tuple):
            inside = list(item)
        elif isinstance(item, _SCALARS):
            continue
        else:
            raise NotPlain(f"a value of type {type(item).__name__}")
        containers += 1
        if depth > MAX_DEPTH:
            raise NotPlain(f"lists and dicts more than {MAX_DEPTH} deep")
        if containers > MAX_CONTAINERS:
            raise NotPlain(f"more than {MAX_CONTAINERS} lists and dicts")
        if not _SCALAR_TYPES.issuperset(map(type, inside)):
            waiting += [(each, depth + 1) for each in inside]


def _values(item: dict[Any, Any]) -> list[Any]:
    for key in item:
        if not isinstance(key, str):
            raise NotPlain(f"a dict with a key of type {type(key).__name__}")
    return list(item.values())
