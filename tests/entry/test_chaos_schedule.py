"""`noodle bench chaos`: the schedule of faults keeps its rules, whatever the seed."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noodle_ray.entry.bench.chaos.deck import Deck
from noodle_ray.entry.bench.chaos.schedule import (
    HEAD_OUT_S,
    KINDS,
    LONG_MINUTES,
    MOST_GAP_S,
    STARTED_BY_GCS,
    TAIL_S,
    Fault,
    Layout,
    schedule,
    sort_of,
    spared_from,
    takes_gcs,
)
from noodle_ray.errors import InvalidInput

LAYOUTS = [
    Layout("h1", ("h2", "h3"), ("h1", "h2")),
    Layout("h1", ("h2", "h3"), ("h2", "h3")),
    Layout("h1", ("h2",), ("h1", "h2")),
]
RUNS = given(st.integers(0, 2**32), st.floats(1, 90), st.sampled_from(LAYOUTS))


def out_until(fault: Fault) -> float:
    return fault.at_s + fault.seconds + sort_of(fault).settle_s


KILLED = ("kill_agent", "kill_manager", "kill_registry", "kill_directory", "kill_gateway")


def grave(faults: tuple[Fault, ...]) -> list[Fault]:
    return [fault for fault in faults if sort_of(fault).takes != "part"]


@RUNS
def test_it_is_the_same_for_a_seed_and_has_a_fault_at_least_every_15_s(seed: int, minutes: float, at: Layout) -> None:
    faults = schedule(seed, minutes, at)
    assert faults == schedule(seed, minutes, at)
    last = minutes * 60 - TAIL_S
    starts = [0.0, *(fault.at_s for fault in faults), last]
    assert all(0 <= later - earlier <= MOST_GAP_S for earlier, later in pairwise(starts))


def test_another_seed_gives_another_one() -> None:
    assert schedule(1, 10, LAYOUTS[0]) != schedule(2, 10, LAYOUTS[0])


@given(st.integers(0, 2**32), st.sampled_from(LAYOUTS))
@settings(max_examples=300)
def test_every_kind_occurs_in_ten_minutes_and_long_freezes_beside_short_ones(seed: int, layout: Layout) -> None:
    faults = schedule(seed, 10, layout)
    assert {fault.kind for fault in faults} == set(KINDS)
    frozen = [fault.seconds for fault in faults if fault.kind == "freeze_host"]
    assert min(frozen) <= 2 and max(frozen) >= 6


@given(st.integers(0, 2**32), st.floats(LONG_MINUTES, 90), st.sampled_from(LAYOUTS))
@settings(max_examples=50)
def test_what_a_long_run_judges_is_not_killed_once_it_has_been(seed: int, minutes: float, layout: Layout) -> None:
    faults = schedule(seed, minutes, layout)
    late = [fault for fault in faults if fault.at_s >= spared_from(minutes)]
    assert not [fault for fault in late if fault.kind in KILLED and fault.host in ("", layout.head)]
    assert {fault.kind for fault in faults if fault not in late} == set(KINDS)
    assert set(KINDS) - {fault.kind for fault in late} <= set(KILLED)


def test_a_run_that_is_too_short_to_judge_anything_spares_nothing() -> None:
    assert spared_from(LONG_MINUTES - 0.1) >= LONG_MINUTES * 60 - 6
    assert spared_from(60) == 20 * 60


@RUNS
def test_one_host_is_out_at_a_time(seed: int, minutes: float, layout: Layout) -> None:
    for earlier, later in pairwise(grave(schedule(seed, minutes, layout))):
        assert later.at_s >= out_until(earlier)


@RUNS
def test_a_gateway_is_there_at_any_time(seed: int, minutes: float, layout: Layout) -> None:
    faults = grave(schedule(seed, minutes, layout))
    for at in (fault.at_s for fault in faults):
        out = {fault.host for fault in faults if fault.at_s <= at < out_until(fault)}
        assert not set(layout.gateways) <= out


@RUNS
def test_the_head_is_never_out_for_long_and_keeps_its_raylet(seed: int, minutes: float, layout: Layout) -> None:
    for fault in schedule(seed, minutes, layout):
        if takes_gcs(fault, layout):
            assert fault.seconds <= HEAD_OUT_S
        if fault.kind in ("kill_raylet", "kill_host_processes"):
            assert fault.host in layout.workers


@RUNS
def test_nothing_is_killed_that_gcs_must_start_while_it_is_away(seed: int, minutes: float, layout: Layout) -> None:
    faults = schedule(seed, minutes, layout)
    away = [(fault.at_s, out_until(fault)) for fault in faults if takes_gcs(fault, layout)]
    killed = [fault.at_s for fault in faults if fault.kind in STARTED_BY_GCS]
    assert not [at for at in killed for start, end in away if start < at < end]


@RUNS
def test_faults_are_where_there_is_something_to_hit(seed: int, minutes: float, layout: Layout) -> None:
    faults = schedule(seed, minutes, layout)
    for fault in faults:
        sort = sort_of(fault)
        assert sort.lasts_s[0] <= fault.seconds <= sort.lasts_s[1]
        assert fault.host in {"somewhere": ("",), "gateway": layout.gateways}.get(sort.where, layout.hosts)
    out = [(fault, fault.at_s, out_until(fault)) for fault in grave(faults) if fault.host != layout.head]
    slight = [fault for fault in faults if sort_of(fault).takes == "part"]
    assert not [one for one in slight for other, start, end in out if one.host == other.host and start < one.at_s < end]


def test_a_kind_comes_again_only_when_all_others_of_its_weight_have_come() -> None:
    deck = Deck("abc", np.random.default_rng(1))
    assert [{deck.draw() for _ in range(3)} for _ in range(4)] == [set("abc")] * 4


def test_what_may_not_be_drawn_keeps_its_place() -> None:
    deck = Deck("ab", np.random.default_rng(1))
    assert deck.draw(lambda item: item == "b") == "b"
    assert deck.draw(lambda item: item == "b") == "b"
    assert sorted([deck.draw(), deck.draw()]) == ["a", "a"]


def test_a_fault_says_what_it_is() -> None:
    assert str(Fault(3, "freeze_host", "h2", 7.25)) == "freeze_host on h2 for 7.2 s"
    assert str(Fault(3, "kill_encoder", "")) == "kill_encoder"


def test_a_run_too_short_and_a_layout_with_one_gateway_are_refused() -> None:
    with pytest.raises(InvalidInput, match="minutes: must be at least 1"):
        schedule(1, 0.5, LAYOUTS[0])
    with pytest.raises(InvalidInput, match="gateways on two of its hosts"):
        schedule(1, 10, Layout("h1", ("h2",), ("h1",)))
