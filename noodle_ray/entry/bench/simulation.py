"""Seeded worlds in which the manager is played through crashes, partitions and delays: how many, and what broke."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from noodle_ray.entry.bench.placement_processes import each
from noodle_ray.entry.bench.report import Row
from noodle_ray.simulation.run import Plan, Result, run, shorten

HOURS_A_MINUTE = 200.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """All worlds of one run, and how long they took on the clock of the wall."""

    results: tuple[Result, ...]
    minutes: float

    @property
    def broken(self) -> list[Result]:
        return [result for result in self.results if result.violation is not None]


def measure(seeds: Iterable[int], minutes: float, nodes: int | None, jobs: int, advance: Callable[[], None]) -> Outcome:
    """Runs every seed."""
    plans = [Plan(seed, minutes, nodes) for seed in seeds]
    started = time.perf_counter()
    results = tuple(each(_run, plans, jobs, advance))
    return Outcome(results, (time.perf_counter() - started) / 60)


def _run(plan: Plan) -> Result:
    """A world is dropped as a whole: looking for garbage while it lives costs a third of the time."""
    gc.freeze()  # what was there before is no garbage, and need not be looked at after each world
    gc.disable()
    try:
        return run(plan)
    finally:
        gc.enable()
        gc.collect()
        gc.unfreeze()


def rows_of(outcome: Outcome) -> list[Row]:
    results = outcome.results
    hours = sum(result.simulated_s for result in results) / 3600
    faults = sum(len(result.faults) for result in results)
    events = sum(result.events for result in results)
    rate = hours / outcome.minutes if outcome.minutes else None
    context: dict[str, str | int | float] = {"cluster_hours": round(hours, 1), "faults": faults}
    return [
        Row(metric="cluster_hours_a_minute", value=rate, unit="h", goal=HOURS_A_MINUTE, better="higher"),
        Row(metric="seeds", value=len(results), unit="seeds", better="higher", context=context),
        Row(metric="violations", value=len(outcome.broken), unit="seeds", goal=0),
        Row(metric="events", value=events, unit="events", better="higher"),
    ]


def stories(broken: Sequence[Result], minutes: float, nodes: int | None) -> list[str]:
    """What broke, and the fewest faults that were found with which it still does."""
    return [_story(shorten(Plan(result.seed, minutes, nodes))) for result in broken]


def _story(result: Result) -> str:
    faults = "".join(f"\n  {fault}" for fault in result.faults)
    return f"seed {result.seed}: {result.violation}\nwith these faults:{faults or ' none'}"
