"""Fitting rules: what is chosen, and that it is never worse than late fusion where that can be told."""

from __future__ import annotations

import numpy as np
import pytest

from noodle_ray.fusion.fitting import (
    GATED,
    LATE,
    METHODS,
    WEIGHTED,
    Case,
    best_temperature,
    fit_rule,
    fitted_by,
    negative_log_likelihood,
    subsets_of,
)
from noodle_ray.fusion.rule import log_softmax

CANDIDATES = 6


def cases(seed: int, count: int, doubled: bool = False, flaky: bool = False) -> list[Case]:
    """Text is right with some noise; audio says the same as text where doubled, and vision is sure or noise."""
    draw = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        right = int(draw.integers(CANDIDATES))
        text = draw.normal(size=CANDIDATES)
        text[right] += 2.5
        scores = {"text": text}
        if doubled:
            scores["audio"] = text + draw.normal(size=CANDIDATES) * 0.01
        if flaky:
            vision = draw.normal(size=CANDIDATES) * 0.5
            vision[right] += 8.0 if draw.random() < 0.4 else 0.0
            scores["vision"] = vision
        made.append(Case(scores, right))
    return made


def test_a_few_right_cases_do_not_make_sure_without_end() -> None:
    scores = [np.array([5.0, 1.0, 0.0])] * 20
    temperature = best_temperature(scores, [0] * 20)
    confidence = np.exp(log_softmax(scores[0] / temperature))[0]
    assert 0.93 < confidence < 0.97  # 20 of 21


def test_temperatures_are_found() -> None:
    draw = np.random.default_rng(1)
    scores, right = [], []
    for _ in range(2000):
        values = draw.normal(size=CANDIDATES) * 3.0
        shares = np.exp(values / 2.0)
        scores.append(values)
        right.append(int(draw.choice(CANDIDATES, p=shares / shares.sum())))
    assert best_temperature(scores, right) == pytest.approx(2.0, rel=0.15)


def test_what_is_said_twice_is_not_counted_twice() -> None:
    rule = fit_rule(cases(1, 300, doubled=True), cases(2, 300, doubled=True))
    both = rule.subsets["text+audio"]
    assert both.method == WEIGHTED or both.temperature > 1.5
    late = fitted_by(LATE, cases(1, 300, doubled=True), cases(2, 300, doubled=True))
    test = cases(3, 500, doubled=True)
    assert negative_log_likelihood(rule, test) <= negative_log_likelihood(late, test) + 0.01


def test_a_source_that_knows_when_it_knows_is_gated() -> None:
    fit, validation, test = (cases(seed, 300, flaky=True) for seed in (1, 2, 3))
    rule = fit_rule(fit, validation)
    assert rule.subsets["vision"].method == GATED
    late = fitted_by(LATE, fit, validation)
    assert negative_log_likelihood(rule, test) < negative_log_likelihood(late, test)


def test_late_fusion_stays_where_nothing_beats_it() -> None:
    rule = fit_rule(cases(1, 300), cases(2, 300))
    assert rule.subsets["text"].method == LATE


@pytest.mark.parametrize("method", METHODS)
def test_each_method_fits_every_subset(method: str) -> None:
    fit, validation = cases(1, 60, True, True), cases(2, 60, True, True)
    rule = fitted_by(method, fit, validation)
    assert set(rule.subsets) == {"+".join(subset) for subset in subsets_of(fit)}
    assert {subset.method for subset in rule.subsets.values()} == {method}


def test_subsets_that_do_not_occur_are_left_out() -> None:
    alone = Case({"code": np.array([1.0, 0.0])}, 0)
    rule = fit_rule([*cases(1, 50), alone], [*cases(2, 50), alone])
    assert set(rule.subsets) == {"text", "code"}
    assert set(fitted_by(LATE, [*cases(1, 50), alone], cases(2, 50)).subsets) == {"text"}
    assert set(fit_rule([*cases(1, 50), alone], cases(2, 50)).subsets) == {"text"}


def test_limiting_a_case_takes_all_ways_of_a_modality() -> None:
    case = Case({"audio:a": np.zeros(2), "audio:b": np.zeros(2), "text": np.zeros(2)}, 0)
    limited = case.limited_to(["audio"])
    assert limited is not None
    assert set(limited.scores) == {"audio:a", "audio:b"}
    assert case.limited_to(["audio", "code"]) is None


def test_without_cases_there_is_nothing_to_fit() -> None:
    with pytest.raises(ValueError, match="cases"):
        fit_rule([], cases(1, 5))


def test_fitting_weights_follows_its_gradient() -> None:
    from noodle_ray.fusion import fitting

    rule = fitted_by(LATE, cases(1, 20, True, True), cases(1, 20, True, True))
    experts = [rule.experts(case.scores) for case in cases(1, 20, True, True)]
    right = [case.right for case in cases(1, 20, True, True)]
    sources = ["audio", "text", "vision"]
    at = np.array([0.9, 1.2, 0.7, 0.1, 0.2, 0.3])
    _, gradient = fitting._penalised_loss(at, sources, experts, right)
    for position in range(len(at)):
        step = np.zeros_like(at)
        step[position] = 1e-5
        above, _ = fitting._penalised_loss(at + step, sources, experts, right)
        below, _ = fitting._penalised_loss(at - step, sources, experts, right)
        assert (above - below) / 2e-5 == pytest.approx(gradient[position], abs=1e-4)
