"""Reading cases, and telling an answer from what is none."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from noodle_ray.errors import InvalidInput
from noodle_ray.resolution.cases import is_answer, read_cases

TABLE = {"a": {"1.0.0": {"b": ">=2.0.0"}}, "b": {"1.0.0": {}, "2.0.0": {}}, "c": {"1.0.0": {}}}


def write(path: Path, text: str) -> None:
    with gzip.open(path, "wt") as file:
        file.write(text)


def test_lines_and_tables_are_read(tmp_path: Path) -> None:
    case = {"id": "x/1", "packages": TABLE, "root": {"a": "*"}, "expect": {"satisfiable": True}}
    own_rule = {**case, "id": "x/2", "policy": "no circles"}
    write(tmp_path / "x.jsonl.gz", "\n".join(json.dumps(one) for one in (case, own_rule)))
    roots = [{"a": "*"}, {"c": ">1.0.0"}]
    write(
        tmp_path / "large_case.json.gz", json.dumps({"packages": TABLE, "roots": roots, "satisfiable": [True, False]})
    )
    read = read_cases(tmp_path)
    assert [(one.name, one.group, one.satisfiable) for one in read] == [
        ("large_case/0", "large_case", True),
        ("large_case/1", "large_case", False),
        ("x/1", "x", True),
    ]


@pytest.mark.parametrize("text", ["{", "[]", '{"id": "x"}'])
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    write(tmp_path / "x.jsonl.gz", text)
    with pytest.raises(InvalidInput, match=r"x\.jsonl\.gz"):
        read_cases(tmp_path)


def test_a_directory_without_cases_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"\*\.jsonl\.gz"):
        read_cases(tmp_path)


@pytest.mark.parametrize(
    ("answer", "is_one"),
    [
        ({"a": "1.0.0", "b": "2.0.0"}, True),
        ({"a": "1.0.0", "b": "1.0.0"}, False),  # a needs a newer one
        ({"a": "1.0.0"}, False),  # b is missing
        ({"a": "1.0.0", "b": "2.0.0", "c": "1.0.0"}, False),  # nobody needs c
        ({"a": "1.0.0", "b": "3.0.0"}, False),  # there is no such version
        ({}, False),
    ],
)
def test_an_answer_has_what_is_needed_and_nothing_else(answer: dict[str, str], is_one: bool) -> None:
    assert is_answer(TABLE, {"a": "*"}, answer) is is_one
