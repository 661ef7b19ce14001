"""Rules: experts, weights, gates and temperatures, and which rule a subset of modalities gets."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from noodle_ray.errors import InvalidInput
from noodle_ray.fusion.rule import Rule, SubsetRule, combined, log_softmax, modality_of, subset_of, uncertainty

SCORES = arrays(np.float64, st.integers(1, 8), elements=st.floats(-1e3, 1e3))
EXPERT = arrays(np.float64, 5, elements=st.floats(-50, 0)).map(log_softmax)


@given(SCORES, st.floats(-1e6, 1e6))
def test_log_softmax_is_a_distribution_that_ignores_shifts(scores: np.ndarray, shift: float) -> None:
    assert math.isclose(np.exp(log_softmax(scores)).sum(), 1.0, abs_tol=1e-9)
    assert np.allclose(log_softmax(scores), log_softmax(scores + shift), atol=1e-6)


@given(st.lists(EXPERT, min_size=1, max_size=4))
def test_the_order_of_experts_does_not_matter(experts: list[np.ndarray]) -> None:
    named = {f"text:{number}": expert for number, expert in enumerate(experts)}
    together = combined({}, named)
    assert math.isclose(together.sum(), 1.0)
    assert np.allclose(together, combined({}, dict(reversed(named.items()))))


@given(EXPERT)
def test_an_expert_without_opinion_changes_nothing(expert: np.ndarray) -> None:
    silent = np.full(5, -math.log(5))
    assert np.allclose(combined({}, {"text": expert}), combined({}, {"text": expert, "code": silent}))


@given(EXPERT)
def test_a_weight_of_two_counts_as_two_experts(expert: np.ndarray) -> None:
    twice = {"text": SubsetRule(method="weighted", weights={"text": 2.0})}
    assert np.allclose(combined(twice, {"text": expert}), combined({}, {"text:a": expert, "text:b": expert}))


@given(EXPERT, st.floats(0.1, 5))
def test_a_gate_opens_with_certainty(expert: np.ndarray, gate: float) -> None:
    gated = {"text": SubsetRule(weights={"text": 1.0}, gates={"text": gate})}
    expected = np.exp(log_softmax(expert * math.exp(-gate * uncertainty(expert))))
    assert np.allclose(combined(gated, {"text": expert}), expected)


def test_uncertainty_is_a_share() -> None:
    assert uncertainty(log_softmax(np.zeros(7))) == pytest.approx(1.0)
    assert uncertainty(np.array([0.0, -1e9, -1e9])) == pytest.approx(0.0)
    assert uncertainty(np.zeros(1)) == 0.0


def test_a_veto_is_no_nan() -> None:
    veto = np.array([0.0, -np.inf])
    assert np.allclose(combined({}, {"text": veto, "code": veto[::-1]}), 0.5)
    assert combined({}, {"text": veto})[1] == 0.0


def test_each_subset_has_its_own_rule_and_the_rest_is_late_fusion() -> None:
    rule = Rule(
        temperatures={"text": 0.5},
        subsets={"text+code": SubsetRule(temperature=2.0), "text": SubsetRule(temperature=2.0)},
    )
    scores = {"text": np.array([0.0, 1.0]), "code": np.array([0.0, 1.0])}
    assert rule.posterior(scores)[1] == pytest.approx(1 / (1 + math.exp(-3 / 2)))
    assert rule.posterior({"text": scores["text"]})[1] == pytest.approx(1 / (1 + math.exp(-1)))
    assert rule.posterior({"code": scores["code"]})[1] == pytest.approx(1 / (1 + math.exp(-1)))
    with pytest.raises(ValueError, match="no evidence"):
        rule.posterior({})


def test_the_context_is_weighed_by_the_rule_of_what_it_comes_with() -> None:
    rule = {"text": SubsetRule(temperature=2.0)}
    expert = np.log([0.8, 0.2])
    assert np.allclose(
        combined(rule, {"text": expert, "context": np.log([0.5, 0.5])}), combined(rule, {"text": expert})
    )


@given(
    st.dictionaries(st.sampled_from(["text", "text:words", "audio", "vision", "code"]), EXPERT, min_size=2),
    st.dictionaries(
        st.sampled_from(["text", "code", "text+code", "text+vision+code", "text+audio+vision+code"]),
        st.builds(
            SubsetRule,
            weights=st.dictionaries(st.sampled_from(["text", "code"]), st.floats(0, 5)),
            temperature=st.floats(0.1, 10),
        ),
    ),
)
def test_a_modality_never_counts_against_its_own_answer(
    experts: dict[str, np.ndarray], rules: dict[str, SubsetRule]
) -> None:
    together = combined(rules, experts)
    assert together.sum() == pytest.approx(1.0)
    best = int(together.argmax())
    for modality in {modality_of(source) for source in experts}:
        own = {source: expert for source, expert in experts.items() if modality_of(source) == modality}
        rest = {source: expert for source, expert in experts.items() if modality_of(source) != modality}
        if rest and int(combined(rules, own).argmax()) == best:
            assert together[best] >= combined(rules, rest)[best] - 1e-12


def test_what_disagrees_may_lower_the_confidence() -> None:
    sure, other = np.log([0.9, 0.1]), np.log([0.4, 0.6])
    assert combined({}, {"text": sure, "code": other})[0] < combined({}, {"text": sure})[0]


def test_subsets_are_named_in_the_fixed_order() -> None:
    assert subset_of(["code", "audio:words", "text", "audio:sound"]) == "text+audio+code"
    assert subset_of(["context", "vision"]) == "vision+context"


def test_rules_survive_json() -> None:
    rule = Rule(temperatures={"text": 0.5}, subsets={"text": SubsetRule(weights={"text": 1.5}, gates={"text": 0.1})})
    assert Rule.parse(rule.to_json()) == rule
    with pytest.raises(InvalidInput):
        Rule.parse({"temperatures": {"text": 0.0}})
