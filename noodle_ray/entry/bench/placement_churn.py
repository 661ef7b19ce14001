"""A trace with real arrivals and departures under several policies: what is allocated over time, and who waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from noodle_ray.entry.bench.placement import figure_of
from noodle_ray.entry.bench.placement_processes import each
from noodle_ray.entry.bench.report import Row
from noodle_ray.replay.churn import ChurnRun, Queueing, replay_churn
from noodle_ray.replay.contenders import contender_named
from noodle_ray.replay.instances import Instance, fleet_short_of_gpus, read_instances

Context = dict[str, str | int | float]


@dataclass(frozen=True, slots=True)
class _Trial:
    """One replay."""

    file: Path
    policy: str
    seed: int


def measure(
    file: Path, policies: Sequence[str], seeds: Sequence[int], jobs: int, advance: Callable[[], None]
) -> list[Row]:
    """Means over the seeds, for each policy; who has waited an hour gives up and counts as rejected.

    Raises NotFound for a policy or a file that is not there, InvalidInput for a bad file.
    """
    for policy in policies:
        contender_named(policy)
    _read(file)
    tasks = [_Trial(file, policy, seed) for policy in policies for seed in seeds]
    runs: dict[str, list[ChurnRun]] = {}
    for task, run in zip(tasks, each(_run, tasks, jobs, advance), strict=True):
        runs.setdefault(task.policy, []).append(run)
    return [row for policy, found in runs.items() for row in _rows(policy, found)]


def _run(task: _Trial) -> ChurnRun:
    instances = _read(task.file)
    return replay_churn(instances, fleet_short_of_gpus(instances, task.seed), task.policy, task.seed)


@lru_cache(maxsize=1)
def _read(file: Path) -> list[Instance]:
    return read_instances(file)


def _rows(policy: str, runs: Sequence[ChurnRun]) -> Iterator[Row]:
    held = [run.gpu_allocated_percent for run in runs]
    asked = [run.gpu_asked_percent for run in runs]
    yield _row("churn_gpu_allocated_percent", held, "%", policy, {"asked_percent": round(float(np.mean(asked)), 2)})
    for work, queues in (
        ("with GPUs", [run.with_gpus for run in runs]),
        ("without GPUs", [run.without_gpus for run in runs]),
    ):
        yield from _queueing_rows(policy, work, queues)


def _queueing_rows(policy: str, work: str, queues: Sequence[Queueing]) -> Iterator[Row]:
    context: Context = {"work": work, "of": queues[0].instances}
    yield _row("churn_waited_s_mean", [queue.waited_mean_s for queue in queues], "s", policy, context)
    yield _row("churn_waited_s_p99", [queue.waited_p99_s for queue in queues], "s", policy, context)
    yield _row("churn_rejected_percent", [queue.rejected_percent for queue in queues], "%", policy, context)


def _row(metric: str, values: Sequence[float], unit: str, policy: str, more: Context) -> Row:
    """The mean over the seeds. What is allocated is better when higher, waits and rejections when lower."""
    figure = figure_of(np.array(values))
    context: Context = {"policy": policy, "seeds": figure.seeds, "sd": round(figure.deviation, 3), **more}
    better = "higher" if metric == "churn_gpu_allocated_percent" else "lower"
    return Row(metric=metric, value=figure.mean, unit=unit, better=better, context=context)
