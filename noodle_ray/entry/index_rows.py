"""Files of entries and of known queries: one JSON object a line, in which pictures and sounds are paths."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from noodle_ray.base_model import Model
from noodle_ray.errors import Fault, InvalidInput

M = TypeVar("M", bound=Model)
MEDIA = ("image", "audio")


def read_index_rows(path: Path, model: type[M]) -> list[M]:
    """Every row as the model; `image` and `audio` are paths, or lists of paths, from the file's own folder on.

    Raises InvalidInput that lists what is wrong in which line.
    """
    rows: list[M] = []
    faults: list[Fault] = []
    for number, line in _lines(path):
        try:
            rows.append(model.parse(_with_media(json.loads(line), path.parent)))
        except InvalidInput as error:
            faults += [Fault(f"line {number}: {fault.field}", fault.problem, fault.given) for fault in error.faults]
        except ValueError as error:
            faults.append(Fault(f"line {number}", f"must be a JSON object: {error}"))
    if not rows and not faults:
        faults.append(Fault(path.name, "holds no rows"))
    if faults:
        raise InvalidInput(faults, subject=path.name)
    return rows


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput.of(path.name, f"must be UTF-8: {error.reason} at byte {error.start}") from None
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield number, line


def _with_media(row: object, folder: Path) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ValueError(f"it is a {type(row).__name__}")
    return {name: _contents(name, value, folder) if name in MEDIA else value for name, value in row.items()}


def _contents(field: str, value: object, folder: Path) -> list[bytes]:
    paths = value if isinstance(value, list) else [value]
    return [_content(field, path, folder) for path in paths]


def _content(field: str, path: object, folder: Path) -> bytes:
    if not isinstance(path, str):
        raise InvalidInput.of(field, "must be a path, or a list of paths", path)
    try:
        return (folder / path).read_bytes()
    except OSError as error:
        raise InvalidInput.of(field, f"cannot be read: {error.strerror}", path) from None
