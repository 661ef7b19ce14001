"""Evidence, the product of experts, contributions and the joint embedding."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noodle_ray.errors import InvalidInput
from noodle_ray.fusion.calibration import UNFITTED, Calibration, Presumption, Scale, load_calibration, shipped
from noodle_ray.fusion.deadline import RESERVE_S, Deadline
from noodle_ray.fusion.fusing import (
    contributions,
    embedding_shares,
    evidence,
    joint_embedding,
)
from noodle_ray.fusion.reading import Reading
from noodle_ray.fusion.rule import log_softmax


def unit(*values: float) -> np.ndarray:
    vector = np.array(values, np.float32)
    return vector / np.float32(np.linalg.norm(vector))


def reading(*values: float, certainty: float = 1.0) -> Reading:
    return Reading("test/1", "seen", certainty, unit(*values) if values else None)


def test_contributions_are_what_leaving_out_costs() -> None:
    sure, unsure = np.log([0.9, 0.1]), np.log([0.5, 0.5])
    shares = contributions({}, {"text": sure, "code": unsure})
    assert shares["text"] == pytest.approx(0.4)
    assert shares["code"] == pytest.approx(0.0)
    against = contributions({}, {"text": sure, "code": np.log([0.2, 0.8])})
    assert against["code"] < 0 < against["text"]


def test_a_single_modality_is_compared_with_knowing_nothing() -> None:
    assert contributions({}, {"text": np.log([0.7, 0.3])})["text"] == pytest.approx(0.2)


def test_a_modality_is_left_out_with_all_its_sources() -> None:
    experts = {"audio:words": np.log([0.9, 0.1]), "audio:sound": np.log([0.9, 0.1]), "text": np.log([0.5, 0.5])}
    assert set(contributions({}, experts)) == {"audio", "text"}
    assert contributions({}, experts)["audio"] == pytest.approx(0.81 / 0.82 - 0.5)


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
