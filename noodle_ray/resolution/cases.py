"""Cases for a resolver: packages and a request, with what is known of the answer, from files of JSON."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.specifiers import SpecifierSet

from noodle_ray.errors import InvalidInput
from noodle_ray.resolution.table import Packages


@dataclass(frozen=True, slots=True)
class Case:
    """`satisfiable` is None where nobody has told. `explanation` is another resolver's, where there is one."""

    name: str
    group: str
    packages: Packages
    request: Mapping[str, str]
    satisfiable: bool | None
    explanation: str | None = None


def read_cases(directory: Path) -> list[Case]:
    """All cases of a directory: `*.jsonl.gz` with a case a line, `*case.json.gz` with many requests to one table.

    Cases that name a policy of their own are passed over. Raises InvalidInput where there is none, or one is broken.
    """
    cases: list[Case] = []
    for path in sorted(directory.glob("*.json*.gz")):
        try:
            cases += _read_lines(path) if ".jsonl." in path.name else _read_table(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InvalidInput.of("cases", f"{path.name} cannot be read: {error!r}") from None
    if not cases:
        raise InvalidInput.of("cases", "must be a directory with *.jsonl.gz or *case.json.gz", str(directory))
    return cases


def _read_lines(path: Path) -> Iterator[Case]:
    with gzip.open(path, "rt") as lines:
        for line in lines:
            case: dict[str, Any] = json.loads(line)
            if "policy" not in case:
                expected = case["expect"]
                known = expected["satisfiable"], expected.get("explanation")
                yield Case(case["id"], path.name.partition(".")[0], case["packages"], case["root"], *known)


def _read_table(path: Path) -> Iterator[Case]:
    with gzip.open(path, "rt") as file:
        table: dict[str, Any] = json.load(file)
    group = path.name.partition(".")[0]
    for number, (root, satisfiable) in enumerate(zip(table["roots"], table["satisfiable"], strict=True)):
        yield Case(f"{group}/{number}", group, table["packages"], root, satisfiable)


def is_answer(packages: Packages, request: Mapping[str, str], answer: Mapping[str, str]) -> bool:
    """Whether the answer has everything that the request leads to, and nothing else. Compared as PEP 440 has it."""
    led_to: set[str] = set()
    todo = [request]
    while todo:
        for name, constraint in todo.pop().items():
            version = answer.get(name)
            if version is None or version not in packages.get(name, {}):
                return False
            if not SpecifierSet("" if constraint == "*" else constraint).contains(version):
                return False
            if name not in led_to:
                led_to.add(name)
                todo.append(packages[name][version])
    return led_to == set(answer)
