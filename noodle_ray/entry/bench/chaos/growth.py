"""Whether processes grow: their memory and open descriptors over time. Pure but for `sample` and `write`."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil
from scipy.stats import theilslopes

from noodle_ray.entry.bench.report import Row
from noodle_ray.resources import format_bytes

HOUR_S = 3600.0
WARM_UP_S = 600.0
"""A process's first minutes are not judged: caches fill, and models are loaded. A gateway that began with 137 MiB had
160 after four minutes, 168 after ten, and 171 after twenty."""

LEAST_S, LEAST_SAMPLES = 1200.0, 20
"""Of a process that is watched for less, nobody can say whether it grows."""

MOST_SAMPLES = 1000
"""Of more, every second, third … is looked at: the slope compares each with each."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a process, `at_s` seconds after the start. A name may have several processes, one after another.

    cpu_s: what it has used since it began.
    """

    at_s: float
    name: str
    pid: int
    memory_bytes: int
    descriptors: int
    cpu_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a process may grow by in an hour and be flat: this share of what it has after its warm-up, or so much."""

    share: float = 0.05
    memory_bytes: float = 16 * 2**20
    descriptors: float = 4.0


@dataclass(frozen=True, slots=True)
class Growth:
    """How a process grew, after its warm-up: an hour's growth, and what it had in the middle of its time.

    problem: "" where it is flat.
    """

    name: str
    pid: int
    seconds: float
    memory_bytes: float
    memory_bytes_an_hour: float
    descriptors: float
    descriptors_an_hour: float
    problem: str = ""


def sample(processes: Mapping[str, int], at_s: float) -> list[Sample]:
    """Looks at processes by their names and ids; those that are gone are left out.

    Memory is what the process has for itself and its part of what it shares (PSS); resident memory where the system
    does not tell it.
    """
    found = (_sample(name, pid, at_s) for name, pid in processes.items())
    return [one for one in found if one is not None]


def _sample(name: str, pid: int, at_s: float) -> Sample | None:
    try:
        process = psutil.Process(pid)
        times = process.cpu_times()
        return Sample(at_s, name, pid, _memory_bytes(process), int(process.num_fds()), times.user + times.system)
    except psutil.Error:
        return None


def _memory_bytes(process: psutil.Process) -> int:
    try:
        memory = process.memory_full_info()
    except psutil.AccessDenied:
        memory = process.memory_info()
    return int(getattr(memory, "pss", memory.rss))


def write(samples: Sequence[Sample], path: Path) -> None:
    """A line of JSON for each, for whoever wants to look closer."""
    path.write_text("".join(f"{json.dumps(asdict(one))}\n" for one in samples))


def judge(samples: Sequence[Sample], limits: Limits | None = None) -> list[Growth]:
    """One for each process that was watched for long enough, by name and id."""
    by_process: dict[tuple[str, int], list[Sample]] = defaultdict(list)
    for one in sorted(samples, key=lambda one: one.at_s):
        by_process[one.name, one.pid].append(one)
    after = {key: _after_warm_up(series) for key, series in by_process.items()}
    return [_growth(series, limits or Limits()) for _, series in sorted(after.items()) if _is_enough(series)]


def _after_warm_up(series: Sequence[Sample]) -> list[Sample]:
    return [one for one in series if one.at_s >= series[0].at_s + WARM_UP_S]


def _is_enough(series: Sequence[Sample]) -> bool:
    return len(series) >= LEAST_SAMPLES and series[-1].at_s - series[0].at_s >= LEAST_S


def _growth(series: Sequence[Sample], limits: Limits) -> Growth:
    memory, memory_an_hour = _level_and_slope(series, lambda one: one.memory_bytes)
    descriptors, descriptors_an_hour = _level_and_slope(series, lambda one: one.descriptors)
    problems = []
    if memory_an_hour > max(limits.memory_bytes, limits.share * memory):
        problems.append(f"memory grows by {format_bytes(round(memory_an_hour))} an hour")
    if descriptors_an_hour > max(limits.descriptors, limits.share * descriptors):
        problems.append(f"{descriptors_an_hour:.1f} descriptors more an hour")
    first, last = series[0], series[-1]
    return Growth(
        first.name,
        first.pid,
        last.at_s - first.at_s,
        memory,
        memory_an_hour,
        descriptors,
        descriptors_an_hour,
        "; ".join(problems),
    )


def _level_and_slope(series: Sequence[Sample], of: Callable[[Sample], float]) -> tuple[float, float]:
    """The median, and the median of the slopes between any two (Theil and Sen): a spike moves neither."""
    some = series[:: -(-len(series) // MOST_SAMPLES)]
    values = [of(one) for one in some]
    slope = theilslopes(values, [one.at_s for one in some]).slope
    return float(np.median(values)), float(slope) * HOUR_S


def rows_of(growths: Sequence[Growth]) -> list[Row]:
    """What each process grows by in an hour, and how many grow."""
    rows = [row for one in growths for row in _rows(one)]
    growing = sum(bool(one.problem) for one in growths)
    return [*rows, Row(metric="processes_growing", value=growing, unit="", goal=0, context={"judged": len(growths)})]


def _rows(one: Growth) -> list[Row]:
    context: dict[str, str | int | float] = {"process": one.name, "pid": one.pid, "minutes": round(one.seconds / 60)}
    figures = [
        ("memory_mib_an_hour", one.memory_bytes_an_hour / 2**20, "MiB", "mib", round(one.memory_bytes / 2**20)),
        ("descriptors_an_hour", one.descriptors_an_hour, "", "open", round(one.descriptors)),
    ]
    return [
        Row(metric=metric, value=value, unit=unit, context={**context, level: had})
        for metric, value, unit, level, had in figures
    ]
