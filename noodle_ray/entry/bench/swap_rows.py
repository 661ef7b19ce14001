"""The rows of the swap benchmark: what was lost, doubled, out of order or forgotten, and how long calls took."""

from __future__ import annotations

from collections.abc import Iterator

from noodle_ray.entry.bench import swap_log
from noodle_ray.entry.bench.module_cluster import Context, median, ratio_row, time_rows
from noodle_ray.entry.bench.module_versions import Breakage
from noodle_ray.entry.bench.report import Row
from noodle_ray.entry.bench.swap_callers import Crowd
from noodle_ray.entry.bench.swap_log import Call
from noodle_ray.entry.bench.swap_story import Story
from noodle_ray.entry.bench.timing import percentile
from noodle_ray.entry.cli.output import say

SLOWER_GOAL = 3.0
"""The slowest of a hundred calls during a swap takes at most so many times as long as without one."""

TOLD = 3
"""Calls that were lost, and swaps that failed, of which the problem is told; the others are counted."""

RIVAL = "Ray Serve"


def rows_of(story: Story, crowd: Crowd) -> Iterator[Row]:
    """All rows of one of our modules."""
    state: Context = {"state": story.kind}
    yield from _count_rows(story, {**state, "sessions": crowd.sessions, "in flight each": crowd.in_flight})
    if story.kept is not None:
        yield _count("state_lost", swap_log.missing(story.calls, story.kept), state, goal=0)
    yield from _swap_rows(story, state)
    times = _times(story)
    for during, taken in times.items():
        context: Context = {**state, "during": during, "calls": len(taken)}
        yield from time_rows("call", taken, context, {50: None, 99: None})
        yield _longest(taken, context)
    yield _slower(times, state, SLOWER_GOAL if story.kind == "stateless" else None)


def serve_rows(story: Story, crowd: Crowd) -> Iterator[Row]:
    """All rows of the rival."""
    rival: Context = {"rival": RIVAL, "state": story.kind}
    yield from _count_rows(story, {**rival, "sessions": crowd.sessions, "in flight each": crowd.in_flight}, goal=None)
    yield _count("swaps", len(story.swaps), rival)
    yield from time_rows("swap", _swap_ms(story), rival, {50: None})
    times = _times(story)
    for during, told in (("steady", "serve, steady"), ("swap", "serve")):
        context: Context = {**rival, "during": told, "calls": len(times[during])}
        yield from time_rows("call", times[during], context, {50: None, 99: None})
        yield _longest(times[during], context)
    yield _slower(times, rival, None)


def ratio_rows(ours: Story, rival: Story) -> Iterator[Row]:
    """How many times better we are than the rival."""
    context: Context = {"rival": RIVAL, "state": ours.kind}
    yield ratio_row("swap_ms_p50", median(_swap_ms(ours)), median(_swap_ms(rival)), context)
    ours_during, rivals_during = _times(ours)["swap"], _times(rival)["swap"]
    if ours_during and rivals_during:
        during: Context = {**context, "during": "swap"}
        for percent in (50, 99):
            figures = percentile(ours_during, percent), percentile(rivals_during, percent)
            yield ratio_row(f"call_ms_p{percent}", *figures, during)
        yield ratio_row("call_ms_max", max(ours_during), max(rivals_during), during)


def _count_rows(story: Story, context: Context, goal: float | None = 0) -> Iterator[Row]:
    lost = swap_log.lost(story.calls, story.executions, [kill.start for kill in story.kills])
    for call in lost[:TOLD]:
        say(f"lost: {call.session} {call.number}, {call.outcome} {call.problem}")
    yield _count("calls", len(story.calls), context)
    yield _count("calls_lost", len(lost), context, goal)
    yield _count("calls_interrupted", _with_outcome(story.calls, "interrupted"), context)
    yield _count("calls_failed", _with_outcome(story.calls, "failed"), {**context, "by": "broken versions"})
    yield _count("calls_duplicated", swap_log.duplicated(story.executions), context, goal)
    yield _count("calls_out_of_order", swap_log.out_of_order(story.executions), context, goal)


def _swap_rows(story: Story, context: Context) -> Iterator[Row]:
    for problem in story.failed[:TOLD]:
        say(f"a good version was not swapped in: {problem}")
    yield _count("swaps", len(story.swaps), context)
    yield _count("swaps_failed", len(story.failed), {**context, "of": "good versions"}, goal=0)
    yield _count("swaps_cut_off", story.cut_off, {**context, "by": "kills"})
    yield _count("rolled_back", len(story.rolled_back), {**context, "broken": _names(story.rolled_back)})
    wrongly: Context = {**context, "broken": _names(story.not_rolled_back)}
    yield _count("not_rolled_back", len(story.not_rolled_back), wrongly, goal=0)
    yield from time_rows("swap", _swap_ms(story), context, {50: None, 99: None})
    yield _count("kills", len(story.kills), context)
    back = [(kill.end - kill.start) * 1000 for kill in story.kills]
    yield from time_rows("back_after_kill", back, context, {50: None})


def _names(broken: list[Breakage]) -> str:
    return " ".join(sorted(set(broken))) or "none"


def _count(metric: str, value: int, context: Context, goal: float | None = None) -> Row:
    return Row(metric=metric, value=value, unit="", goal=goal, context=context)


def _with_outcome(calls: list[Call], outcome: swap_log.Outcome) -> int:
    return sum(call.outcome == outcome for call in calls)


def _swap_ms(story: Story) -> list[float]:
    return [(swap.end - swap.start) * 1000 for swap in story.swaps]


def _times(story: Story) -> dict[str, list[float]]:
    return swap_log.split_times(story.calls, story.attempts, story.kills)


def _longest(taken: list[float], context: Context) -> Row:
    return Row(metric="call_ms_max", value=max(taken, default=None), unit="ms", context=context)


def _slower(times: dict[str, list[float]], context: Context, goal: float | None) -> Row:
    """The p99 during swaps, as a multiple of the p99 without."""
    known = times["swap"] and times["steady"]
    value = percentile(times["swap"], 99) / percentile(times["steady"], 99) if known else None
    return Row(metric="swap_to_steady_p99", value=value, unit="x", goal=goal, context=context)
