"""The rows and the tables of a run of `noodle bench chaos`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from noodle_ray.entry.bench.chaos.outcome import Loss, Outcome, Recovery, answered_percent, longest_gap_s
from noodle_ray.entry.bench.chaos.records import Inflicted, Probe
from noodle_ray.entry.bench.report import Row
from noodle_ray.entry.bench.timing import percentile
from noodle_ray.entry.cli.output import print_table

ANSWERED_PERCENT = 99.9
"""The goal."""

LOSSES_SHOWN = 40


def rows_of(outcome: Outcome) -> list[Row]:
    """Answered, gaps and latency in all and by route, and recovery by kind of fault."""
    every = [row for route in ("", *outcome.routes) for row in _route_rows(outcome, route)]
    return [*every, *_recovery_rows(outcome.recoveries()), *_fault_rows(outcome)]


def _route_rows(outcome: Outcome, route: str) -> Iterator[Row]:
    probes = outcome.of(route)
    named: dict[str, str | int | float] = {"route": route} if route else {}
    counted = {**named, "asked": len(probes), "lost": sum(not probe.answered for probe in probes)}
    share = answered_percent(probes)
    yield Row(
        metric="answered_percent",
        value=share,
        unit="%",
        goal=ANSWERED_PERCENT,
        better="higher",
        context={**counted, "retried": sum(probe.retried for probe in probes)},
    )
    if route:
        yield Row(metric="longest_gap_s", value=longest_gap_s(probes, outcome.seconds), unit="s", context=named)
    yield from _latency_rows(probes, named)


def _latency_rows(probes: Sequence[Probe], named: dict[str, str | int | float]) -> Iterator[Row]:
    taken = [probe.ms for probe in probes if probe.answered]
    for percent in (50, 99):
        value = percentile(taken, percent) if taken else None
        yield Row(metric=f"latency_ms_p{percent}", value=value, unit="ms", context=named)


def _recovery_rows(recoveries: Sequence[Recovery]) -> Iterator[Row]:
    """The longest of each kind, and how many there were."""
    for kind in sorted({one.inflicted.fault.kind for one in recoveries}):
        alike = [one.seconds for one in recoveries if one.inflicted.fault.kind == kind]
        taken = [seconds for seconds in alike if seconds is not None]
        context: dict[str, str | int | float] = {"fault": kind, "times": len(alike)}
        longest = max(taken) if len(taken) == len(alike) else None
        yield Row(metric="recovery_s_longest", value=longest, unit="s", context=context)


def _fault_rows(outcome: Outcome) -> Iterator[Row]:
    failed = sum(bool(one.problem) for one in outcome.inflicted)
    never = sum(one.seconds is None for one in outcome.recoveries())
    yield Row(metric="faults", value=len(outcome.inflicted) - failed, unit="")
    yield Row(metric="faults_not_inflicted", value=failed, unit="", goal=0)
    yield Row(metric="faults_not_recovered", value=never, unit="", goal=0)


def print_schedule(outcome: Outcome) -> None:
    """Each fault with what it did; those that could not be inflicted say why."""
    recovered = {one.inflicted: one for one in outcome.recoveries()}
    columns = ["at", "fault", "on", "for", "whole again after", "missing meanwhile"]
    print_table("Faults", columns, [_fault_cells(one, recovered.get(one)) for one in outcome.inflicted])


def _fault_cells(one: Inflicted, recovery: Recovery | None) -> list[str]:
    lasted = f"{one.healed_s - one.injected_s:.1f} s" if one.fault.seconds else ""
    if recovery is None:
        after, missing = "not inflicted", one.problem
    else:
        after = "not before the end" if recovery.seconds is None else f"{recovery.seconds:.1f} s"
        missing = ", ".join(recovery.missing)
    return [f"{one.injected_s:.1f} s", one.fault.kind, one.fault.host or "wherever it runs", lasted, after, missing]


def print_losses(outcome: Outcome) -> None:
    """The requests that were lost, the first ones where they are many."""
    losses = outcome.losses()
    shown = f", {LOSSES_SHOWN} of them" if len(losses) > LOSSES_SHOWN else ""
    rows = [_loss_cells(loss) for loss in losses[:LOSSES_SHOWN]]
    print_table(f"Requests lost: {len(losses)}{shown}", ["due", "route", "what came", "during"], rows)


def _loss_cells(loss: Loss) -> list[str]:
    probe = loss.probe
    during = ", ".join(str(one.fault) for one in loss.during) or "no fault"
    return [f"{probe.due_s:.1f} s", probe.route, probe.problem or f"status {probe.status}", during]
