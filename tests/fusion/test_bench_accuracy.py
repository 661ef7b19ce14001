"""`noodle bench fusion --accuracy` on a small task made up here: rows, goals, table, pictures, what is missing."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from noodle_ray.entry.bench.fusion import accuracy
from noodle_ray.entry.bench.fusion.accuracy import CHOSEN, judge_setting, judge_task, rank
from noodle_ray.entry.bench.fusion.accuracy_rows import is_met, rows_of_one
from noodle_ray.entry.bench.fusion.task import Goal, Progress, Setting, Task
from noodle_ray.entry.bench.report import Row
from noodle_ray.entry.cli.main import app
from noodle_ray.errors import NoodleError, Unavailable
from noodle_ray.fusion.fitting import METHODS, Case
from noodle_ray.fusion.selective import Answer

CANDIDATES = 4
FIGURES = {
    "accuracy_percent",
    "selective_accuracy_percent",
    "coverage_percent",
    "ece",
    "confidence_rise_percent",
    "worst_class_percent",
}
Bench = Callable[..., Result]


def cases(count: int, noise: float, seed: int) -> list[Case]:
    """Text is heard well, sound worse; the right candidate's score is one higher."""
    random = np.random.default_rng(seed)
    made = []
    for number in range(count):
        right = number % CANDIDATES
        scores = {
            "text": np.eye(CANDIDATES)[right] + noise * random.standard_normal(CANDIDATES),
            "audio:words": np.eye(CANDIDATES)[right] + 2 * noise * random.standard_normal(CANDIDATES),
        }
        made.append(Case(scores, right))
    return made


def setting(name: str, noise: float) -> Setting:
    test = cases(240, noise, seed=3)
    return Setting(
        name,
        fit=cases(40, noise, seed=1),
        validation=cases(40, noise, seed=2),
        test=test,
        labels=[f"class {case.right}" for case in test],
        clean=[("text", "audio")] * len(test),
        rivals={("coin", "text"): [Answer(0.9, number % 2 == 0) for number in range(240)]},
        goals=[Goal("coverage_percent", "text+audio", 100.5), Goal("gain_points", "text+audio", 0.0)],
    )


def made_up(cache_dir: Path, progress: Progress) -> Iterator[Setting]:
    progress("making it up")
    yield setting("quiet", 0.3)
    yield setting("loud", 0.6)


def not_here(cache_dir: Path, progress: Progress) -> Iterator[Setting]:
    raise Unavailable("its recordings cannot be fetched")


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("made_up_tasks")
    module.GOOD = Task("made up", "by seed", made_up)
    module.AWAY = Task("away", "none", not_here)
    monkeypatch.setitem(sys.modules, "made_up_tasks", module)
    known = {"good": "made_up_tasks:GOOD", "away": "made_up_tasks:AWAY", "bare": "no_such_library_at_all:TASK"}
    monkeypatch.setattr(accuracy, "TASKS", known)


@pytest.fixture
def bench(tasks: None) -> Bench:
    return lambda *arguments: CliRunner().invoke(app, ["bench", "fusion", *arguments])


def test_every_subset_and_method_and_the_rivals_are_judged() -> None:
    judged = judge_setting(Task("made up", "by seed", made_up), setting("quiet", 0.3))
    ours = {(one.modalities, one.method) for one in judged} - {("text", "coin")}
    assert ours == {(subset, method) for subset in ("text", "audio", "text+audio") for method in (CHOSEN, *METHODS)}
    assert {one.weighting for one in judged if one.method == CHOSEN} <= set(METHODS)
    assert all(len(one.answers) == 240 for one in judged)


