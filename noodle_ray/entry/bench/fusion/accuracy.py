"""How often fusion is right: every task, setting, subset of modalities and method, on test data alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np

from noodle_ray.entry.bench.fusion.task import Goal, Progress, Setting, Task
from noodle_ray.errors import NoodleError, NotFound
from noodle_ray.fusion.fitting import METHODS, Case, fit_rule, fitted_by, subsets_of
from noodle_ray.fusion.rule import PLAIN, Rule, Scores, subset_of
from noodle_ray.fusion.selective import Answer, answer_of

CHOSEN = "chosen"
"""The rule that validation data chose: what the service answers with."""

TASKS = {
    "spoken-prompts": "noodle_ray.entry.bench.fusion.spoken_prompts:TASK",
    "function-finder": "noodle_ray.entry.bench.fusion.function_finder:TASK",
    "digits": "noodle_ray.entry.bench.fusion.digits:TASK",
    "picture-names": "noodle_ray.entry.bench.fusion.picture_names:TASK",
}
"""Every task by name, and where it is: each brings libraries of its own, which only those who ask for it load."""

Loss = tuple[Mapping[str, float], float]
"""What remains of the right answer's probability without each clean and correct modality, and all of it."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One method's answers to one setting's test cases of one subset of modalities ("text+audio").

    weighting: which method the chosen rule is. ranks: the right candidate's place in each answer, from 1; losses: what
    selective.confidence_rise_percent takes, None where no case says which modalities are clean; both are there only
    for methods of ours.
    """

    task: str
    split: str
    setting: str
    modalities: str
    method: str
    answers: Sequence[Answer]
    weighting: str = ""
    ranks: Sequence[int] = ()
    losses: Sequence[Loss] | None = None
    goals: Sequence[Goal] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that was judged, in the tasks' order, and why tasks are missing, by their names."""

    judged: Sequence[Judged]
    missing: Mapping[str, str]


def load_task(name: str) -> Task:
    """The task of this name. Raises NotFound that lists the known ones."""
    if name not in TASKS:
        raise NotFound("task", name, list(TASKS))
    module, _, constant = TASKS[name].partition(":")
    task: Task = getattr(import_module(module), constant)
    return task


def measure(names: Sequence[str], cache_dir: Path, progress: Progress) -> Outcome:
    """Judges the tasks of these names, or all where there are none.

    A task whose data or libraries are not to be had here is left out, with the reason. Raises NotFound for an unknown
    name before anything is done.
    """
    wanted = list(dict.fromkeys(names)) or list(TASKS)
    if unknown := [name for name in wanted if name not in TASKS]:
        raise NotFound("task", unknown[0], list(TASKS))
    judged: list[Judged] = []
    missing: dict[str, str] = {}
    for name in wanted:
        try:
            judged += judge_task(load_task(name), cache_dir, progress)
        except NoodleError as error:
            missing[name] = error.message
        except ModuleNotFoundError as error:
            missing[name] = f"it needs {error.name}, which is not installed"
        if name in missing:
            progress(f"{name} is left out: {missing[name]}")
    return Outcome(judged, missing)


def judge_task(task: Task, cache_dir: Path, progress: Progress) -> list[Judged]:
    """All settings of a task. Raises what the task raises where its data cannot be brought."""
    judged: list[Judged] = []
    for setting in task.settings(cache_dir, progress):
        progress(f"{task.name}, {setting.name}: {len(setting.test)} test cases")
        judged += judge_setting(task, setting)
    return judged


def judge_setting(task: Task, setting: Setting) -> list[Judged]:
    """Every subset of modalities by the chosen rule, by each method alone, and by the setting's rivals."""
    rules = {CHOSEN: fit_rule(setting.fit, setting.validation)}
    rules |= {method: fitted_by(method, setting.fit, setting.validation) for method in METHODS}
    judged = []
    for modalities in subsets_of(setting.test):
        judged += [_judged(task, setting, modalities, method, rule) for method, rule in rules.items()]
        judged += _rivals(task, setting, subset_of(modalities))
    return judged


def _rivals(task: Task, setting: Setting, subset: str) -> Iterator[Judged]:
    for (method, modalities), answers in setting.rivals.items():
        if modalities == subset:
            yield Judged(task.name, task.split, setting.name, subset, method, answers)


def _judged(task: Task, setting: Setting, modalities: tuple[str, ...], method: str, rule: Rule) -> Judged:
    subset = subset_of(modalities)
    limited = [(number, case.limited_to(modalities)) for number, case in enumerate(setting.test)]
    cases = [(number, case) for number, case in limited if case is not None]
    posteriors = [rule.posterior(case.scores) for _, case in cases]
    labels = [setting.labels[number] if setting.labels else "" for number, _ in cases]
    answered = zip(posteriors, cases, labels, strict=True)
    return Judged(
        task.name,
        task.split,
        setting.name,
        subset,
        method,
        [answer_of(posterior, case.right, label) for posterior, (_, case), label in answered],
        rule.subsets.get(subset, PLAIN).method if method == CHOSEN else "",
        [rank(posterior, case.right) for posterior, (_, case) in zip(posteriors, cases, strict=True)],
        _losses(setting, rule, modalities, cases, posteriors),
        [goal for goal in setting.goals if goal.modalities == subset] if method == CHOSEN else (),
    )


def rank(posterior: Scores, right: int) -> int:
    """The right candidate's place, from 1. Of equals the first counts, as in `answer_of`."""
    before = (posterior > posterior[right]).sum() + (posterior[:right] == posterior[right]).sum()
    return 1 + int(before)


def _losses(
    setting: Setting,
    rule: Rule,
    modalities: tuple[str, ...],
    cases: Iterable[tuple[int, Case]],
    posteriors: Iterable[Scores],
) -> list[Loss] | None:
    """For each case what is lost with each modality that is clean and right on its own."""
    if len(modalities) < 2 or not setting.clean:
        return None
    return [
        (_without(rule, case, set(modalities).intersection(setting.clean[number])), float(posterior[case.right]))
        for (number, case), posterior in zip(cases, posteriors, strict=True)
    ]


def _without(rule: Rule, case: Case, clean: Iterable[str]) -> dict[str, float]:
    """The right answer's probability without each of the modalities that finds it alone."""
    named = subsets_of([case])[-1]
    rest = {}
    for modality in sorted(clean):
        alone = case.limited_to((modality,))
        others = case.limited_to([name for name in named if name != modality])
        if alone is not None and others is not None and np.argmax(rule.posterior(alone.scores)) == case.right:
            rest[modality] = float(rule.posterior(others.scores)[case.right])
    return rest
