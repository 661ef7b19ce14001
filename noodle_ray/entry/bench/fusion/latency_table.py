"""A latency benchmark for people: a line a phase, then the goals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from noodle_ray.entry.bench.fusion.accuracy_rows import is_met
from noodle_ray.entry.bench.fusion.latency import IN_PROCESS
from noodle_ray.entry.bench.fusion.latency_phases import WARM, Measured, Phase
from noodle_ray.entry.bench.fusion.latency_rows import rows_of, rows_of_phase
from noodle_ray.entry.bench.report import Row
from noodle_ray.entry.cli.output import print_table, say
from noodle_ray.fusion.modality import MODALITIES

SHOWN = {
    "fusion_ms_p50": "p50 ms",
    "fusion_ms_p95": "p95",
    "fusion_ms_p99": "p99",
    "within_deadline_percent": "in time %",
    "all_modalities_used_percent": "all used %",
    "lost_requests": "lost",
    "requests_per_s": "a second",
    "cpu_ms_per_request": "CPU ms",
}


def show(measured: Sequence[Measured]) -> None:
    """Prints a table of all phases by system, and one of the goals."""
    columns = ("modalities", "load", "requests", *SHOWN.values())
    for system, of_system in groupby(measured, key=lambda one: one.phase.system):
        how = "without HTTP" if system == IN_PROCESS else "over HTTP"
        print_table(f"{system} ({how})", columns, map(_line, of_system))
    for reason in dict.fromkeys(one.left_out for one in measured if one.left_out):
        phases = [f"{one.phase.system}, {_load(one.phase)}" for one in measured if one.left_out == reason]
        say(f"left out: {'; '.join(phases)}: {reason}")
    print_table("where a lone request's time goes, ms p50", ("modalities", *STAGES), _stage_lines(measured))
    goals = [row for row in rows_of(measured) if row.goal is not None]
    print_table("goals", ("metric", "modalities", "load", "measured", "goal", ""), _goal_lines(goals))


STAGES = ("decode", *MODALITIES, "candidates", "fuse", "total", "outside")


def _stage_lines(measured: Sequence[Measured]) -> Iterator[list[str]]:
    """As answers tell it that say so: ours. "outside": what is not in "total", the way through HTTP and the gateway."""
    for one in measured:
        rows = {row.context["stage"]: row for row in rows_of_phase(one) if row.metric == "stage_ms_p50"}
        if rows:
            yield [f"{_modalities(one.phase)}, cache {one.phase.cache}", *(_figure(rows.get(name)) for name in STAGES)]


def _line(measured: Measured) -> list[str]:
    phase = measured.phase
    rows = {row.metric: row for row in rows_of_phase(measured)}
    return [_modalities(phase), _load(phase), str(len(measured.asked)), *(_figure(rows.get(name)) for name in SHOWN)]


def _modalities(phase: Phase) -> str:
    return "all four" if phase.load.modalities == MODALITIES else "+".join(phase.load.modalities)


def _load(phase: Phase) -> str:
    rate = f" ({phase.load.rate:.1f}/s)" if phase.load.rate else ""
    warm = f", cache {WARM}" if phase.cache == WARM else ""
    return f"{phase.what}{rate}{warm}{', ' + phase.fault if phase.fault else ''}"


def _figure(row: Row | None) -> str:
    if row is None or row.value is None:
        return ""
    return f"{row.value:.0f}" if row.metric == "lost_requests" else f"{row.value:.1f}"


def _verdict(row: Row) -> str:
    if row.value is None:
        return "not measured"
    return "met" if is_met(row) else "short"


def _goal_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    for row in rows:
        sign = "≤" if row.better == "lower" else "≥"
        measured = "" if row.value is None else f"{row.value:.4g} {row.unit}"
        load = ", ".join(str(row.context[key]) for key in ("load", "fault") if key in row.context)
        if row.context["cache"] == WARM:
            load += f", cache {WARM}"
        goal = f"{sign} {row.goal:g} {row.unit}"
        yield [row.metric, str(row.context["modalities"]), load, measured, goal, _verdict(row)]
