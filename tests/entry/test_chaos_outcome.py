"""`noodle bench chaos`: shares, gaps, recoveries and losses, counted by hand and on made-up runs."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noodle_ray.entry.bench.chaos.outcome import Outcome, answered_percent, longest_gap_s, recovery
from noodle_ray.entry.bench.chaos.outcome_rows import print_losses, print_schedule, rows_of
from noodle_ray.entry.bench.chaos.records import Inflicted, Probe, Seen
from noodle_ray.entry.bench.chaos.schedule import Fault
from noodle_ray.entry.cli.output import console

SECONDS = 60.0


def probe(due_s: float, ended_s: float, answered: bool = True, route: str = "nodes", **more: Any) -> Probe:
    return Probe(route, due_s, due_s, ended_s, answered, 200 if answered else 0, **more)


def inflicted(at_s: float, seconds: float = 0.0, kind: Any = "kill_manager", **more: Any) -> Inflicted:
    return Inflicted(Fault(at_s, kind, "h1", seconds), at_s, at_s + seconds, **more)


def looks(*missing: str) -> tuple[Seen, ...]:
    """One each half second; "" is whole."""
    return tuple(Seen(number / 2, (name,) if name else ()) for number, name in enumerate(missing))


RUN = Outcome(
    SECONDS,
    (probe(1, 1.1), probe(10, 15, answered=False, problem="no answer"), probe(20, 20.5, route="fusion", retried=True)),
    (inflicted(0.5), inflicted(9, 3, "freeze_manager"), inflicted(30, problem="there is none")),
    (Seen(0.6), *(Seen(9.5 + number, ("module",)) for number in range(4)), Seen(14.5)),
)

times = st.floats(0, SECONDS, allow_nan=False)
probes = st.lists(
    st.builds(lambda due, took, ok: probe(due, due + took, ok), times, st.floats(0, 15), st.booleans()), max_size=40
)


# -- what was answered


def test_of_nothing_no_share_was_answered() -> None:
    assert answered_percent([]) is None
    assert answered_percent(RUN.probes) == pytest.approx(200 / 3)


@pytest.mark.parametrize(
    ("ended", "gap"),
    [([], 60), ([30], 30), ([10], 50), ([50], 50), ([5, 10, 40, 58], 30), ([5, 58, 75], 53), ([59, 20, 40], 20)],
)
def test_the_longest_gap_is_between_answers_or_the_ends_of_the_run(ended: list[float], gap: float) -> None:
    assert longest_gap_s([probe(0, at) for at in ended], SECONDS) == gap


def test_what_was_not_answered_ends_no_gap() -> None:
    assert longest_gap_s([probe(0, 30, answered=False)], SECONDS) == SECONDS


@given(probes)
def test_an_answer_more_makes_no_gap_longer_and_gaps_fill_the_run(made: list[Probe]) -> None:
    gap = longest_gap_s(made, SECONDS)
    answered = sum(one.answered for one in made)
    assert SECONDS / (answered + 1) <= gap + 1e-9 and gap <= SECONDS
    assert longest_gap_s([*made, probe(0, 33)], SECONDS) <= gap


@given(probes)
def test_every_request_is_answered_or_told_as_lost(made: list[Probe]) -> None:
    run = Outcome(SECONDS, tuple(made), (), ())
    losses = run.losses()
    assert len(losses) + sum(one.answered for one in made) == len(made)
    assert [loss.probe.due_s for loss in losses] == sorted(loss.probe.due_s for loss in losses)


# -- recovery


@pytest.mark.parametrize(
    ("missing", "seconds"),
    [
        (["", "", "", "", ""], 0.0),
        (["", "", "m", "m", ""], 1.5),
        (["m", "m", "m", "", ""], 1.0),
        (["", "", "m", "", "m", "m", ""], 2.5),
        (["", "", "m", "m", "m"], None),
    ],
)
def test_recovery_is_from_the_fault_to_the_first_look_after_the_last_that_lacked_anything(
    missing: list[str], seconds: float | None
) -> None:
    assert recovery(inflicted(0.5), float("inf"), looks(*missing)).seconds == seconds


def test_a_fault_that_is_not_over_before_the_next_one_goes_on_until_all_is_whole() -> None:
    seen = looks("", "m", "m", "n", "n", "")
    assert recovery(inflicted(0.5), 1.4, seen).seconds == 2.0
    assert recovery(inflicted(0.5), 1.4, seen).missing == ("m",)
    assert recovery(inflicted(1.4), float("inf"), seen).missing == ("n",)


def test_what_goes_wrong_after_the_next_fault_is_that_ones() -> None:
    assert recovery(inflicted(0.5), 1.0, looks("", "", "m", "")).seconds == 0.0


def test_nobody_knows_of_a_recovery_that_nobody_looked_at() -> None:
    assert recovery(inflicted(0.5), 0.7, looks("", "", "")).seconds == 0.0
    assert recovery(inflicted(0.6), 0.7, looks("", "", "")).seconds is None


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.floats(0, 10))
def test_all_is_whole_when_a_recovery_ends(whole: list[bool], at_s: float) -> None:
    seen = looks(*("" if one else "m" for one in whole))
    found = recovery(inflicted(at_s), float("inf"), seen)
    later = [one for one in seen if one.at_s >= at_s]
    if found.seconds is not None:
        end_s = at_s + found.seconds
        assert all(one.is_whole for one in later if one.at_s > end_s - 1e-9)
    else:
        assert not later or not later[-1].is_whole


# -- losses


def test_a_loss_names_the_faults_that_were_there_between_its_due_time_and_its_end() -> None:
    [loss] = RUN.losses()
    assert [str(one.fault) for one in loss.during] == ["freeze_manager on h1 for 3.0 s"]


@pytest.mark.parametrize(("due_s", "ended_s", "named"), [(0, 0.4, 0), (0, 0.6, 1), (6, 7, 1), (16, 17, 0)])
def test_a_fault_is_there_until_it_is_undone_and_all_is_well(due_s: float, ended_s: float, named: int) -> None:
    seen = (Seen(0.5, ("m",)), Seen(1.0))
    run = Outcome(SECONDS, (probe(due_s, ended_s, answered=False),), (inflicted(0.5, 15),), seen)
    assert [len(loss.during) for loss in run.losses()] == [named]


# -- rows and tables


def test_rows_have_the_goal_and_one_set_a_route() -> None:
    rows = {(row.metric, row.context.get("route", row.context.get("fault"))): row for row in rows_of(RUN)}
    everything = rows["answered_percent", None]
    assert (everything.goal, everything.better, everything.context["lost"]) == (99.9, "higher", 1)
    assert everything.context["retried"] == 1
    assert rows["answered_percent", "fusion"].value == 100
    assert rows["longest_gap_s", "nodes"].value == pytest.approx(58.9)
    assert rows["latency_ms_p99", "fusion"].value == pytest.approx(500)
    assert rows["recovery_s_longest", "freeze_manager"].value == pytest.approx(5.5)
    assert rows["faults", None].value == 2
    assert rows["faults_not_inflicted", None].value == 1
    assert rows["faults_not_recovered", None].value == 0


def test_a_recovery_that_never_came_has_no_longest_time_and_is_counted() -> None:
    run = replace(RUN, seen=(Seen(0.6, ("module",)), Seen(9.5, ("module",))))
    rows = {(row.metric, row.context.get("fault")): row for row in rows_of(run)}
    assert rows["recovery_s_longest", "kill_manager"].value is None
    assert rows["faults_not_recovered", None].value == 2


def test_a_route_without_an_answer_has_no_latency() -> None:
    run = Outcome(SECONDS, (probe(1, 2, answered=False),), (), ())
    values = {row.metric: row.value for row in rows_of(run) if row.context.get("route") == "nodes"}
    assert values == {
        "answered_percent": 0,
        "longest_gap_s": SECONDS,
        "latency_ms_p50": None,
        "latency_ms_p99": None,
    }


def test_the_schedule_and_the_losses_are_printed() -> None:
    with console.capture() as captured:
        print_schedule(RUN)
        print_losses(RUN)
    lines = [line.split() for line in captured.get().splitlines()]
    assert ["9.0", "s", "freeze_manager", "h1", "3.0", "s", "5.5", "s", "module"] in lines
    assert ["30.0", "s", "kill_manager", "h1", "not", "inflicted", "there", "is", "none"] in lines
    assert ["Requests", "lost:", "1"] in lines
    assert ["10.0", "s", "nodes", "no", "answer", "freeze_manager", "on", "h1", "for", "3.0", "s"] in lines
