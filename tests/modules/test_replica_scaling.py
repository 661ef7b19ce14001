"""How many hosts are wanted: between the limits, up at once, down only after a calm."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from noodle_ray.modules.manifest import Replicas
from noodle_ray.modules.scaling import CALM_S, Scaler


def scaler(low: int = 1, high: int = 4, calls: float = 8.0) -> Scaler:
    return Scaler(Replicas(min=low, max=high, calls=calls))


def test_more_at_once() -> None:
    assert scaler().wanted(in_flight=17, hosts=1, now_s=0.0) == 3


def test_never_beyond_the_limits() -> None:
    assert scaler().wanted(in_flight=1000, hosts=1, now_s=0.0) == 4
    assert scaler(low=2).wanted(in_flight=0, hosts=2, now_s=0.0) == 2


def test_fewer_only_after_a_calm_and_not_fewer_than_were_needed_in_it() -> None:
    follows = scaler()
    assert follows.wanted(in_flight=0, hosts=4, now_s=0.0) == 4
    assert follows.wanted(in_flight=10, hosts=4, now_s=CALM_S / 2) == 4
    assert follows.wanted(in_flight=0, hosts=4, now_s=CALM_S) == 2
    assert follows.wanted(in_flight=0, hosts=2, now_s=CALM_S + 1) == 2, "another calm begins"


def test_a_rush_ends_the_calm() -> None:
    follows = scaler()
    follows.wanted(in_flight=0, hosts=4, now_s=0.0)
    assert follows.wanted(in_flight=32, hosts=4, now_s=CALM_S / 2) == 4
    assert follows.wanted(in_flight=0, hosts=4, now_s=CALM_S) == 4


@given(
    steps=st.lists(st.tuples(st.integers(0, 100), st.floats(0, 60)), max_size=30),
    low=st.integers(1, 3),
    more=st.integers(0, 5),
)
def test_what_is_wanted_is_within_the_limits_and_enough(steps: list[tuple[int, float]], low: int, more: int) -> None:
    follows, hosts, now_s = scaler(low, low + more), low, 0.0
    for in_flight, passed_s in steps:
        now_s += passed_s
        hosts = follows.wanted(in_flight, hosts, now_s)
        assert low <= hosts <= low + more
        assert hosts * 8 >= in_flight or hosts == low + more
