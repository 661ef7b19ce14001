"""A latency benchmark's phases as rows: each figure with its goal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from noodle_ray.entry.bench.fusion.latency import GOAL_SHARE, IN_PROCESS, THREE
from noodle_ray.entry.bench.fusion.latency_phases import COLD, DEADLINE_MS, LONE, WARM, Measured
from noodle_ray.entry.bench.report import Row
from noodle_ray.entry.bench.timing import percentile

OURS = "noodle-ray"
PERCENTILES = (50, 95, 99)
THREE_MS, OVERHEAD_MS, CACHED_MS = 60.0, 10.0, 10.0
IN_TIME_PERCENT, ALL_USED_PERCENT = 99.9, 95.0

Context = dict[str, str | int | float]


def rows_of(measured: Sequence[Measured]) -> list[Row]:
    """Every phase's rows, then how far ours is above the same encoders in one process."""
    return [*(row for one in measured for row in rows_of_phase(one)), *overhead_rows(measured)]


def rows_of_phase(measured: Measured) -> list[Row]:
    """A phase that was left out keeps its goals, without values, and the reason."""
    rows = list(_figures(measured))
    if not measured.left_out:
        return rows
    kept = [row for row in rows if row.goal is not None] or rows[:1]
    return [
        row.model_copy(update={"value": None, "context": {**row.context, "left out": measured.left_out}})
        for row in kept
    ]


def _figures(measured: Measured) -> Iterator[Row]:
    context = context_of(measured)
    for percent in PERCENTILES:
        goal = _ms_goal(measured, percent)
        yield Row(metric=f"fusion_ms_p{percent}", value=measured.ms(percent), unit="ms", goal=goal, context=context)
    yield from _share_rows(measured, context)
    yield _higher("requests_per_s", measured.a_second(measured.answered), "requests a second", None, context)
    yield _higher("full_answers_per_s", measured.a_second(measured.full), "answers a second", None, context)
    if measured.cpu_ms is not None and measured.asked and measured.phase.system != IN_PROCESS:
        value = measured.cpu_ms / len(measured.asked)
        yield Row(metric="cpu_ms_per_request", value=value, unit="ms", context=context)
    if measured.phase.what == LONE:
        yield from _stage_rows(measured, context)
    if _is_cached(measured):
        yield Row(metric="cached_ms_p50", value=measured.ms(50), unit="ms", goal=CACHED_MS, context=context)


def _share_rows(measured: Measured, context: Context) -> Iterator[Row]:
    at_goal = _is_at_goal(measured)
    in_time, lost = measured.in_time, measured.lost
    used = [one for one in measured.full if one in in_time]
    wanted = (IN_TIME_PERCENT, ALL_USED_PERCENT) if at_goal else (None, None)
    yield _higher("within_deadline_percent", measured.percent(in_time), "%", wanted[0], context)
    yield _higher("all_modalities_used_percent", measured.percent(used, in_time), "%", wanted[1], context)
    yield _higher("answered_percent", measured.percent(measured.answered), "%", None, context)
    goal = 0.0 if measured.phase.fault else None
    yield Row(metric="lost_requests", value=len(lost), unit="requests", goal=goal, context={**context, **_why(lost)})


def _stage_rows(measured: Measured, context: Context) -> Iterator[Row]:
    """Where a lone request's time goes, as the answers themselves tell it: medians, so that they need not add up.

    "outside" is what the engine does not see: the client, HTTP, the gateway, and the way to the engine and back.
    """
    told = [one for one in measured.answered if one.stage_ms]
    stages = dict.fromkeys(stage for one in told for stage in one.stage_ms)
    spent = {stage: [one.stage_ms[stage] for one in told if stage in one.stage_ms] for stage in stages}
    if "total" in spent:
        spent["outside"] = [one.ms - one.stage_ms["total"] for one in told if "total" in one.stage_ms]
    for stage, ms in spent.items():
        yield Row(metric="stage_ms_p50", value=percentile(ms, 50), unit="ms", context={**context, "stage": stage})


def _why(lost: Sequence[object]) -> Context:
    reasons = sorted({f"{one.status} {one.problem[:120]}" for one in lost})  # type: ignore[attr-defined]
    return {"lost for": "; ".join(reasons[:3])} if reasons else {}


def _higher(metric: str, value: float | None, unit: str, goal: float | None, context: Context) -> Row:
    return Row(metric=metric, value=value, unit=unit, goal=goal, better="higher", context=context)


def _ms_goal(measured: Measured, percent: int) -> float | None:
    phase = measured.phase
    if percent == 99 and _is_at_goal(measured):
        return DEADLINE_MS
    is_three = phase.system == OURS and phase.what == LONE and phase.cache == COLD and phase.load.modalities == THREE
    return THREE_MS if percent == 50 and is_three else None


def _is_at_goal(measured: Measured) -> bool:
    phase = measured.phase
    return phase.system == OURS and phase.share == GOAL_SHARE and not phase.fault


def _is_cached(measured: Measured) -> bool:
    return measured.phase.system == OURS and measured.phase.cache == WARM and measured.phase.what == LONE


def context_of(measured: Measured) -> Context:
    """How it was asked; what the generator itself was late by is told, for it must be little."""
    phase = measured.phase
    context: Context = {
        "system": phase.system,
        "modalities": "+".join(phase.load.modalities),
        "load": phase.what,
        "cache": phase.cache,
        "requests": len(measured.asked),
    }
    if phase.fault:
        context["fault"] = phase.fault
    if phase.load.rate is not None and measured.asked:
        context["arrivals a second"] = round(phase.load.rate, 2)
        context["generator late ms p99"] = round(percentile([one.late_ms for one in measured.asked], 99), 1)
    return context


def overhead_rows(measured: Sequence[Measured]) -> Iterator[Row]:
    """Every system's lone requests beside the same encoders called in one process: medians' difference."""
    lone = [one for one in measured if one.phase.what == LONE and one.phase.cache == COLD and one.answered]
    floors = {one.phase.load.modalities: one.ms(50) for one in lone if one.phase.system == IN_PROCESS}
    for one in lone:
        floor, ms = floors.get(one.phase.load.modalities), one.ms(50)
        if one.phase.system != IN_PROCESS and floor is not None and ms is not None:
            goal = OVERHEAD_MS if one.phase.system == OURS else None
            yield Row(metric="overhead_ms_p50", value=ms - floor, unit="ms", goal=goal, context=context_of(one))
