"""A contest's outcome for people: one line a trace and policy."""

from __future__ import annotations

from collections.abc import Iterator

from noodle_ray.entry.bench.placement import Outcome
from noodle_ray.entry.bench.placement_rows import (
    GOAL_LEVEL,
    MEAN,
    efficiency,
    goal_of,
    margin_rows,
    mean_figure,
    mean_goal,
    published_traces,
)
from noodle_ray.entry.cli.output import print_table, say
from noodle_ray.replay.published import Figure


def show(outcome: Outcome) -> None:
    """Prints the table: allocated GPU in % of capacity at each level, mean ± deviation over the seeds."""
    contest = outcome.contest
    seeds = f"seeds {contest.seeds[0]} to {contest.seeds[-1]}" if len(contest.seeds) > 1 else f"seed {contest.seeds[0]}"
    level = level_of(outcome)
    columns = ["trace", "policy", *(f"@{at}" for at in contest.at)]
    columns += [f"published @{level}", f"bound @{level}", "of bound", "moved", "goal", ""]
    names = "shuffled" if contest.shuffled else "kept"
    title = f"GPU allocated in % of capacity when x % has been asked for; {seeds}, node names {names}"
    print_table(title, columns, _lines(outcome))
    for row in margin_rows(outcome):
        worst, below = row.context["worst trace"], row.value or 0.0
        say(f"at most {below:.2f} points below published FGD (worst: {worst}; goal: {row.goal} at most)")


def level_of(outcome: Outcome) -> int:
    """The level that comparisons are shown at: where the goals are, or the last."""
    at = outcome.contest.at
    return GOAL_LEVEL if GOAL_LEVEL in at else at[-1]


def _lines(outcome: Outcome) -> Iterator[list[str]]:
    for trace in outcome.contest.traces:
        for number, policy in enumerate(outcome.contest.policies):
            yield _line(outcome, trace if number == 0 else "", trace, policy)
    if len(published_traces(outcome)) > 1:
        for number, policy in enumerate(outcome.contest.policies):
            yield _mean_line(outcome, f"{MEAN} ({len(published_traces(outcome))})" if number == 0 else "", policy)


def _line(outcome: Outcome, label: str, trace: str, policy: str) -> list[str]:
    level = level_of(outcome)
    figures = [outcome.figure(trace, policy, at) for at in outcome.contest.at]
    published = outcome.published.allocation(trace, policy, level)
    moved = outcome.moved_percent(trace, policy)
    return [
        label,
        policy,
        *map(_shown, figures),
        "" if published is None else _shown(published),
        f"{outcome.bounds[trace, level]:.2f}",
        f"{efficiency(outcome, trace, policy, level):.1f} %",
        f"{moved:.2f} %" if moved else "",
        *_verdict(outcome.figure(trace, policy, level).mean, goal_of(outcome, trace, policy, level)),
    ]


def _mean_line(outcome: Outcome, label: str, policy: str) -> list[str]:
    level, traces = level_of(outcome), published_traces(outcome)
    figures = [mean_figure(outcome, policy, at) for at in outcome.contest.at]
    mean = mean_figure(outcome, policy, level).mean
    published = [outcome.published.allocation(trace, policy, level) for trace in traces]
    known = [figure.mean for figure in published if figure is not None]
    bound = sum(outcome.bounds[trace, level] for trace in traces) / len(traces)
    return [
        label,
        policy,
        *map(_shown, figures),
        f"{sum(known) / len(known):.2f}" if known else "",
        f"{bound:.2f}",
        f"{100 * mean / bound:.1f} %" if bound else "",
        "",
        *_verdict(mean, mean_goal(outcome, policy, level)),
    ]


def _shown(figure: Figure) -> str:
    return f"{figure.mean:.2f} ±{figure.deviation:.2f}" if figure.seeds > 1 else f"{figure.mean:.2f}"


def _verdict(value: float, goal: float | None) -> tuple[str, str]:
    """The goal, and whether it is met as far as it was stated."""
    if goal is None:
        return "", ""
    return f"≥ {goal:g}", "met" if value >= goal else f"{value - goal:.2f}"
