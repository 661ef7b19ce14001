"""`noodle bench swap`: what its figures are made of, counted by hand, and the modules that it swaps."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from noodle_ray.entry.bench import swap_log
from noodle_ray.entry.bench.module_versions import BROKEN, GOOD, broken_versions, echo_module, work_class, work_module
from noodle_ray.entry.bench.swap_callers import Crowd, call_until
from noodle_ray.entry.bench.swap_log import Call, Execution, Outcome, Span, read_executions
from noodle_ray.entry.bench.swap_rows import ratio_rows, rows_of, serve_rows
from noodle_ray.entry.bench.swap_schedule import schedule
from noodle_ray.entry.bench.swap_story import Story
from noodle_ray.entry.cli.main import app
from noodle_ray.errors import CallInterrupted, InvalidInput, ModuleFailed, Unavailable
from noodle_ray.modules.artefact import read_artefact


def call(number: int, sent_at: float, ended_at: float, outcome: Outcome = "answered", session: str = "a") -> Call:
    return Call(session, number, sent_at, ended_at, outcome)


def ran(*ids: int, session: str = "a") -> list[Execution]:
    """Executions in this order."""
    return [Execution(session, number, 1, "1.0.0", at_ns) for at_ns, number in enumerate(ids)]


def test_a_call_is_lost_without_an_answer_or_with_one_that_nothing_ran_for() -> None:
    calls = [call(1, 0, 1), call(2, 1, 2), call(3, 2, 3, "unanswered"), call(4, 3, 4, "failed")]
    assert [one.number for one in swap_log.lost(calls, ran(1, 3), [])] == [2, 3]


@pytest.mark.parametrize(
    ("kills", "is_lost"),
    [([], True), ([10.5], False), ([9.0], False), ([6.9], True), ([11.1], True), ([1.0, 10.0], False)],
)
def test_an_interrupted_call_is_lost_unless_a_host_was_killed_in_its_time(kills: list[float], is_lost: bool) -> None:
    assert bool(swap_log.lost([call(1, 10, 11, "interrupted")], [], kills)) is is_lost


def test_calls_that_ran_twice_are_counted_once_each() -> None:
    assert swap_log.duplicated(ran(1, 2, 3)) == 0
    assert swap_log.duplicated([*ran(1, 2, 2, 3, 3, 3), *ran(1, session="b")]) == 2


def test_an_execution_is_out_of_order_after_one_that_was_sent_later() -> None:
    assert swap_log.out_of_order(ran(1, 2, 4, 5)) == 0  # one that never ran leaves a gap, and no disorder
    assert swap_log.out_of_order(ran(1, 3, 2, 4)) == 1
    assert swap_log.out_of_order(ran(3, 1, 2)) == 2
    assert swap_log.out_of_order([*ran(2, 3), *ran(1, session="b")]) == 0


def test_answered_calls_that_the_state_does_not_know_are_missing() -> None:
    calls = [*(call(number, 0, 1) for number in range(1, 8)), call(8, 0, 1, "interrupted")]
    assert swap_log.missing(calls, {"a": [[1, 7]]}) == 0
    assert swap_log.missing(calls, {"a": [[5, 6], [1, 2]]}) == 3
    assert swap_log.missing(calls, {"b": [[1, 7]]}) == 7


def test_times_are_split_by_what_a_call_met_and_kills_come_first() -> None:
    calls = [call(1, 0, 1), call(2, 1.5, 2.5), call(3, 4, 5), call(4, 2.5, 6), call(5, 8, 9, "unanswered")]
    times = swap_log.split_times(calls, [Span(2, 4.5)], [Span(5.5, 5.6)])
    assert times == {"steady": [1000], "swap": [1000, 1000], "kill": [3500]}


def test_the_log_is_read_in_the_order_of_time_over_all_processes_without_cut_lines(tmp_path: Path) -> None:
    (tmp_path / "7.log").write_text("a 1 7 1.0.0 100\na 3 7 1.0.0 300\na 4 7 1.")
    (tmp_path / "8.log").write_text("a 2 8 2.0.0 200\n")
    assert [(one.number, one.pid) for one in read_executions(tmp_path)] == [(1, 7), (2, 8), (3, 7)]


# -- the schedule


def test_the_schedule_is_the_same_for_a_seed_and_ends_before_the_end() -> None:
    kinds = broken_versions("stateful")
    steps = schedule(120, 5, kinds, 7)
    assert steps == schedule(120, 5, kinds, 7)
    assert steps != schedule(120, 5, kinds, 8)
    assert [step.at_s for step in steps] == [5.0 * number for number in range(1, 24)]


def test_every_four_steps_hold_a_broken_version_and_a_kill_and_all_kinds_have_their_turn() -> None:
    steps = schedule(125, 5, broken_versions("stateful"), 1)
    for first in range(0, 24, 4):
        four = steps[first : first + 4]
        assert sum(step.breakage is not None for step in four) == 1
        assert sum(step.kill_after_s is not None for step in four) == 1
        assert not any(step.breakage and step.kill_after_s for step in four)
    assert {step.breakage for step in steps} == {None, *BROKEN}
    assert "import-state" not in {step.breakage for step in schedule(600, 5, broken_versions("stateless"), 1)}


def test_hosts_die_soon_after_a_swap_began_and_long_after_it_in_turn() -> None:
    delays = [step.kill_after_s for step in schedule(600, 5, ["unwell"], 1) if step.kill_after_s is not None]
    assert all(delay <= 0.3 for delay in delays[::2])
    assert all(2.5 <= delay <= 4.5 for delay in delays[1::2])


def test_a_time_too_short_for_a_swap_has_none() -> None:
    assert schedule(5, 5, ["unwell"], 1) == []


# -- the modules


@pytest.mark.parametrize("kind", ["stateless", "stateful"])
def test_all_versions_are_modules_whose_contents_differ(kind: str) -> None:
    versions = [*GOOD, *(BROKEN[breakage] for breakage in broken_versions(kind))]
    artefacts = [read_artefact(work_module(kind, version)) for version in versions]
    assert [artefact.manifest.version for artefact in artefacts] == versions
    assert len({artefact.sha256 for artefact in artefacts}) == len(versions)
    state = artefacts[0].manifest.state
    assert (state is not None and state.durable) is (kind == "stateful")


def test_the_small_module_holds_what_it_is_told_to() -> None:
    holding = read_artefact(echo_module("bench-holding", "1.2.0", {"cpus": 0.1})).manifest
    assert holding.resources is not None
    assert holding.resources.cpus == 0.1
    assert read_artefact(echo_module("bench-echo")).manifest.resources is None


def test_a_module_writes_down_what_ran(tmp_path: Path) -> None:
    work = work_class(GOOD[0])()
    assert [work.work(str(tmp_path), "s1", number) for number in (1, 2)] == [GOOD[0]] * 2
    assert [(one.id, one.version) for one in read_executions(tmp_path)] == [(("s1", n), GOOD[0]) for n in (1, 2)]


def test_broken_versions_are_broken_as_they_say(tmp_path: Path) -> None:
    assert work_class(GOOD[1])().is_well()
    assert not work_class(BROKEN["unwell"])().is_well()
    with pytest.raises(ImportError, match="on purpose"):
        work_class(BROKEN["import-error"])
    with pytest.raises(RuntimeError, match="on purpose"):
        work_class(BROKEN["failing"])().work(str(tmp_path), "s1", 1)


# -- the callers


async def test_what_becomes_of_calls_is_told_by_their_errors() -> None:
    errors = [
        None,
        CallInterrupted("m", "work", "its host ended"),
        ModuleFailed("m", "RuntimeError: broken on purpose"),
        ModuleFailed("m", "RuntimeError: something else"),
        Unavailable("nobody is there"),
    ]

    async def work(session: str, number: int) -> None:
        if number > len(errors):
            await asyncio.sleep(0.2)  # until the time is over
        elif (error := errors[number - 1]) is not None:
            raise error

    calls = await call_until(time.monotonic() + 0.1, Crowd(sessions=1), work)
    outcomes: Sequence[str] = [one.outcome for one in calls]
    assert outcomes == ["answered", "interrupted", "failed", "unanswered", "unanswered", "answered"]
    assert calls[4].problem == "Unavailable: nobody is there"
    assert [one.number for one in calls] == [1, 2, 3, 4, 5, 6]


# -- the rows


def test_rows_have_goals_and_the_rivals_are_compared() -> None:
    calls = [call(number, number, number + 0.5) for number in range(1, 11)]
    ours = Story("stateless", calls, ran(*range(1, 11)), swaps=[Span(4, 4.2)], attempts=[Span(4, 4.2)])
    rival = Story("stateless", calls, ran(*range(1, 11)), swaps=[Span(4, 6)], attempts=[Span(4, 6)])
    rows = {(row.metric, row.context.get("during")): row for row in rows_of(ours, Crowd())}
    assert rows["calls_lost", None].value == 0
    assert rows["calls_lost", None].goal == 0
    assert rows["swap_to_steady_p99", None].value == 1
    assert rows["swap_to_steady_p99", None].goal == 3
    assert rows["call_ms_p99", "swap"].context["calls"] == 1
    assert rows["call_ms_p99", "kill"].value is None
    assert ("state_lost", None) not in rows
    assert all(row.context["rival"] == "Ray Serve" and row.goal is None for row in serve_rows(rival, Crowd()))
    ratios = {row.metric: row.value for row in ratio_rows(ours, rival)}
    assert ratios["swap_ms_p50_times_better"] == pytest.approx(10)
    assert ratios["call_ms_max_times_better"] == 1


def test_a_module_that_is_not_known_is_refused() -> None:
    result = CliRunner().invoke(app, ["bench", "swap", "--only", "stately"])
    assert isinstance(result.exception, InvalidInput)
    assert "--only: must be one of stateless, stateful" in str(result.exception)
