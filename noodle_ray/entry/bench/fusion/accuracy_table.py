"""An accuracy benchmark's outcome for people: a table a task, one line a setting, subset and method."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from noodle_ray.entry.bench.fusion.accuracy import CHOSEN, Judged, Outcome
from noodle_ray.entry.bench.fusion.accuracy_rows import THRESHOLD, is_met, rows_of_one
from noodle_ray.entry.bench.report import Row
from noodle_ray.entry.cli.output import print_table, say
from noodle_ray.fusion.fitting import METHODS

SHOWN = {
    "accuracy_percent": "right %",
    "selective_accuracy_percent": "of sure %",
    "coverage_percent": "sure %",
    "ece": "ECE",
    "confidence_rise_percent": "rises %",
    "worst_class_percent": "worst %",
}
"""The figures that have a column; others are named where they fall short of their goal."""

COLUMNS = ("modalities", "method", *SHOWN.values(), "goals")


def show(outcome: Outcome) -> None:
    """Prints a table for each task, and a line for each that is missing."""
    for (task, split), of_task in groupby(outcome.judged, key=lambda judged: (judged.task, judged.split)):
        print_table(f"{task} ({split})", COLUMNS, _lines(list(of_task)))
    if outcome.judged:
        say(
            f"sure: answered with a confidence of {THRESHOLD:g} or more; of sure: how many of those are right; rises: "
            "how often the absence of a clean and right modality raises the confidence; worst: the worst class of sure"
        )
    for name, reason in outcome.missing.items():
        say(f"{name} is left out: {reason}")


def _lines(of_task: Sequence[Judged]) -> Iterator[list[str]]:
    for setting, of_setting in groupby(of_task, key=lambda judged: judged.setting):
        judged = list(of_setting)
        cases = max(len(one.answers) for one in judged)
        yield [f"{setting}, {cases} cases", *[""] * (len(COLUMNS) - 1)]
        for subset, methods in groupby(judged, key=lambda one: one.modalities):
            yield from _lines_of_subset(f"  {subset}", list(methods), of_task)


def _lines_of_subset(label: str, methods: Sequence[Judged], everything: Sequence[Judged]) -> Iterator[list[str]]:
    """The chosen rule first; a method of ours whose figures are the same as another's is not repeated."""
    seen: list[list[str]] = []
    for judged in methods:
        rows = list(rows_of_one(judged, everything))
        figures = _figures(rows)
        if figures not in seen or judged.method not in METHODS:
            yield ["" if seen else label, _method(judged), *figures, _verdict(rows)]
        seen.append(figures)


def _method(judged: Judged) -> str:
    return f"{CHOSEN}: {judged.weighting}" if judged.method == CHOSEN else judged.method


def _figures(rows: Sequence[Row]) -> list[str]:
    by_metric = {row.metric: row for row in rows}
    return [_figure(by_metric.get(metric)) for metric in SHOWN]


def _figure(row: Row | None) -> str:
    if row is None or row.value is None:
        return ""
    return f"{row.value:.3f}" if row.metric == "ece" else f"{row.value:.1f}"


def _verdict(rows: Sequence[Row]) -> str:
    """ "met" where all goals are reached, else what falls short of which."""
    short = [
        f"{SHOWN.get(row.metric, row.metric).removesuffix(' %')} {row.value:.3g} for {row.goal:g}"
        for row in rows
        if not is_met(row)
    ]
    if short:
        return "; ".join(short)
    return "met" if any(row.goal is not None for row in rows) else ""
