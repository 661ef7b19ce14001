"""Pictures of the latency benchmark: latency, and answers in time, against arrivals a second.

What is answered in time may rest on fewer modalities than were given: answers by all four have lines of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from noodle_ray.entry.bench.fusion.latency_phases import DEADLINE_MS, Measured
from noodle_ray.entry.bench.pictures import COLOURS, write_plot


def write_plots(measured: Sequence[Measured], directory: Path) -> list[Path]:
    """Writes `latency.png` and `in-time.png`, the systems side by side."""
    points = [one for one in measured if one.phase.share and not one.phase.fault and one.answered]
    if not points:
        return []
    return [
        write_plot(directory / "latency.png", partial(_draw_latency, points=points)),
        write_plot(directory / "in-time.png", partial(_draw_in_time, points=points)),
    ]


def _draw_latency(axes: Any, points: Sequence[Measured]) -> None:
    axes.axhline(DEADLINE_MS, color="0.6", linewidth=1, linestyle=":", label="deadline")
    _lines(axes, points, lambda one: one.ms(99), "p99", "-")
    _lines(axes, points, lambda one: one.ms(50), "p50", "--")
    axes.set_yscale("log")
    for ticks in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        ticks("{x:.0f}")
    axes.set_title("From when a request was due to its answer, all four modalities", loc="left")
    axes.set_ylabel("ms")
    axes.set_xlabel("arrivals a second (Poisson)")


def _draw_in_time(axes: Any, points: Sequence[Measured]) -> None:
    _lines(axes, points, lambda one: one.percent(one.in_time), "", "-")
    _lines(axes, points, lambda one: one.percent([a for a in one.full if a in one.in_time]), "by all four", "--")
    axes.set_title(f"Requests answered within {DEADLINE_MS:g} ms, all four modalities given", loc="left")
    axes.set_ylabel("%")
    axes.set_ylim(0, 101)
    axes.set_xlabel("arrivals a second (Poisson)")


def _lines(
    axes: Any, points: Sequence[Measured], figure: Callable[[Measured], float | None], what: str, style: str
) -> None:
    for number, (system, of_system) in enumerate(groupby(points, key=lambda one: one.phase.system)):
        measured = list(of_system)
        rates = [one.phase.load.rate for one in measured]
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(
            rates,
            list(map(figure, measured)),
            marker="o",
            color=colour,
            linestyle=style,
            label=f"{system} {what}".strip(),
        )
