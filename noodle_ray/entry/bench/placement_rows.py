"""A contest's outcome as rows: what was allocated, the goals, the bound, and what others published."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from noodle_ray.entry.bench.placement import Outcome, figure_of
from noodle_ray.entry.bench.report import Row
from noodle_ray.placement.policies import DEFAULT_POLICY
from noodle_ray.replay.published import Figure

WITH_MOVES = f"{DEFAULT_POLICY}+moves"

GOAL_LEVEL = 100
"""Goals are about the moment when as much has been asked for as there is."""

GOALS = {
    ("default", DEFAULT_POLICY): 95.5,
    ("default", WITH_MOVES): 95.8,
    ("cpu250", DEFAULT_POLICY): 94.7,
    ("gpuspec33", DEFAULT_POLICY): 94.0,
    ("multigpu50", DEFAULT_POLICY): 97.0,
    ("gpushare100", DEFAULT_POLICY): 86.6,
}
"""GPU allocated in %, by trace and policy; only for traces that results were published for."""

MEAN_GOALS = {DEFAULT_POLICY: 94.2, WITH_MOVES: 94.5}
"""The same for the mean of all traces that results were published for."""

EFFICIENCY_GOAL = 97.0
"""Allocated in % of the bound, on every trace."""

BELOW_PUBLISHED_GOAL = 0.3
"""On no trace may the default be further below published FGD, in points."""

MEAN = "mean of published"
"""Stands in a row's context for the mean over the traces with published results."""

RIVAL = "fgd"

Context = dict[str, str | int | float]


def rows_of(outcome: Outcome) -> list[Row]:
    """Every figure of a contest."""
    rows: list[Row] = []
    for trace in outcome.contest.traces:
        for at in outcome.contest.at:
            rows.append(_bound_row(outcome, trace, at))
            rows += _published_rows(outcome, trace, at)
            for policy in outcome.contest.policies:
                rows += _allocated_rows(outcome, trace, policy, at)
    return [*rows, *_mean_rows(outcome), *margin_rows(outcome)]


def _bound_row(outcome: Outcome, trace: str, at: int) -> Row:
    context: Context = {"trace": trace, "at": at}
    return _higher("bound_percent", outcome.bounds[trace, at], context, None)


def _published_rows(outcome: Outcome, trace: str, at: int) -> Iterator[Row]:
    for name, policy in sorted(outcome.published.runs):
        figure = outcome.published.allocation(name, policy, at)
        if name == trace and figure is not None:
            yield _higher("published_allocated_percent", figure.mean, _context(trace, policy, at, figure), None)


def _allocated_rows(outcome: Outcome, trace: str, policy: str, at: int) -> Iterator[Row]:
    figure = outcome.figure(trace, policy, at)
    context = _context(trace, policy, at, figure) | {"moves": round(outcome.moved_percent(trace, policy), 3)}
    yield _higher("gpu_allocated_percent", figure.mean, context, goal_of(outcome, trace, policy, at))
    wanted = EFFICIENCY_GOAL if policy == DEFAULT_POLICY and at == GOAL_LEVEL else None
    yield _higher("efficiency_percent", efficiency(outcome, trace, policy, at), context, wanted)


def efficiency(outcome: Outcome, trace: str, policy: str, at: int) -> float:
    """Allocated in % of the bound. Where the bound is 0 nothing can be wasted."""
    bound = outcome.bounds[trace, at]
    return 100 * outcome.figure(trace, policy, at).mean / bound if bound else 100.0


def goal_of(outcome: Outcome, trace: str, policy: str, at: int) -> float | None:
    """What was promised for a figure, if something was."""
    is_public = trace in published_traces(outcome)
    return GOALS.get((trace, policy)) if is_public and at == GOAL_LEVEL else None


def published_traces(outcome: Outcome) -> tuple[str, ...]:
    """The traces of the contest that results were published for."""
    return tuple(trace for trace in outcome.contest.traces if (trace, RIVAL) in outcome.published.runs)


def mean_figure(outcome: Outcome, policy: str, at: int) -> Figure:
    """Over the traces with published results: the mean, and the spread of each seed's mean."""
    curves = [outcome.curves(trace, policy)[:, at] for trace in published_traces(outcome)]
    return figure_of(np.mean(curves, axis=0))


def mean_goal(outcome: Outcome, policy: str, at: int) -> float | None:
    """The goal for the mean, where it is over all traces that it was set for: those that are published and public."""
    return MEAN_GOALS.get(policy) if at == GOAL_LEVEL and len(published_traces(outcome)) == PUBLIC_TRACES else None


PUBLIC_TRACES = 13
"""Of 20 public lists of pods and 17 lists with published results, those that are both."""


def _mean_rows(outcome: Outcome) -> Iterator[Row]:
    if len(published_traces(outcome)) > 1:
        for at in outcome.contest.at:
            for policy in outcome.contest.policies:
                figure = mean_figure(outcome, policy, at)
                moves = np.mean([outcome.moved_percent(trace, policy) for trace in published_traces(outcome)])
                context = _context(MEAN, policy, at, figure) | {"moves": round(float(moves), 3)}
                yield _higher("gpu_allocated_percent", figure.mean, context, mean_goal(outcome, policy, at))


def margin_rows(outcome: Outcome) -> Iterator[Row]:
    """How far our default is below published FGD where it is worst; nothing where that cannot be told."""
    traces, contest = published_traces(outcome), outcome.contest
    if not traces or DEFAULT_POLICY not in contest.policies or GOAL_LEVEL not in contest.at:
        return
    below, trace = max((_below_published(outcome, trace), trace) for trace in traces)
    context: Context = {"policy": DEFAULT_POLICY, "at": GOAL_LEVEL, "worst trace": trace, "traces": len(traces)}
    yield Row(
        metric="below_published_fgd_points",
        value=max(below, 0.0),
        unit="points",
        goal=BELOW_PUBLISHED_GOAL,
        context=context,
    )


def _below_published(outcome: Outcome, trace: str) -> float:
    published = outcome.published.allocation(trace, RIVAL, GOAL_LEVEL)
    assert published is not None
    return published.mean - outcome.figure(trace, DEFAULT_POLICY, GOAL_LEVEL).mean


def _context(trace: str, policy: str, at: int, figure: Figure) -> Context:
    return {"trace": trace, "policy": policy, "at": at, "seeds": figure.seeds, "sd": round(figure.deviation, 3)}


def _higher(metric: str, value: float, context: Context, goal: float | None) -> Row:
    return Row(metric=metric, value=value, unit="%", goal=goal, better="higher", context=context)
