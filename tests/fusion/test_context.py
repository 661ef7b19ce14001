"""What a session remembers: it fades with time and turns, stays within its bounds, and survives being kept."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noodle_ray.errors import CorruptData
from noodle_ray.fusion.answering import chosen_evidence, context_effect, decide
from noodle_ray.fusion.calibration import UNFITTED
from noodle_ray.fusion.context import FADING, EnhancedContext, MemoryLimits
from noodle_ray.fusion.fusing import faded
from noodle_ray.fusion.inputs import MultimodalInput
from noodle_ray.fusion.ports import Placed
from noodle_ray.fusion.reading import Reading, Vector
from noodle_ray.fusion.remembered import Turn
from noodle_ray.fusion.rule import log_softmax

LIMITS = MemoryLimits(turns=4, half_life_s=60.0, ttl_s=600.0)
EAST, NORTH = np.array([1, 0, 0], np.float32), np.array([0, 1, 0], np.float32)

units = st.integers(0, 2**32 - 1).map(lambda seed: unit(np.random.default_rng(seed).normal(size=3)))
turns = st.builds(
    Turn,
    space=st.sampled_from(["a", "b"]),
    place=st.none() | units,
    answer=st.none() | st.text(max_size=20),
    answer_place=st.none() | units,
)
times = st.floats(0, 1000, allow_nan=False)


def unit(vector: Vector) -> Vector:
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def context_of(*noted: tuple[float, Turn], limits: MemoryLimits = LIMITS) -> EnhancedContext:
    context = EnhancedContext(limits, 0.0)
    for at, turn in noted:
        context.note(turn, at)
    return context


def test_a_new_session_remembers_nothing() -> None:
    remembered = EnhancedContext(LIMITS, 0.0).remembered(1.0)
    assert (remembered.turns, remembered.place, remembered.strength) == (0, None, 0.0)


def test_a_turn_is_remembered_where_it_lay() -> None:
    remembered = context_of((0.0, Turn("a", EAST))).remembered(0.0)
    assert (remembered.turns, remembered.space, remembered.strength) == (1, "a", 1.0)
    assert np.allclose(remembered.place, EAST)


def test_a_confident_answer_draws_the_turn_to_it() -> None:
    remembered = context_of((0.0, Turn("a", EAST, "north", NORTH))).remembered(0.0)
    assert np.allclose(remembered.place, unit(EAST + NORTH))


def test_half_is_left_after_the_half_life_and_less_after_each_turn() -> None:
    context = context_of((0.0, Turn("a", EAST)))
    assert context.remembered(60.0).strength == pytest.approx(0.5)
    context.note(Turn("a", None), 60.0)
    assert context.remembered(60.0).strength == pytest.approx(0.5 * FADING)


def test_another_anchor_leaves_out_what_lay_elsewhere() -> None:
    remembered = context_of((0.0, Turn("a", EAST)), (1.0, Turn("b", NORTH))).remembered(1.0)
    assert (remembered.turns, remembered.space) == (1, "b")
    assert np.allclose(remembered.place, NORTH)


def test_turns_that_disagree_say_little() -> None:
    agreeing = context_of((0.0, Turn("a", EAST)), (0.0, Turn("a", EAST))).remembered(0.0)
    opposed = context_of((0.0, Turn("a", EAST)), (0.0, Turn("a", NORTH))).remembered(0.0)
    assert opposed.strength < agreeing.strength == pytest.approx(1.0)


def test_what_is_idle_for_too_long_expires_and_use_puts_that_off() -> None:
    context = context_of((0.0, Turn("a", EAST)))
    assert not context.is_expired(599.0)
    context.remembered(599.0)
    assert not context.is_expired(1198.0) and context.is_expired(1199.0)


@given(st.lists(st.tuples(times, turns), max_size=8), times)
def test_whatever_is_noted_stays_within_bounds(noted: list[tuple[float, Turn]], now: float) -> None:
    context = context_of(*noted)
    remembered = context.remembered(now)
    assert len(context) == min(len(noted), LIMITS.turns) and remembered.turns <= len(context)
    assert 0.0 <= remembered.strength <= 1.0
    assert (remembered.place is None) == (remembered.strength == 0.0)
    if remembered.place is not None:
        assert np.linalg.norm(remembered.place) == pytest.approx(1.0, abs=1e-5)


@given(st.lists(st.tuples(st.just(0.0), turns), min_size=1, max_size=4), st.floats(0, 3000))
def test_time_weakens_and_turns_nothing(noted: list[tuple[float, Turn]], later: float) -> None:
    before, after = context_of(*noted).remembered(0.0), context_of(*noted).remembered(later)
    assert after.strength == pytest.approx(before.strength * 0.5 ** (later / LIMITS.half_life_s), rel=1e-5)
    if before.place is not None and after.place is not None:
        assert np.allclose(before.place, after.place, atol=1e-5)


@given(st.lists(st.tuples(times, turns), max_size=6), times)
def test_being_kept_changes_nothing(noted: list[tuple[float, Turn]], now: float) -> None:
    context = context_of(*noted)
    kept = EnhancedContext.from_json(json.loads(json.dumps(context.to_json())), LIMITS)
    assert kept.to_json() == context.to_json()
    one, other = context.remembered(now), kept.remembered(now)
    assert (one.turns, one.space, one.strength) == (other.turns, other.space, other.strength)
    assert (one.place is None) == (other.place is None)
    if one.place is not None and other.place is not None:
        assert one.place.tobytes() == other.place.tobytes()


def test_smaller_limits_keep_the_latest_turns() -> None:
    context = context_of(*((float(at), Turn("a", EAST if at < 3 else NORTH)) for at in range(4)))
    kept = EnhancedContext.from_json(context.to_json(), MemoryLimits(1, 60.0, 600.0))
    assert np.allclose(kept.remembered(4.0).place, NORTH)


@pytest.mark.parametrize(
    "turn",
    [
        {"at": 0, "space": "a", "place": "AAAA"},
        {"at": 0, "space": "a", "place": "§"},
        {"at": 0, "space": "a", "place": "AADAfw=="},
        {"at": 0, "space": "a", "place": 7},
        {"space": "a"},
        {"at": 0, "space": "a", "colour": "red"},
    ],
)
def test_what_was_damaged_is_said_so(turn: dict[str, object]) -> None:
    with pytest.raises(CorruptData, match="session"):
        EnhancedContext.from_json({"used_at": 0, "turns": [turn]}, LIMITS)


class TestAsEvidence:
    REQUEST = MultimodalInput(text="that one", candidates=("east", "north"))

    def decided(self, strength: float | None) -> tuple[str, float, float]:
        even = unit(EAST + NORTH)
        readings = {"text": Reading("e", "", 1.0, even, space="a")}
        if strength is not None:
            readings["context"] = Reading("context", "", strength, NORTH, space="a")
        evidence = chosen_evidence(self.REQUEST, readings, Placed("a", np.stack([EAST, NORTH])), UNFITTED)
        decision = decide(evidence, None)
        effect = context_effect(1, True, decision)
        return decision.ranked[0].candidate, decision.ranked[0].probability, effect.contribution

    def test_it_decides_where_the_request_leaves_it_open(self) -> None:
        assert self.decided(None)[:2] == ("east", pytest.approx(0.5, abs=1e-6))
        name, probability, contribution = self.decided(1.0)
        assert name == "north" and probability > 0.99
        assert contribution == pytest.approx(probability - 0.5, abs=1e-6)

    def test_it_counts_less_the_more_it_has_faded(self) -> None:
        shares = [self.decided(strength)[2] for strength in (1.0, 0.3, 0.1, 0.01)]
        assert shares == sorted(shares, reverse=True)
        assert self.decided(0.0)[1] == pytest.approx(0.5, abs=1e-6)

    @given(st.lists(st.floats(-50, 50), min_size=1, max_size=9), st.floats(0, 1))
    def test_other_evidence_is_left_alone(self, scores: list[float], strength: float) -> None:
        expert = log_softmax(scores)
        result = faded({"text": expert, "context": expert, "context:words": expert}, strength)
        assert result["text"] is expert
        assert np.exp(result["context"]).sum() == pytest.approx(1.0)
        assert np.ptp(result["context"]) == pytest.approx(strength * np.ptp(expert), abs=1e-6)
