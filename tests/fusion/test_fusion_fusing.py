"""Evidence, the product of experts, contributions and the joint embedding."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from noodle_ray.errors import InvalidInput
from noodle_ray.fusion.calibration import UNFITTED, Calibration, Presumption, Scale, load_calibration, shipped
from noodle_ray.fusion.deadline import RESERVE_S, Deadline
from noodle_ray.fusion.fusing import (
    contributions,
    embedding_shares,
    evidence,
    joint_embedding,
    log_softmax,
    posterior,
    weight_of,
)
from noodle_ray.fusion.reading import Reading

SCORES = arrays(np.float64, st.integers(1, 8), elements=st.floats(-1e3, 1e3))


def unit(*values: float) -> np.ndarray:
    vector = np.array(values, np.float32)
    return vector / np.float32(np.linalg.norm(vector))


def reading(*values: float, certainty: float = 1.0) -> Reading:
    return Reading("test/1", "seen", certainty, unit(*values) if values else None)


@given(SCORES, st.floats(-1e6, 1e6))
def test_log_softmax_is_a_distribution_that_ignores_shifts(scores: np.ndarray, shift: float) -> None:
    assert math.isclose(np.exp(log_softmax(scores)).sum(), 1.0, abs_tol=1e-9)
    assert np.allclose(log_softmax(scores), log_softmax(scores + shift), atol=1e-6)


@given(st.lists(arrays(np.float64, 4, elements=st.floats(-50, 0)), max_size=4), st.randoms())
def test_the_order_of_experts_does_not_matter(experts: list[np.ndarray], random: object) -> None:
    together = posterior(experts, [1.0] * len(experts), 4)
    assert math.isclose(together.sum(), 1.0)
    assert np.allclose(together, posterior(experts[::-1], [1.0] * len(experts), 4))


@given(arrays(np.float64, 5, elements=st.floats(-50, 0)))
def test_an_expert_without_opinion_changes_nothing(expert: np.ndarray) -> None:
    silent = np.full(5, -math.log(5))
    assert np.allclose(posterior([expert], [1.0], 5), posterior([expert, silent], [1.0, 1.0], 5))


@given(arrays(np.float64, 5, elements=st.floats(-50, 0)))
def test_a_weight_of_two_counts_as_two_experts(expert: np.ndarray) -> None:
    assert np.allclose(posterior([expert], [2.0], 5), posterior([expert, expert], [1.0, 1.0], 5))


def test_no_evidence_is_uniform_and_a_veto_is_no_nan() -> None:
    assert np.allclose(posterior([], [], 4), 0.25)
    veto = np.array([0.0, -np.inf])
    assert np.allclose(posterior([veto, veto[::-1]], [1.0, 1.0], 2), 0.5)
    assert posterior([veto], [1.0], 2)[1] == 0.0


def test_contributions_are_what_leaving_out_costs() -> None:
    sure, unsure = np.log([0.9, 0.1]), np.log([0.5, 0.5])
    shares = contributions({"text": sure, "code": unsure}, {"text": 1.0, "code": 1.0}, 2)
    assert shares["text"] == pytest.approx(0.4)
    assert shares["code"] == pytest.approx(0.0)
    against = contributions({"text": sure, "code": np.log([0.2, 0.8])}, {"text": 1.0, "code": 1.0}, 2)
    assert against["code"] < 0 < against["text"]


def test_a_single_modality_is_compared_with_knowing_nothing() -> None:
    assert contributions({"text": np.log([0.7, 0.3])}, {"text": 1.0}, 2)["text"] == pytest.approx(0.2)


@given(st.floats(0.001, 10))
def test_a_higher_temperature_is_a_flatter_distribution(temperature: float) -> None:
    candidates = np.stack([unit(1, 0), unit(0, 1)])
    flat = Calibration(cosines={"text": Scale(temperature=temperature * 2)}, presumption=UNFITTED.presumption)
    sharp = Calibration(cosines={"text": Scale(temperature=temperature)}, presumption=UNFITTED.presumption)
    one, other = (evidence("text", reading(2, 1), candidates, scale) for scale in (flat, sharp))
    assert one is not None
    assert other is not None
    assert one[0] <= other[0] + 1e-12
    assert one[0] > one[1]


def test_without_places_to_compare_there_is_no_evidence() -> None:
    assert evidence("text", reading(1, 0), None, UNFITTED) is None
    assert evidence("text", reading(), np.eye(2, dtype=np.float32), UNFITTED) is None


def test_own_scores_come_before_compared_embeddings() -> None:
    own = Reading("clip", "", 1.0, unit(1, 0), np.array([0.0, 5.0], np.float32))
    result = evidence("vision", own, np.stack([unit(1, 0), unit(0, 1)]), UNFITTED)
    assert np.allclose(result, log_softmax([0, 5]))
    assert weight_of("vision", own, UNFITTED) == 1.0


@given(st.floats(0, 200))
def test_presumed_scores_fade_into_compared_embeddings(unlikeliness: float) -> None:
    candidates = np.stack([unit(1, 0), unit(0, 1)])
    heard = Reading("whisper", "", 1.0, unit(1, 0), np.array([0.0, 9.0], np.float32), unlikeliness)
    mixed = evidence("audio", heard, candidates, UNFITTED)
    assert mixed is not None
    assert math.isclose(np.exp(mixed).sum(), 1.0, abs_tol=1e-9)
    literal = UNFITTED.presumption.probability(unlikeliness)
    expected = literal * np.exp(log_softmax([0, 9]))[1] + (1 - literal) * np.exp(log_softmax([20, 0]))[1]
    assert np.exp(mixed[1]) == pytest.approx(expected, abs=1e-9)
    assert evidence("audio", heard, None, UNFITTED) == pytest.approx(log_softmax([0, 9]))


@given(st.floats(0, 1000), st.floats(0, 1000))
def test_the_unlikelier_the_less_is_presumed(one: float, other: float) -> None:
    low, high = sorted((one, other))
    presumption = Presumption(offset=3.0, slope=0.5)
    assert presumption.probability(low) >= presumption.probability(high) >= 0.0


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.floats(0, 1)), min_size=1, max_size=4))
def test_the_joint_embedding_has_length_one(rows: list[tuple[float, float, float]]) -> None:
    readings = {str(index): reading(x + 2, y, certainty=certainty) for index, (x, y, certainty) in enumerate(rows)}
    joint = joint_embedding(readings)
    assert joint is not None
    assert np.linalg.norm(joint) == pytest.approx(1.0, abs=1e-5)


def test_the_joint_embedding_leans_to_the_surer_reading() -> None:
    joint = joint_embedding({"text": reading(1, 0, certainty=1.0), "vision": reading(0, 1, certainty=0.2)})
    assert joint is not None
    assert joint[0] > joint[1] > 0


def test_opposite_readings_leave_the_surest() -> None:
    joint = joint_embedding({"text": reading(1, 0, certainty=0.5), "code": reading(-1, 0, certainty=0.5)})
    assert joint is not None
    assert abs(joint[0]) == pytest.approx(1.0)


def test_readings_in_spaces_of_their_own_are_not_joined() -> None:
    assert joint_embedding({"vision": reading()}) is None
    assert embedding_shares({"vision": reading()}) == {"vision": 0.0}
    assert embedding_shares({"vision": reading(), "text": reading(1, 0)}) == {"vision": 0.0, "text": 1.0}


def test_embedding_shares_say_how_far_a_modality_turns_the_embedding() -> None:
    shares = embedding_shares({"text": reading(1, 0), "code": reading(1, 0), "audio": reading(0, 1)})
    assert shares["audio"] > shares["text"] == pytest.approx(shares["code"])


def test_the_shipped_calibration_is_fitted_and_says_on_what() -> None:
    calibration = load_calibration("base")
    assert "base" in shipped()
    for modality in ("text", "code", "vision", "audio"):
        fitted = calibration.cosines[modality].fitted
        assert fitted["data"]
        assert fitted["n_test"] > 0
        assert fitted["nll_after"] > 0
    assert calibration.scores["audio"].fitted["accuracy"] > 0.9
    assert calibration.presumption.probability(0.0) > 0.9 > 0.1 > calibration.presumption.probability(20.0)


def test_a_pack_without_calibration_gets_training_scales() -> None:
    assert load_calibration("mine") is UNFITTED


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_temperatures_are_positive_numbers(temperature: float) -> None:
    with pytest.raises(InvalidInput):
        Scale(temperature=temperature)


@given(st.floats(0, 1e6), st.floats(1, 1e6), st.none() | st.floats(1, 1e6), st.floats(0, 1e6))
def test_deadlines_never_reach_beyond_the_service_limit(now: float, limit: float, asked: float, later: float) -> None:
    deadline = Deadline.after(now, limit, asked)
    assert deadline.limit_ms <= limit
    assert deadline.limit_ms <= (asked or limit)
    assert 0 <= deadline.for_encoders_s(now + later) <= deadline.remaining_s(now + later)
    assert deadline.remaining_s(now + limit / 1000 + 1) == 0


def test_a_little_time_is_kept_for_fusing() -> None:
    assert Deadline.after(0.0, 200).for_encoders_s(0.0) == pytest.approx(0.2 - RESERVE_S)
    assert Deadline.after(0.0, 4).for_encoders_s(0.0) == pytest.approx(0.002)
