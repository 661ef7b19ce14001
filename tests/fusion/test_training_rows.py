"""The rows a head is taught by: every fault told with its line, and parts that share nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fusion_media import picture, sound
from hypothesis import given
from hypothesis import strategies as st

from noodle_ray.errors import InvalidInput
from noodle_ray.fusion.training_rows import FEWEST, PARTS, Content, Example, divide, read_rows


def written(folder: Path, rows: list[Any]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def example(label: str, unit: str, split: Any = None, line: int = 1) -> Example:
    return Example(line, label, {"text": Content(unit, unit)}, unit, split)


def test_rows_show_any_modalities(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture())
    (tmp_path / "a.wav").write_bytes(sound(np.zeros(800, np.float32)))
    full = {"label": "a", "text": "one", "code": "f()", "image": "a.png", "audio": "a.wav", "group": "g"}
    rows = read_rows(written(tmp_path, [full, "", {"label": "b", "text": "two", "split": "fit"}]))
    assert [(row.line, row.label, sorted(row.contents)) for row in rows] == [
        (1, "a", ["audio", "code", "text", "vision"]),
        (3, "b", ["text"]),
    ]
    assert (rows[0].unit, rows[1].split) == ("g", "fit")
    assert np.shape(rows[0].contents["vision"].decoded("vision")) == (30, 40, 3)
    assert np.shape(rows[0].contents["audio"].decoded("audio")) == (800,)
    assert rows[1].contents["text"].decoded("text") == "two"


def test_every_fault_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(picture()[:20])
    rows = [
        "{",
        {"text": "no label"},
        {"label": "a"},
        {"label": "a", "text": "x", "colour": "red"},
        {"label": "a", "image": "nowhere.png"},
        {"label": "a", "image": "broken.png"},
        {"label": "a", "text": "  "},
        {"label": "a", "text": "x", "split": "train"},
        {"label": "a", "text": "fine"},
        "[1]",
    ]
    with pytest.raises(InvalidInput) as caught:
        read_rows(written(tmp_path, rows))
    told = [(fault.field, fault.problem) for fault in caught.value.faults]
    assert [field for field, _ in told] == [f"line {n}" for n in (1, 2, 3, 4, 5, 6, 7, 8, 10)]
    words = ("JSON", "label", "at least one", "colour", "nowhere.png", "picture", "spaces", "fit", "dictionary")
    for (_, problem), word in zip(told, words, strict=True):
        assert word in problem


def test_many_faults_are_counted(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="30 more faults"):
        read_rows(written(tmp_path, ["{"] * 50))
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_rows(tmp_path / "nowhere.jsonl")


@given(st.integers(FEWEST, 60), st.integers(FEWEST, 60), st.integers(0, 99), st.randoms())
def test_a_draw_divides_each_class_alike_and_never_a_unit(few: int, many: int, seed: int, random: Any) -> None:
    rows = [example("a", f"a{n}") for n in range(few)] + [example("b", f"b{n}") for n in range(many)] * 2
    parts = divide(rows, seed)
    homes = {part: {row.unit for row in parts[part]} for part in PARTS}
    assert sum(map(len, parts.values())) == len(rows)
    assert not (
        homes["fit"] & homes["validation"] or homes["fit"] & homes["test"] or homes["validation"] & homes["test"]
    )
    for label, count in (("a", few), ("b", many)):
        for part in ("validation", "test"):
            assert sum(unit[0] == label for unit in homes[part]) == round(0.2 * count)
    shuffled = rows[:]
    random.shuffle(shuffled)
    again = divide(shuffled, seed)
    assert {part: {row.unit for row in again[part]} for part in PARTS} == homes


def test_a_given_split_is_kept() -> None:
    rows = [example(label, f"{label}{part}{n}", part) for label in "ab" for part in PARTS for n in range(FEWEST)]
    parts = divide(rows, 1)
    assert {part: len(parts[part]) for part in PARTS} == dict.fromkeys(PARTS, 2 * FEWEST)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([example("a", str(n)) for n in range(20)], "1 class"),
        ([example("a", str(n)) for n in range(20)] + [example("b", f"b{n}") for n in range(9)], "'b' 9 times"),
        ([example("a", str(n)) for n in range(20)] + [example("b", "same")] * 20, "'b' 1 times"),
        (
            [example("a", f"a{n}", "fit" if n else None, n) for n in range(10)]
            + [example("b", f"b{n}", "fit") for n in range(10)],
            "line 0: has no split",
        ),
        ([example(label, f"{label}{n}", "fit") for label in "ab" for n in range(10)], "'test' show none of 'a', 'b'"),
        (
            [example(label, f"{label}{n}", part) for label in "ab" for part in PARTS for n in range(10)],
            "is in 'validation'; the same",
        ),
        ([example(label, str(n), line=n) for label in "ab" for n in range(10)], "line 0: says the same as"),
    ],
)
def test_what_cannot_be_divided_is_refused(rows: list[Example], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        divide(rows, 1)
