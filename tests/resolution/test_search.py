"""The search: an answer exactly where there is one, and the newest in the order in which packages are decided."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noodle_ray.errors import InvalidInput
from noodle_ray.modules.resolver import solve
from noodle_ray.resolution import search as searching
from noodle_ray.resolution.cases import is_answer
from noodle_ray.resolution.random_tables import Shape, random_table
from noodle_ray.resolution.search import find_circle, search
from noodle_ray.resolution.table import Packages, Table
from noodle_ray.resolution.universe import explore
from tests.resolution.strategies import all_answers, packages, requests


def newest(table: Packages, request: Mapping[str, str], answers: list[dict[str, str]]) -> dict[str, str]:
    """Those answers are kept, package by package, that have its newest version."""
    todo, decided = deque(request), set()
    while todo:
        name = todo.popleft()
        if name in decided:
            continue
        decided.add(name)
        best = max(answer[name] for answer in answers)
        answers = [answer for answer in answers if answer[name] == best]
        todo.extend(table[name][best])
    [answer] = answers
    return answer


@settings(max_examples=400, deadline=None)
@given(packages(), requests)
def test_gives_the_newest_answer_exactly_where_there_is_one(table: Packages, request: dict[str, str]) -> None:
    answers = all_answers(table, request)
    answer = solve(table, request)
    assert (answer is None) == (not answers)
    if answer is not None:
        assert answer == newest(table, request, answers)


@settings(max_examples=300, deadline=None)
@given(packages(), requests)
def test_without_circles_the_same(table: Packages, request: dict[str, str]) -> None:
    universe = explore(Table(table), request)

    def has_circle(answer: Mapping[str, str]) -> bool:
        places = {name: universe.packages[name].versions.index(version) for name, version in answer.items()}
        return find_circle(universe, places) is not None

    answers = [answer for answer in all_answers(table, request) if not has_circle(answer)]
    outcome = search(universe, circles_allowed=False)
    assert (outcome.choice is None) == (not answers)
    if outcome.choice is not None:
        answer = {name: universe.packages[name].versions[place] for name, place in outcome.choice.items()}
        assert answer == newest(table, request, answers)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_on_larger_graphs_an_answer_is_one(seed: int) -> None:
    table, request = random_table(Shape(packages=20, versions=8, needs=2, allowed_share=0.5), seed)
    answer = solve(table, request)
    assert answer is None or is_answer(table, request, answer)


def test_when_conflicts_run_out_the_answer_is_still_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "IMPROVING_CONFLICTS", 50)
    table, request = random_table(Shape(packages=40, versions=10, needs=2, allowed_share=0.4), 1)
    universe = explore(Table(table), request)
    outcome = search(universe)
    assert not outcome.newest
    assert outcome.choice is not None
    answer = {name: universe.packages[name].versions[place] for name, place in outcome.choice.items()}
    assert is_answer(table, request, answer)


def test_the_same_request_has_the_same_answer() -> None:
    table, request = random_table(Shape(packages=30, versions=8, needs=2, allowed_share=0.5), 3)
    backwards = {name: dict(reversed(versions.items())) for name, versions in reversed(table.items())}
    assert solve(table, request) == solve(backwards, request)


def test_versions_are_numbers_not_letters() -> None:
    table = {"a": {"9.0.0": {}, "10.0.0": {}, "1": {}}}
    assert solve(table, {"a": "*"}) == {"a": "10.0.0"}
    assert solve(table, {"a": "<9.0"}) == {"a": "1"}
    assert solve(table, {"a": "==1.0.0"}) == {"a": "1"}
    assert solve(table, {"a": "<=9.0.0, !=9.0.0"}) == {"a": "1"}


def test_an_empty_request_has_an_empty_answer() -> None:
    assert solve({"a": {"1.0": {}}}, {}) == {}


@pytest.mark.parametrize(
    ("table", "request_", "said"),
    [
        ({"a": {"1.x": {}}}, {"a": "*"}, "version must be numbers"),
        ({"a": {"1.0": {}}}, {"a": "~=1.0"}, "constraint must be"),
        ({"a": {"1.0": {}}}, {"a": ">=1.0,"}, "constraint must be"),
    ],
)
def test_what_cannot_be_read_is_named(table: Packages, request_: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        solve(table, request_)
