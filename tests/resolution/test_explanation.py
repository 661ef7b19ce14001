"""Explanations: a conflict that is one and could not be smaller, told in sentences that name everybody in it."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noodle_ray.resolution import conflict, explanation
from noodle_ray.resolution.checking import is_smallest, leaves_answer
from noodle_ray.resolution.conflict import Needs, facts_of
from noodle_ray.resolution.derivation import derive
from noodle_ray.resolution.explanation import Explanation, explain
from noodle_ray.resolution.random_tables import Shape, random_table
from noodle_ray.resolution.search import search
from noodle_ray.resolution.table import Packages, Table
from noodle_ray.resolution.universe import Universe, explore
from tests.resolution.strategies import packages, requests


def explained(table: Packages, request: Mapping[str, str], circles: bool = True) -> tuple[Universe, Explanation | None]:
    source = Table(table)
    universe = explore(source, request)
    outcome = search(universe, circles_allowed=circles)
    return universe, explain(universe, outcome.circles, source.there_is) if outcome.choice is None else None


def sentences(table: Packages, request: Mapping[str, str], circles: bool = True) -> list[str]:
    told = explained(table, request, circles)[1]
    assert told is not None
    return list(told.sentences)


@settings(max_examples=300, deadline=None)
@given(packages(), requests, st.booleans())
def test_a_refusal_is_explained_by_a_smallest_conflict(table: Packages, request: dict[str, str], circles: bool) -> None:
    universe, told = explained(table, request, circles)
    if told is None:
        return
    assert told.conflict.minimal
    assert is_smallest(universe, told.conflict.facts)
    text = " ".join(told.sentences)
    for fact in told.conflict.facts:
        if isinstance(fact, Needs):
            assert (fact.package or "the request") in text and fact.need.package in text
        else:
            assert "circle" in text
    assert text.endswith("the request cannot be met.")


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_on_larger_graphs_too(seed: int) -> None:
    table, request = random_table(Shape(packages=15, versions=6, needs=3, allowed_share=0.4), seed)
    universe, told = explained(table, request)
    if told is not None:
        assert is_smallest(universe, told.conflict.facts)


def test_facts_that_leave_an_answer_derive_nothing() -> None:
    universe = explore(Table({"a": {"1.0": {}}}), {"a": "*"})
    assert leaves_answer(universe, facts_of(universe, ()))
    with pytest.raises(ValueError, match="leave an answer"):
        derive(universe, facts_of(universe, ()))


class TestSentences:
    def test_one_need_alone(self) -> None:
        assert sentences({"a": {"1.0": {}, "2.0": {}}}, {"a": ">2.0"}) == [
            "The request needs a >2.0 (there is only 2.0, 1.0): the request cannot be met."
        ]
        assert sentences({}, {"a": "*"}) == ["The request needs a (there is no a): the request cannot be met."]

    def test_many_versions_are_not_all_named(self) -> None:
        table = {"a": {f"{number}.0": {} for number in range(1, 13)}}
        assert "12.0, 11.0, 10.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0 and older ones" in sentences(table, {"a": ">12"})[0]

    def test_two_needs_of_one_package(self) -> None:
        table = {"a": {"1.0": {"s": "==1.0"}}, "b": {"1.0": {"s": "==2.0"}}, "s": {"1.0": {}, "2.0": {}}}
        assert sentences(table, {"a": "*", "b": "*"}) == [
            "Because a 1.0 needs s ==1.0 and b 1.0 needs s ==2.0, a 1.0 and b 1.0 cannot be used together.",
            "And because the request needs a and b, the request cannot be met.",
        ]

    def test_stretches_of_versions(self) -> None:
        table = {
            "a": {f"{number}.0": {"s": ">=5" if number in (1, 2, 3, 5, 7, 9) else "*"} for number in range(1, 10)},
            "s": {"1.0": {}},
        }
        text = sentences(table, {"a": "!=4.0,!=6.0,!=8.0"})[0]
        assert "a 3.0 or older, 5.0, 7.0 and 1 more stretches need s >=5 (there is only 1.0)" in text

    def test_a_circle(self) -> None:
        table = {"a": {"1.0": {"b": "*"}}, "b": {"1.0": {"a": "*"}, "2.0": {"a": "*"}}}
        text = " ".join(sentences(table, {"a": "*"}, circles=False))
        assert "a circle is not allowed (a needs b, b needs a)" in text

    def test_what_is_needed_twice_has_a_number(self) -> None:
        table = {
            "foo": {"1.0": {"a": "*", "b": "==1.0"}, "2.0": {"x": "*", "y": "==1.0"}},
            "a": {"1.0": {"b": "==2.0"}},
            "b": {"1.0": {}, "2.0": {}},
            "x": {"1.0": {"y": "==2.0"}},
            "y": {"1.0": {}, "2.0": {}},
        }
        told = sentences(table, {"foo": "*"})
        assert told[1].endswith("foo 2.0 cannot be used (1).")
        assert told[-2:] == [
            "And because foo 2.0 cannot be used (1), no version of foo can be used.",
            "And because the request needs foo, the request cannot be met.",
        ]

    def test_a_reason_that_is_too_long_is_summed_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(explanation, "MAX_SENTENCES", 1)
        table, request = random_table(Shape(packages=15, versions=6, needs=3, allowed_share=0.4), 1)
        [told] = sentences(table, request)
        assert re.match(r"\d+ needs of \d+ packages leave no answer between them", told)

    def test_when_conflicts_run_out_some_facts_may_be_left_over(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(conflict, "MINIMISING_CONFLICTS", 1)
        table, request = random_table(Shape(packages=20, versions=6, needs=3, allowed_share=0.4), 1)
        universe, told = explained(table, request)
        assert told is not None and not told.conflict.minimal
        assert not leaves_answer(universe, told.conflict.facts)
