"""Admission: queues stay shorter than the time there is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noodle_ray.errors import Overloaded
from noodle_ray.fusion.admission import Admission


def taught(modality: str, seconds: float) -> Admission:
    admission = Admission()
    admission.end(admission.begin(modality, 0.0), seconds, is_read=True)
    return admission


def test_the_unknown_is_admitted() -> None:
    assert Admission().admit(["text", "audio"], 0.001) == ("text", "audio")


def test_what_would_be_late_is_left_out() -> None:
    admission = taught("audio", 0.1)
    for _ in range(2):
        admission.begin("audio", 1.0)
    assert admission.admit(["text", "audio"], 0.2) == ("text",)
    assert admission.admit(["text", "audio"], 0.31) == ("text", "audio")


def test_where_all_would_be_late_the_request_is_refused() -> None:
    admission = taught("audio", 0.1)
    for _ in range(4):
        admission.begin("audio", 1.0)
    with pytest.raises(Overloaded) as caught:
        admission.admit(["audio"], 0.2)
    assert caught.value.retry_after_s == pytest.approx(0.3)
    assert caught.value.to_json()["error"]["retry_after_s"] == 0.3
    assert admission.admit([], 0.2) == ()


def test_how_busy_they_are_is_the_busiest_ones_work() -> None:
    admission = taught("audio", 0.1)
    assert admission.busy_s(["audio", "text"]) == 0
    for _ in range(3):
        admission.begin("audio", 1.0)
    admission.begin("text", 1.0)
    assert admission.busy_s(["audio", "text"]) == pytest.approx(0.3)
    assert admission.busy_s(["text"]) == admission.busy_s([]) == 0


def test_an_idle_encoder_is_always_asked() -> None:
    assert taught("audio", 10.0).admit(["audio"], 0.2) == ("audio",)


def test_waiting_for_others_is_not_its_own_time() -> None:
    admission = taught("audio", 0.1)
    turns = [admission.begin("audio", 0.0) for _ in range(4)]
    for number, turn in enumerate(turns, 1):
        admission.end(turn, 0.1 * number, is_read=True)
    admission.begin("audio", 0.0)
    assert admission.admit(["audio"], 0.201) == ("audio",)
    with pytest.raises(Overloaded):
        admission.admit(["audio"], 0.199)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), max_size=30))
def test_whatever_ends_leaves_the_queue(ends: list[tuple[bool, float]]) -> None:
    admission = Admission()
    turns = [admission.begin("text", 0.0) for _ in ends]
    for turn, (is_read, at_s) in zip(turns, ends, strict=True):
        admission.end(turn, at_s, is_read)
    assert admission.admit(["text"], 0.0) == ("text",)
