"""Second tries are a burst, and then a share of the first ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noodle_ray.entry.retry_budget import RetryBudget
from noodle_ray.errors import InvalidInput


def test_a_burst_and_then_a_share_of_what_is_asked() -> None:
    budget = RetryBudget(burst=3, share=0.25)
    assert [budget.take() for _ in range(4)] == [True, True, True, False]
    for _ in range(4):
        budget.asked()
    assert [budget.take() for _ in range(2)] == [True, False]


def test_what_is_not_used_is_kept_up_to_the_burst() -> None:
    budget = RetryBudget(burst=2, share=1)
    for _ in range(10):
        budget.asked()
    assert [budget.take() for _ in range(3)] == [True, True, False]


def test_nothing_may_be_allowed_but_not_less() -> None:
    assert not RetryBudget(burst=0, share=0).take()
    for wrong in ({"burst": -1.0}, {"share": -0.1}, {"share": float("nan")}):
        with pytest.raises(InvalidInput, match=next(iter(wrong))):
            RetryBudget(**wrong)


@given(st.lists(st.booleans(), max_size=200))
def test_never_more_than_the_burst_and_the_share(tries_again: list[bool]) -> None:
    budget, taken = RetryBudget(burst=5, share=0.5), 0
    for asked, again in enumerate(tries_again, 1):
        budget.asked()
        taken += again and budget.take()
        assert taken <= 5 + 0.5 * asked
