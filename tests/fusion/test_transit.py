"""What requests are expected to take on their way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from noodle_ray.fusion.transit import LATEST, MOST_MS, Transit


def test_nothing_is_expected_before_anything_was_seen() -> None:
    assert Transit().expected_ms == 0.0


@given(st.lists(st.floats(-5, 1000), min_size=1, max_size=3 * LATEST))
def test_most_of_the_latest_took_no_longer(taken: list[float]) -> None:
    transit = Transit()
    for ms in taken:
        transit.note(ms)
    latest, expected = taken[-LATEST:], transit.expected_ms
    assert 0.0 <= expected <= MOST_MS
    if expected < MOST_MS:
        assert sum(ms <= expected for ms in latest) >= 0.98 * (len(latest) - 1)


def test_what_is_long_past_is_forgotten() -> None:
    transit = Transit()
    for ms in [40.0] * LATEST + [4.0] * LATEST:
        transit.note(ms)
    assert transit.expected_ms == 4.0
