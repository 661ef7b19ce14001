"""The figures of answers that may be withheld."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noodle_ray.fusion.selective import (
    Answer,
    answer_of,
    confidence_rise_percent,
    expected_calibration_error,
    reliability,
    selective,
)

ANSWERS = st.lists(st.builds(Answer, st.floats(0, 1), st.booleans(), st.sampled_from(["", "a", "b"])), min_size=1)


def test_withheld_answers_do_not_count() -> None:
    answers = [Answer(0.9, True), Answer(0.8, False), Answer(0.3, False), Answer(0.2, True)]
    figures = selective(answers, 0.7)
    assert figures.accuracy_percent == 50.0
    assert figures.selective_accuracy_percent == 50.0
    assert figures.coverage_percent == 50.0
    assert selective(answers, 0.95).selective_accuracy_percent is None
    with pytest.raises(ValueError, match="no answers"):
        selective([], 0.7)


@given(ANSWERS, st.floats(0, 1))
def test_figures_stay_within_their_bounds(answers: list[Answer], threshold: float) -> None:
    figures = selective(answers, threshold)
    assert 0 <= figures.accuracy_percent <= 100
    assert 0 <= figures.coverage_percent <= 100
    assert 0 <= figures.ece <= 1
    assert sum(bar.count for bar in reliability(answers)) == len(answers) == figures.cases


def test_calibration_is_the_gap_between_confidence_and_accuracy() -> None:
    perfect = [Answer(0.75, index < 75) for index in range(100)]
    assert expected_calibration_error(perfect) == pytest.approx(0.0)
    boasting = [Answer(1.0, index < 50) for index in range(100)]
    assert expected_calibration_error(boasting) == pytest.approx(0.5)
    assert expected_calibration_error([Answer(1.0, True), Answer(0.05, False)]) == pytest.approx(0.025)


def test_the_worst_class_is_one_with_enough_cases() -> None:
    answers = [Answer(0.9, index % 10 > 0, "often") for index in range(60)]
    answers += [Answer(0.9, True, "always") for _ in range(60)]
    answers += [Answer(0.9, False, "rare") for _ in range(49)]
    answers += [Answer(0.1, False, "withheld") for _ in range(60)]
    assert selective(answers, 0.7).worst_class == ("often", 90.0)
    assert selective(answers[-49:], 0.7).worst_class is None


def test_of_equals_the_first_is_the_answer() -> None:
    assert answer_of(np.array([0.4, 0.4, 0.2]), 0, "a") == Answer(0.4, True, "a")
    assert answer_of(np.array([0.4, 0.4, 0.2]), 1) == Answer(0.4, False)


def test_rises_are_counted_over_cases_and_modalities() -> None:
    assert confidence_rise_percent([]) == 0.0
    assert confidence_rise_percent([({"text": 0.5, "code": 0.9}, 0.8), ({"text": 0.8}, 0.8)]) == pytest.approx(100 / 3)
