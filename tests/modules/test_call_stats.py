"""Counts of calls: what adds up, what is left when an earlier look is taken away, and how exact a quantile is."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noodle_ray.modules.call_stats import BUCKETS, FIRST_MS, RATIO, UPPER_MS, CallCounter, CallStats

SECONDS = st.lists(st.floats(1e-7, 90, allow_nan=False))


def counted(seconds: list[float]) -> CallStats:
    counter = CallCounter()
    for taken in seconds:
        counter.began()
        counter.ended(taken, failed=False)
    return counter.stats()


def test_what_counts_as_what() -> None:
    counter = CallCounter()
    for _ in range(5):
        counter.began()
    counter.ended(0.001, failed=False)
    counter.ended(0.001, failed=True)
    counter.ended(0.001, failed=None)
    stats = counter.stats()
    assert (stats.answered, stats.failed, stats.in_flight, sum(stats.milliseconds)) == (1, 1, 2, 1)


def test_buckets_reach_from_a_tenth_of_a_millisecond_to_a_hundred_seconds() -> None:
    assert (UPPER_MS[0], len(CallStats().milliseconds)) == (FIRST_MS, BUCKETS)
    assert 100_000 < UPPER_MS[-1] < 130_000
    assert counted([0.0, 1e6]).milliseconds[0] == counted([0.0, 1e6]).milliseconds[-1] == 1


def test_nothing_has_no_median() -> None:
    assert CallStats().median_ms is None


@given(SECONDS, SECONDS)
def test_sums_and_differences(first: list[float], second: list[float]) -> None:
    together = counted(first) + counted(second)
    assert together == counted(first + second)
    assert together.since(counted(first)) == counted(second)


@given(SECONDS.filter(bool), st.floats(0, 1))
def test_a_quantile_is_within_its_bucket(seconds: list[float], q: float) -> None:
    exact = sorted(seconds)[max(0, -int(-q * len(seconds) // 1) - 1)] * 1000
    found = counted(seconds).quantile_ms(q)
    assert found is not None
    if exact <= FIRST_MS:
        assert found <= FIRST_MS
    else:
        assert found / RATIO**0.51 <= exact <= found * RATIO**0.51


def test_the_median() -> None:
    seconds = [number / 1000 for number in range(1, 100)]
    assert counted(seconds).median_ms == pytest.approx(statistics.median(seconds) * 1000, rel=0.12)
