"""An accuracy benchmark's outcome as rows: each figure with its goal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np

from noodle_ray.entry.bench.fusion.accuracy import CHOSEN, Judged, Outcome
from noodle_ray.entry.bench.report import Row
from noodle_ray.fusion.rule import LATE
from noodle_ray.fusion.selective import confidence_rise_percent, selective

THRESHOLD = 0.7
"""From this confidence on an answer counts as given; NOODLE_FUSION_CONFIDENCE_THRESHOLD's default."""

FOR_ALL = {
    "selective_accuracy_percent": 95.0,
    "ece": 0.05,
    "confidence_rise_percent": 2.0,
    "worst_class_percent": 85.0,
}
"""Goals that hold for the chosen rule in every task and setting."""

LOWER = {"ece", "confidence_rise_percent"}
UNITS = {"ece": "", "mrr": "", "gain_points": "points", "over_late_points": "points"}


def rows_of(outcome: Outcome) -> list[Row]:
    """Every figure of every method, then one row without a value for each task that is missing."""
    rows = [row for judged in outcome.judged for row in rows_of_one(judged, outcome.judged)]
    for name, reason in outcome.missing.items():
        context: dict[str, str | int | float] = {"task": name, "left out": reason}
        rows.append(Row(metric="accuracy_percent", value=None, unit="%", better="higher", context=context))
    return rows


def rows_of_one(judged: Judged, everything: Sequence[Judged]) -> Iterator[Row]:
    """The rows of one method and subset; `everything` is where its parts and late fusion are found."""
    goals = {goal.metric: goal.at_least for goal in judged.goals}
    if judged.method == CHOSEN:
        goals = FOR_ALL | goals
    for metric, value in figures_of(judged, everything).items():
        better: Literal["higher", "lower"] = "lower" if metric in LOWER else "higher"
        unit, goal = UNITS.get(metric, "%"), goals.get(metric)
        yield Row(metric=metric, value=value, unit=unit, goal=goal, better=better, context=context_of(judged))


def context_of(judged: Judged) -> dict[str, str | int | float]:
    context: dict[str, str | int | float] = {
        "task": judged.task,
        "setting": judged.setting,
        "modalities": judged.modalities,
        "method": judged.method,
        "split": judged.split,
        "cases": len(judged.answers),
    }
    if judged.weighting:
        context["weighting"] = judged.weighting
    return context


def figures_of(judged: Judged, everything: Sequence[Judged]) -> dict[str, float]:
    """By metric; what this method or subset has no figure for is not there."""
    figures = selective(judged.answers, THRESHOLD)
    found: dict[str, float | None] = {
        "accuracy_percent": figures.accuracy_percent,
        "selective_accuracy_percent": figures.selective_accuracy_percent,
        "coverage_percent": figures.coverage_percent,
        "ece": figures.ece,
        "confidence_rise_percent": None if judged.losses is None else confidence_rise_percent(judged.losses),
        "worst_class_percent": figures.worst_class and figures.worst_class[1],
        "mrr": float(np.mean([1.0 / rank for rank in judged.ranks])) if judged.ranks else None,
    }
    if judged.method == CHOSEN and "+" in judged.modalities:
        found |= _compared(judged, everything)
    return {metric: value for metric, value in found.items() if value is not None}


def _compared(judged: Judged, everything: Sequence[Judged]) -> Mapping[str, float | None]:
    """How far it is above the best of its modalities alone, and above late fusion of the same ones."""
    same = [other for other in everything if (other.task, other.setting) == (judged.task, judged.setting)]
    parts = judged.modalities.split("+")
    alone = [_accuracy(other) for other in same if other.method == CHOSEN and other.modalities in parts]
    late = [_accuracy(other) for other in same if other.method == LATE and other.modalities == judged.modalities]
    ours = _accuracy(judged)
    return {
        "gain_points": ours - max(alone) if alone else None,
        "over_late_points": ours - max(late) if late else None,
    }


def _accuracy(judged: Judged) -> float:
    return selective(judged.answers, THRESHOLD).accuracy_percent


def is_met(row: Row) -> bool:
    """Whether the goal is reached; a row without value or goal has nothing to miss."""
    if row.value is None or row.goal is None:
        return True
    return row.value <= row.goal if row.better == "lower" else row.value >= row.goal
