"""An index as bytes: a line that tells version and sha256, then its arrays as safetensors and its entries as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from noodle_ray.errors import CorruptData, NoodleError, NotFound
from noodle_ray.fusion.index import MOST_ENTRIES, Index
from noodle_ray.fusion.index_entry import FIELDS, Entry
from noodle_ray.fusion.index_evidence import ANALYSIS, COLLECTIONS
from noodle_ray.fusion.lexical import Postings, Segment

VERSION = 1
_MAGIC = "noodle-index"
Tensors = dict[str, npt.NDArray[Any]]


def to_bytes(index: Index) -> bytes:
    """The whole index; what was removed is not in it."""
    entries = list(index)
    described = [_described(entry) for entry in entries]
    head = {"width": index.width, "analysis": ANALYSIS, "entries": described}
    tensors: Tensors = {"head": np.frombuffer(json.dumps(head).encode(), np.uint8)}
    tensors |= {f"vectors.{field}": _stacked(entries, field, index.width) for field in FIELDS}
    for name, (whole, lengths) in index.gathered().items():
        tensors |= {
            f"{name}.terms": whole.terms,
            f"{name}.starts": whole.starts,
            f"{name}.slots": whole.slots.astype(np.int32),
            f"{name}.counts": whole.counts.astype(np.float32),
            f"{name}.lengths": lengths,
        }
    payload = save(tensors)
    return f"{_MAGIC} {VERSION} {sha256(payload).hexdigest()}\n".encode() + payload


def from_bytes(data: bytes, most: int = MOST_ENTRIES) -> Index:
    """The index that was saved. Raises CorruptData for damaged or foreign bytes, LimitReached beyond `most` entries."""
    first, _, payload = data.partition(b"\n")
    match first.decode("utf-8", "replace").split(" "):
        case [name, version, digest] if name == _MAGIC:
            pass
        case _:
            raise CorruptData("this is no index")
    if version != str(VERSION):
        raise CorruptData(f"an index of format {version[:20]}; this release reads format {VERSION}")
    if sha256(payload).hexdigest() != digest:
        raise CorruptData("the index is damaged: its sha256 is not what it says")
    try:
        return _restored(load(payload), most)
    except (SafetensorError, KeyError, ValueError, TypeError, IndexError) as error:
        raise CorruptData(f"the index is damaged: {type(error).__name__}: {error}") from None


def save_index(index: Index, path: Path) -> None:
    """Writes beside and renames, so that there is a whole file at any time."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_bytes(to_bytes(index))
    draft.replace(path)


def load_index(path: Path, most: int = MOST_ENTRIES) -> Index:
    """Raises NotFound where there is no such file, else as from_bytes."""
    try:
        return from_bytes(path.read_bytes(), most)
    except FileNotFoundError:
        raise NotFound("index", path.stem) from None


def _described(entry: Entry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "text": entry.text,
        "code": entry.code,
        "others": list(entry.others),
        "fields": [field for field in FIELDS if field in entry.embeddings],
        "meta": dict(entry.meta),
    }


def _stacked(entries: list[Entry], field: str, width: int) -> npt.NDArray[np.float32]:
    rows = [entry.embeddings[field] for entry in entries if field in entry.embeddings]
    return np.array(rows, np.float32).reshape(-1, width)


def _restored(tensors: Tensors, most: int) -> Index:
    head = json.loads(tensors["head"].tobytes())
    index = Index(int(head["width"]), most)
    entries = list(_entries(head["entries"], tensors))
    postings = None
    if head["analysis"] == ANALYSIS:
        postings = {name: _postings(tensors, name, len(entries)) for name in COLLECTIONS}
    try:
        index.put(entries) if postings is None else index.restore(entries, postings)
    except NoodleError as error:
        if error.code == "limit_reached":
            raise
        raise CorruptData(f"the index is damaged: {error.message}") from None
    return index


def _entries(described: list[dict[str, Any]], tensors: Tensors) -> Iterator[Entry]:
    rows = {field: iter(tensors[f"vectors.{field}"]) for field in FIELDS}
    for each in described:
        embeddings = {field: next(rows[field]) for field in each["fields"]}
        yield Entry(each["id"], each["text"], each["code"], tuple(each["others"]), embeddings, each["meta"])


def _postings(tensors: Tensors, name: str, entries: int) -> Postings:
    terms, starts = tensors[f"{name}.terms"], tensors[f"{name}.starts"]
    slots, counts = tensors[f"{name}.slots"].astype(np.int64), tensors[f"{name}.counts"].astype(np.float64)
    lengths = tensors[f"{name}.lengths"]
    fits = len(lengths) == entries and len(slots) == len(counts) and len(starts) == len(terms) + 1
    if not fits or starts[-1] != len(slots) or (np.diff(starts) < 0).any():
        raise ValueError(f"the postings of {name} do not belong together")
    if len(slots) and not 0 <= slots.min() <= slots.max() < entries:
        raise ValueError(f"the postings of {name} name entries that are not there")
    return Postings.of(Segment(terms, starts, slots, counts), lengths)
