"""Whether a new version does worse: what is failing, what is slow, when it is told, and what chance says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import fisher_exact

from noodle_ray.modules.call_stats import CallCounter, CallStats
from noodle_ray.modules.canary import IDLE_S, Judgement, Trial, chance_of_more

TRIAL = Trial(calls=20, timeout_s=2.0)
GOOD = Judgement()
NONE = CallStats()


def calls(answered: int, failed: int = 0, took_s: float = 0.001) -> CallStats:
    counter = CallCounter()
    for number in range(answered + failed):
        counter.began()
        counter.ended(took_s, failed=number < failed)
    return counter.stats()


def test_enough_good_calls_are_enough() -> None:
    assert TRIAL.judge(calls(19), calls(500), calls(100), 0.1) is None
    assert TRIAL.judge(calls(20), calls(500), calls(100), 0.1) == GOOD


def test_fewer_are_when_the_time_is_over() -> None:
    assert TRIAL.judge(calls(1), calls(500), calls(100), 1.9) is None
    assert TRIAL.judge(calls(1), calls(500), calls(100), 2.0) == GOOD


def test_a_module_that_nobody_calls_is_not_kept_waiting() -> None:
    assert TRIAL.judge(NONE, calls(500), NONE, IDLE_S - 0.01) is None
    assert TRIAL.judge(NONE, calls(500), NONE, IDLE_S) == GOOD
    assert TRIAL.judge(NONE, calls(500), calls(1), IDLE_S) is None
    busy = CallCounter()
    busy.began()
    assert TRIAL.judge(busy.stats(), calls(500), NONE, IDLE_S) is None
    assert TRIAL.judge(NONE, calls(500), busy.stats(), IDLE_S) is None


def test_more_failures_than_before_are_told_at_once_where_they_are_no_chance() -> None:
    judgement = TRIAL.judge(calls(0, failed=3), calls(500), calls(100), 0.1)
    assert judgement == Judgement("3 of 3 calls failed, 0 of 500 before")


def test_a_few_failures_are_told_at_the_end() -> None:
    assert TRIAL.judge(calls(10, failed=1), calls(500), calls(100), 0.1) is None
    assert TRIAL.judge(calls(18, failed=2), calls(500), calls(100), 0.1) == Judgement(
        "2 of 20 calls failed, 0 of 500 before"
    )


def test_one_failure_alone_is_none() -> None:
    assert TRIAL.judge(calls(19, failed=1), calls(100_000), calls(100), 0.1) == GOOD


def test_a_version_that_fails_as_often_as_the_one_before_will_do() -> None:
    assert TRIAL.judge(calls(10, failed=10), calls(250, failed=250), NONE, 0.1) == GOOD


def test_without_any_before_only_one_that_always_fails_will_not_do() -> None:
    assert TRIAL.judge(calls(0, failed=2), NONE, NONE, 0.1) is None
    assert TRIAL.judge(calls(0, failed=3), NONE, NONE, 0.1) == Judgement("3 of 3 calls failed, 0 of 0 before")
    assert TRIAL.judge(calls(1, failed=19), NONE, NONE, 0.1) == GOOD


def test_a_version_that_is_much_slower_will_not_do() -> None:
    judgement = TRIAL.judge(calls(10, took_s=0.1), calls(500), calls(100), 0.1)
    assert judgement is not None and judgement.problem.startswith("the middle call took ")
    assert TRIAL.judge(calls(9, took_s=0.1), calls(500), calls(100), 0.1) is None
    assert TRIAL.judge(calls(20, took_s=0.01), calls(500), calls(100), 0.1) == GOOD, "a few milliseconds are nothing"
    assert TRIAL.judge(calls(20, took_s=0.1), calls(500, took_s=0.05), NONE, 0.1) == GOOD, "less than three times"


@given(
    failed=st.integers(0, 20), fine=st.integers(0, 20), failed_before=st.integers(0, 50), fine_before=st.integers(0, 50)
)
def test_the_chance_is_that_of_fishers_exact_test(failed: int, fine: int, failed_before: int, fine_before: int) -> None:
    expected = fisher_exact([[failed, fine], [failed_before, fine_before]], alternative="greater").pvalue
    found = chance_of_more(failed, failed + fine, failed_before, failed_before + fine_before)
    assert found == pytest.approx(expected, abs=1e-9)
