"""What an index holds, what it is asked, and what it answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from noodle_ray.errors import Fault, InvalidInput, shorten
from noodle_ray.fusion import limits
from noodle_ray.fusion.modality import FIELD_OF, MODALITIES
from noodle_ray.fusion.reading import Vector

FIELDS = tuple(FIELD_OF.values())
ID_CHARACTERS, META_CHARACTERS = 200, 10_000
UNIT_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that can be found.

    id:         its name in the index. text, code: what it is in words, and as code.
    others:     further words for it: what is said in its sound, what is on its picture.
    embeddings: unit vectors in one space, by FIELDS; an entry may have any of them.
    meta:       plain JSON, given back as it came.
    """

    id: str
    text: str | None = None
    code: str | None = None
    others: tuple[str, ...] = ()
    embeddings: Mapping[str, Vector] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Query:
    """What the encoders made of a question: texts as given or heard, unit vectors by MODALITIES. Any may be missing."""

    text: str | None = None
    code: str | None = None
    transcript: str | None = None
    embeddings: Mapping[str, Vector] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Found:
    """An entry and how probable it is that it is meant, 0..1, among all entries of the index."""

    entry: Entry
    probability: float


def check_entry(entry: Entry, width: int) -> None:
    """Raises InvalidInput with everything that is wrong with an entry of an index of that width."""
    if faults := list(_faults(entry, width)):
        raise InvalidInput(faults, subject=f"entry {shorten(entry.id)}")


def check_query(query: Query, width: int) -> None:
    """Raises InvalidInput with everything that is wrong with a question to an index of that width."""
    faults = list(_vector_faults(query.embeddings, MODALITIES, width))
    if all(part is None for part in (query.text, query.code, query.transcript)) and not query.embeddings:
        faults.append(Fault("query", "asks nothing: give a text, code, a transcript or an embedding"))
    if faults:
        raise InvalidInput(faults, subject="query")


def _faults(entry: Entry, width: int) -> Iterator[Fault]:
    if not 0 < len(entry.id) <= ID_CHARACTERS:
        yield Fault("id", f"must have 1 to {ID_CHARACTERS} characters", shorten(entry.id))
    yield from _too_long("text", entry.text, limits.TEXT_CHARACTERS)
    yield from _too_long("code", entry.code, limits.CODE_CHARACTERS)
    yield from _too_long("others", "".join(entry.others), limits.TEXT_CHARACTERS)
    if not any((entry.text, entry.code, entry.others, entry.embeddings)):
        yield Fault("entry", "has nothing to be found by: give a text, code or an embedding")
    yield from _vector_faults(entry.embeddings, FIELDS, width)
    yield from _meta_faults(entry.meta)


def _too_long(name: str, value: str | None, limit: int) -> Iterator[Fault]:
    if value is not None and len(value) > limit:
        yield Fault(name, f"must have at most {limit} characters", f"{len(value)} characters")


def _vector_faults(vectors: Mapping[str, Vector], known: tuple[str, ...], width: int) -> Iterator[Fault]:
    for name, vector in vectors.items():
        values = np.asarray(vector)
        if name not in known:
            yield Fault(f"embeddings.{name}", f"is none of {', '.join(known)}")
        elif values.shape != (width,) or values.dtype.kind != "f":
            yield Fault(f"embeddings.{name}", f"must be {width} floating-point numbers", f"shape {values.shape}")
        elif not abs(float(np.linalg.norm(values)) - 1.0) <= UNIT_TOLERANCE:  # so that NaN is refused, too
            yield Fault(f"embeddings.{name}", "must be a unit vector", f"length {np.linalg.norm(values):g}")


def _meta_faults(meta: Mapping[str, Any]) -> Iterator[Fault]:
    try:
        size = len(json.dumps(dict(meta), allow_nan=False))
    except (TypeError, ValueError) as error:
        yield Fault("meta", f"must be plain JSON: {error}")
        return
    if size > META_CHARACTERS:
        yield Fault("meta", f"must have at most {META_CHARACTERS} characters as JSON", f"{size} characters")
