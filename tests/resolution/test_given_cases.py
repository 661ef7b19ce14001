"""Cases of other resolvers: pip's, CocoaPods', Swift's, uv's, Dart's and PubGrub's own."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from noodle_ray.modules.resolver import solve
from noodle_ray.resolution.cases import Case, is_answer, read_cases
from noodle_ray.resolution.checking import is_smallest
from noodle_ray.resolution.explanation import Explanation, explain
from noodle_ray.resolution.search import search
from noodle_ray.resolution.table import Table
from noodle_ray.resolution.universe import explore

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    directory = Path(os.environ.get("SHARED_DATA", ROOT.parent / "shared")) / "resolver-cases"
    if not directory.is_dir():
        pytest.skip(f"no cases at {directory}; SHARED_DATA names the folder that has resolver-cases/")
    return read_cases(directory)


def test_all_are_answered_as_they_should_be(cases: list[Case]) -> None:
    for case in cases:
        answer = solve(case.packages, case.request)
        assert (answer is not None) == case.satisfiable, case.name
        assert answer is None or is_answer(case.packages, case.request, answer), case.name


def explained(case: Case) -> Explanation:
    table = Table(case.packages)
    universe = explore(table, case.request)
    assert search(universe).choice is None
    told = explain(universe, (), table.there_is)
    assert is_smallest(universe, told.conflict.facts), case.name
    return told


def test_every_refusal_is_explained_by_a_smallest_conflict(cases: list[Case]) -> None:
    refused = [case for case in cases if not case.satisfiable]
    assert len(refused) == 92
    for case in refused:
        assert explained(case).sentences[-1].endswith("the request cannot be met.")


def test_darts_explanations_name_no_need_that_ours_do_not(cases: list[Case]) -> None:
    dart = [case for case in cases if case.group == "dart" and case.explanation is not None]
    assert len(dart) == 9
    for case in dart:
        ours = " ".join(explained(case).sentences)
        for who, needed in needs_in(case.explanation or "", {*case.packages, *case.request, "myapp"}):
            subject = "[Tt]he request" if who == "myapp" else who
            assert re.search(rf"{subject}\b[^,]*? needs? [^,]*?\b{needed}\b", ours), f"{case.name}: {who} → {needed}"


def needs_in(explanation: str, names: set[str]) -> list[tuple[str, str]]:
    """Who depends on whom, by their words."""
    name = "|".join(sorted(names))
    found = re.findall(rf"\b({name})\b(?: [^ ,.]\S*)?(?: which)? depends on (?:both )?(?=({name})\b)", explanation)
    assert found or "no versions of" in explanation
    return found
