"""Pictures of a run of `noodle bench chaos`: what was answered and how quickly, with the faults, over time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from noodle_ray.entry.bench.chaos.outcome import Outcome, Recovery
from noodle_ray.entry.bench.chaos.records import Probe
from noodle_ray.entry.bench.pictures import COLOURS, write_plot

NAMED = 60
"""Of more faults the names are left out: they would lie on each other."""

LEAST_MS = 1.0

BESIDE = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "markerscale": 3}


def write_plots(outcome: Outcome, directory: Path) -> list[Path]:
    """Writes `answered.png` and `latency.png` into the directory, which is made where there is none."""
    if not outcome.probes:
        return []
    return [
        write_plot(directory / "answered.png", partial(_draw_answered, outcome=outcome), BESIDE),
        write_plot(directory / "latency.png", partial(_draw_latency, outcome=outcome), BESIDE),
    ]


def a_second(seconds: float, ended: Iterable[float]) -> list[int]:
    """How many ended in each second of the run; what ended later counts to the last."""
    last = max(0, int(seconds) - 1)
    counts = Counter(min(int(at_s), last) for at_s in ended)
    return [counts[second] for second in range(last + 1)]


def _draw_answered(axes: Any, outcome: Outcome) -> None:
    answered = a_second(outcome.seconds, (probe.ended_s for probe in outcome.probes if probe.answered))
    lost = a_second(outcome.seconds, (probe.due_s for probe in outcome.probes if not probe.answered))
    axes.step(range(len(answered)), answered, where="post", color=COLOURS[0], linewidth=0.8, label="answered")
    axes.bar(range(len(lost)), lost, width=1.0, align="edge", color=COLOURS[1], label="lost")
    axes.set_ylim(0, 1.35 * max([*answered, *lost, 1]))
    axes.set_title("Requests answered a second, and lost ones when they were due", loc="left")
    axes.set_ylabel("a second")
    _draw_faults(axes, outcome)


def _draw_latency(axes: Any, outcome: Outcome) -> None:
    axes.set_yscale("log")
    for number, route in enumerate(outcome.routes):
        _dots(axes, outcome.of(route), route, COLOURS[(number + 2) % len(COLOURS)])
    lost = [probe for probe in outcome.probes if not probe.answered]
    axes.plot(
        [probe.due_s for probe in lost],
        [max(LEAST_MS, probe.ms) for probe in lost],
        linestyle="",
        marker="x",
        markersize=4,
        color=COLOURS[1],
        label="lost",
    )
    axes.set_ylim(LEAST_MS / 2, 20 * max(LEAST_MS, *(probe.ms for probe in outcome.probes)))  # room for names
    axes.set_title("From when a request was due to its answer", loc="left")
    axes.set_ylabel("ms")
    _draw_faults(axes, outcome)


def _dots(axes: Any, probes: Iterable[Probe], label: str, colour: str) -> None:
    answered = [probe for probe in probes if probe.answered]
    due, taken = [probe.due_s for probe in answered], [max(LEAST_MS, probe.ms) for probe in answered]
    axes.plot(due, taken, linestyle="", marker=".", markersize=2, color=colour, label=label)


def _draw_faults(axes: Any, outcome: Outcome) -> None:
    """Each from its beginning until all was well again."""
    recoveries = outcome.recoveries()
    for one in recoveries:
        start_s = one.inflicted.injected_s
        axes.axvspan(start_s, min(one.end_s, outcome.seconds), color="0.5", alpha=0.15, linewidth=0)
        axes.axvline(start_s, color="0.6", linewidth=0.6)
        if len(recoveries) <= NAMED:
            _name(axes, one)
    axes.set_xlabel("seconds from the start; grey: from a fault until all was well again")
    axes.set_xlim(0, outcome.seconds)


def _name(axes: Any, one: Recovery) -> None:
    fault = one.inflicted.fault
    text = f"{fault.kind.replace('_', ' ')} {fault.host}".strip()
    place = {"xy": (one.inflicted.injected_s, 0.99), "xycoords": axes.get_xaxis_transform(), "va": "top"}
    axes.annotate(text, rotation=90, fontsize=5, color="0.3", **place)
