"""Pictures of the accuracy benchmark: a reliability diagram, and accuracy against a task's settings."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from noodle_ray.entry.bench.fusion.accuracy import CHOSEN, Judged, Outcome
from noodle_ray.entry.bench.fusion.accuracy_rows import THRESHOLD
from noodle_ray.entry.bench.pictures import COLOURS, write_plot
from noodle_ray.fusion.selective import Answer, reliability, selective

FEWEST = 10
"""Answers that a point of the diagram stands for at least: below, it is chance."""

MANY = 5
"""More settings than these need smaller names."""


def write_plots(outcome: Outcome, directory: Path) -> list[Path]:
    """Writes `reliability.png`, and `TASK-settings.png` for each task that has several settings."""
    chosen = [judged for judged in outcome.judged if judged.method == CHOSEN]
    if not chosen:
        return []
    paths = [write_plot(directory / "reliability.png", partial(_draw_reliability, chosen=chosen))]
    for task, of_task in groupby(chosen, key=lambda judged: judged.task):
        judged = list(of_task)
        if len(settings_of(judged)) > 1:
            path = directory / f"{task.replace(' ', '-').lower()}-settings.png"
            paths.append(write_plot(path, partial(_draw_settings, judged=judged)))
    return paths


def settings_of(judged: Sequence[Judged]) -> list[str]:
    """In the task's order."""
    return list(dict.fromkeys(one.setting for one in judged))


def _draw_reliability(axes: Any, chosen: Sequence[Judged]) -> None:
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle=":", label="as sure as right")
    axes.axvline(THRESHOLD, color="0.85", linewidth=1)
    for number, (task, of_task) in enumerate(groupby(chosen, key=lambda judged: judged.task)):
        answers: list[Answer] = [answer for judged in of_task for answer in judged.answers]
        bars = [bar for bar in reliability(answers) if bar.count >= FEWEST]
        points = [bar.confidence for bar in bars], [bar.accuracy for bar in bars]
        label = f"{task}  ECE {selective(answers, THRESHOLD).ece:.3f}"
        axes.plot(*points, marker="o", color=COLOURS[number % len(COLOURS)], label=label)
    axes.set_title("Confidence and what comes of it, all subsets of modalities", loc="left")
    axes.set_xlabel("confidence")
    axes.set_ylabel("share of answers that are right")
    axes.set_xlim(0, 1.01)
    axes.set_ylim(0, 1.01)


def _draw_settings(axes: Any, judged: Sequence[Judged]) -> None:
    """Accuracy as a line a subset; dashed, for all modalities together, of the answers that are sure."""
    names = settings_of(judged)
    subsets = list(dict.fromkeys(one.modalities for one in judged))
    for number, subset in enumerate(subsets):
        of_subset = {one.setting: selective(one.answers, THRESHOLD) for one in judged if one.modalities == subset}
        places = [number for number, name in enumerate(names) if name in of_subset]
        figures = [of_subset[names[place]] for place in places]
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(places, [one.accuracy_percent for one in figures], marker="o", color=colour, label=subset)
        if subset == subsets[-1]:
            sure = [float("nan") if one.selective_accuracy_percent is None else one.selective_accuracy_percent
                    for one in figures]  # fmt: skip
            axes.plot(places, sure, marker=".", color=colour, linestyle="--", label=f"{subset}, sure ≥ {THRESHOLD:g}")
    axes.set_title(f"{judged[0].task}: accuracy by setting", loc="left")
    labels = [name.replace(", ", "\n") for name in names]
    axes.set_xticks(range(len(names)), labels, fontsize=7 if len(names) > MANY else 9)
    axes.set_ylabel("answers that are right, %")