def test_rows_have_the_figures_and_the_chosen_rule_has_the_goals(tmp_path: Path) -> None:
    judged = judge_task(Task("made up", "by seed", made_up), tmp_path, lambda line: None)
    rows = [row for one in judged for row in rows_of_one(one, judged)]
    together = [row for row in rows if row.context["modalities"] == "text+audio"]
    assert FIGURES | {"mrr", "gain_points", "over_late_points"} == {row.metric for row in together}
    assert {"task", "setting", "modalities", "method", "split"} <= set(rows[0].context)
    assert {row.context["method"] for row in rows if row.goal is not None} == {CHOSEN}
    chosen = {row.metric: row for row in together if row.context["method"] == CHOSEN}
    assert chosen["selective_accuracy_percent"].goal == 95.0
    assert chosen["coverage_percent"].goal == 100.5
    assert not is_met(chosen["coverage_percent"])
    assert chosen["gain_points"].value is not None


def test_a_sense_whose_absence_raises_confidence_is_counted() -> None:
    """Sound says the contrary here with all its might: without it the text is surer of what is right."""
    contrary = [Case({"text": np.array([2.0, 0.0]), "audio": np.array([0.5, 0.0])}, 0)] * 20
    mild = Setting("mild", contrary, contrary, contrary, clean=[("text", "audio")] * 20)
    judged = judge_setting(Task("t", "s", made_up), mild)
    late = next(one for one in judged if (one.modalities, one.method) == ("text+audio", "late"))
    assert late.losses is not None
    assert set(late.losses[0][0]) == {"text", "audio"}
    without_a_word = Setting("unknown", contrary, contrary, contrary)
    assert all(one.losses is None for one in judge_setting(Task("t", "s", made_up), without_a_word))


def test_cases_that_lack_a_sense_are_no_case_of_its_subsets() -> None:
    mixed = [*cases(40, 0.3, 1), *(Case({"text": case.scores["text"]}, case.right) for case in cases(20, 0.3, 4))]
    judged = judge_setting(Task("t", "s", made_up), Setting("mixed", mixed, mixed, mixed))
    counts = {one.modalities: len(one.answers) for one in judged}
    assert counts == {"text": 60, "audio": 40, "text+audio": 40}


def test_ranks_agree_with_what_is_answered() -> None:
    posterior = np.array([0.4, 0.4, 0.2])
    assert [rank(posterior, right) for right in range(3)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("better", "value", "met"), [("lower", 0.05, True), ("lower", 0.06, False), ("higher", 94, False)]
)
def test_goals_have_a_direction(better: Any, value: float, met: bool) -> None:
    goal = 0.05 if better == "lower" else 95
    assert is_met(Row(metric="m", value=value, unit="", goal=goal, better=better)) is met


def test_the_command_prints_a_table_and_writes_json_and_pictures(bench: Bench, tmp_path: Path) -> None:
    out, plots = tmp_path / "rows.json", tmp_path / "plots"
    result = bench("--accuracy", "--task", "good", "--json", str(out), "--plots", str(plots))
    assert result.exit_code == 0, result.output
    assert "made up (by seed)" in result.stdout
    assert "quiet, 240 cases" in result.stdout
    assert f"{CHOSEN}: " in result.stdout
    assert "coin" in result.stdout
    assert {path.name for path in plots.iterdir()} == {"reliability.png", "made-up-settings.png"}
    rows = json.loads(out.read_text())["rows"]
    assert {row["metric"] for row in rows} >= FIGURES


def test_tasks_that_are_not_to_be_had_are_named_and_the_others_judged(bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    result = bench("--accuracy", "--json", str(out))
    assert result.exit_code == 0, result.output
    assert "away is left out: its recordings cannot be fetched" in result.stderr
    assert "bare is left out: it needs no_such_library_at_all" in result.stderr
    missing = [row for row in json.loads(out.read_text())["rows"] if row["value"] is None]
    assert {row["context"]["task"] for row in missing} == {"away", "bare"}


def test_wrong_arguments_are_refused(bench: Bench) -> None:
    for arguments, words in ((["--accuracy", "--task", "nonsense"], "good"), ([], "--accuracy")):
        result = bench(*arguments)
        assert isinstance(result.exception, NoodleError)
        assert words in str(result.exception)
