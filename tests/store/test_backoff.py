"""Pauses before another try, and the loop that takes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from noodle_ray.errors import NotFound, Unavailable
from noodle_ray.store.backoff import Backoff
from noodle_ray.store.until_available import BACKOFF, until_available

SECONDS = st.floats(0.001, 1e6)


def test_pauses_double_up_to_the_limit() -> None:
    assert [Backoff(1.0, 10.0).pause_s(failures, 0.0) for failures in range(1, 7)] == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_chance_shortens_a_pause_by_up_to_a_half() -> None:
    assert [Backoff(1.0, 10.0).pause_s(3, chance) for chance in (0.0, 0.5, 1.0)] == [4.0, 3.0, 2.0]


@given(first=SECONDS, most=SECONDS, failures=st.integers(0, 10**9), chance=st.floats(0, 1))
def test_no_pause_is_over_the_limit_or_shorter_than_half_of_the_one_before(
    first: float, most: float, failures: int, chance: float
) -> None:
    backoff = Backoff(first, most)
    pause_s = backoff.pause_s(failures + 1, chance)
    assert min(first, most) / 2 <= pause_s <= most
    assert backoff.pause_s(failures + 1, 0.0) >= backoff.pause_s(failures, 0.0)


class Away:
    """Work that raises what it is given, one error each time, and then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.asked, self.slept = list(errors), 0, list[float]()

    async def __call__(self) -> str:
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


async def test_work_is_done_again_until_the_store_is_there() -> None:
    work = Away(*(Unavailable(f"away {n}") for n in range(3)))
    with capture_logs() as logs:
        assert await until_available(work, work.sleep, lambda: 0.0) == "done"
    assert work.slept == [BACKOFF.pause_s(n, 0.0) for n in (1, 2, 3)] == [0.1, 0.2, 0.4]
    assert [log["error"] for log in logs if log["event"] == "store_away"] == ["away 0", "away 1", "away 2"]


async def test_another_error_is_raised_at_once() -> None:
    work = Away(Unavailable("away"), NotFound("table", "x"))
    with pytest.raises(NotFound):
        await until_available(work, work.sleep)
    assert work.asked == 2
