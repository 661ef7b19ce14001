"""The rows that a head is taught by: one JSON object a line, checked as a whole before anything is trained.

A row has a `label` and any of `text`, `code`, `image` and `audio` (the latter two are paths, relative to the file); it
may have a `split` ("fit", "validation" or "test": then all rows have one) and a `group`: rows of one group, such as
noisy copies of one picture, stay in one part, as do rows that say the same.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from noodle_ray.base_model import Model, faults_of
from noodle_ray.errors import Fault, InvalidInput, NoodleError
from noodle_ray.fusion import limits
from noodle_ray.fusion.decoding import decode_audio, decode_image
from noodle_ray.fusion.inputs import MultimodalInput
from noodle_ray.fusion.modality import FIELD_OF

Part = Literal["fit", "validation", "test"]
PARTS: tuple[Part, ...] = ("fit", "validation", "test")
SHARES = {"validation": 0.2, "test": 0.2}
"""What of each class goes where, if the rows do not say; the rest is fitted on."""
FEWEST = 10
"""Different rows (or groups) that a class needs to be divided."""
TOLD_FAULTS = 20
FILES = ("image", "audio")


class Row(Model):
    """One line of the file."""

    label: Annotated[str, Field(min_length=1, max_length=limits.CANDIDATE_CHARACTERS)]
    text: str | None = None
    code: str | None = None
    image: str | None = None
    audio: str | None = None
    split: Part | None = None
    group: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _shows_something(self) -> Row:
        if all(getattr(self, field) is None for field in FIELD_OF.values()):
            raise ValueError("give at least one of text, code, image and audio")
        return self


@dataclass(frozen=True, slots=True)
class Content:
    """What one modality of a row shows: a text, or a file. `digest`: the sha256 of its bytes."""

    source: str | Path
    digest: str

    def decoded(self, modality: str) -> object:
        """What an encoder reads: text, pixels or samples."""
        if isinstance(self.source, str):
            return self.source
        return (decode_image if modality == "vision" else decode_audio)(self.source.read_bytes())


@dataclass(frozen=True, slots=True)
class Example:
    """A row that was checked: its contents by modality, and its unit, whose examples are never divided."""

    line: int
    label: str
    contents: Mapping[str, Content]
    unit: str
    split: Part | None = None


def read_rows(path: Path) -> list[Example]:
    """Every row of the file, its pictures and sounds read once.

    Raises InvalidInput that lists the lines that are wrong, and why.
    """
    examples: list[Example] = []
    faults: list[Fault] = []
    for number, line in enumerate(_lines(path), 1):
        if line.strip():
            try:
                examples.append(_example(number, line, path.parent))
            except InvalidInput as error:
                faults += [Fault(f"line {number}", f"{fault.field} {fault.problem}") for fault in error.faults]
    _refuse(faults)
    return examples


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput.of("rows", f"cannot be read: {error}", path) from None


def _refuse(faults: Sequence[Fault]) -> None:
    if not faults:
        return
    told = list(faults[:TOLD_FAULTS])
    if len(faults) > TOLD_FAULTS:
        told.append(Fault("rows", f"have {len(faults) - TOLD_FAULTS} more faults"))
    raise InvalidInput(told, subject="rows")


def _example(number: int, line: str, folder: Path) -> Example:
    row = _row(line)
    contents = {
        modality: _content(field, value, folder)
        for modality, field in FIELD_OF.items()
        if (value := getattr(row, field)) is not None
    }
    unit = row.group or "+".join(contents[modality].digest for modality in sorted(contents))
    return Example(number, row.label, contents, unit, row.split)


def _row(line: str) -> Row:
    try:
        return Row.model_validate(json.loads(line))
    except json.JSONDecodeError as error:
        raise InvalidInput.of("row", f"is no JSON: {error}") from None
    except ValidationError as error:
        raise InvalidInput(faults_of(error)) from None


def _content(field: str, value: str, folder: Path) -> Content:
    if field not in FILES:
        MultimodalInput.parse({field: value})
        return Content(value, hashlib.sha256(value.encode()).hexdigest())
    path = folder / value
    try:
        data = path.read_bytes()
        (decode_image if field == "image" else decode_audio)(data)
    except OSError as error:
        raise InvalidInput.of(field, f"{value} cannot be read: {error.strerror}") from None
    except NoodleError as error:
        raise InvalidInput.of(field, f"{value}: {error.message}") from None
    return Content(path, hashlib.sha256(data).hexdigest())


def divide(examples: Sequence[Example], seed: int) -> dict[Part, list[Example]]:
    """The three parts: as the rows say, or by a draw within each class that depends on seed and contents alone.

    Raises InvalidInput that says what is missing: classes, examples of a class, a part.
    """
    _refuse(list(_class_faults(examples)))
    named = [example for example in examples if example.split]
    if not named:
        return _drawn(examples, seed)
    _refuse([Fault(f"line {example.line}", "has no split, others have") for example in examples if not example.split])
    parts: dict[Part, list[Example]] = {part: [example for example in named if example.split == part] for part in PARTS}
    _refuse(list(_part_faults(parts)))
    return parts


def _class_faults(examples: Sequence[Example]) -> Iterator[Fault]:
    units = {(example.label, example.unit) for example in examples}
    counts = Counter(label for label, _ in units)
    if len(counts) < 2:
        yield Fault("rows", f"show {len(counts)} class, at least 2 are needed to tell apart")
    for label in sorted(counts):
        if counts[label] < FEWEST:
            yield Fault("rows", f"show the class {label!r} {counts[label]} times, at least {FEWEST} are needed")
    labels: dict[str, str] = {}
    for example in examples:
        if labels.setdefault(example.unit, example.label) != example.label:
            yield Fault(
                f"line {example.line}", f"says the same as (or has the group of) one of {labels[example.unit]!r}"
            )


def _part_faults(parts: Mapping[Part, Sequence[Example]]) -> Iterator[Fault]:
    labels = {example.label for part in PARTS for example in parts[part]}
    for part in PARTS:
        missing = sorted(labels.difference(example.label for example in parts[part]))
        if missing:
            yield Fault("rows", f"of the part {part!r} show none of {', '.join(map(repr, missing))}")
    homes: dict[str, str] = {}
    for part in PARTS:
        for example in parts[part]:
            if homes.setdefault(example.unit, part) != part:
                yield Fault(
                    f"line {example.line}", f"is in {part!r}; the same (or its group) is in {homes[example.unit]!r}"
                )


def _drawn(examples: Sequence[Example], seed: int) -> dict[Part, list[Example]]:
    by_label: dict[str, set[str]] = {}
    for example in examples:
        by_label.setdefault(example.label, set()).add(example.unit)
    home: dict[str, Part] = {}
    for units in by_label.values():
        ordered = sorted(units, key=lambda unit: in_draw(seed, unit))
        held = {part: max(1, round(share * len(ordered))) for part, share in SHARES.items()}
        for index, unit in enumerate(ordered):
            home[unit] = "test" if index < held["test"] else "validation" if index < sum(held.values()) else "fit"
    return {part: [example for example in examples if home[example.unit] == part] for part in PARTS}


def in_draw(seed: int, unit: str) -> bytes:
    """A place in a shuffled order that depends on nothing else."""
    return hashlib.sha256(f"{seed}/{unit}".encode()).digest()
