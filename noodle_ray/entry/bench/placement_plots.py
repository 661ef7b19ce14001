"""Pictures of a contest: GPU allocation against arrived demand, one a trace."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from noodle_ray.entry.bench.placement import Outcome
from noodle_ray.entry.bench.placement_rows import RIVAL
from noodle_ray.errors import Unavailable
from noodle_ray.placement.policies import DEFAULT_POLICY
from noodle_ray.replay.published import LAST_LEVEL

FIRST_LEVEL = 70
"""Below, everything fits under every policy and the lines lie on each other."""

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#8C564B", "#4D4D4D")
"""Okabe and Ito's, which people who see colours otherwise tell apart too."""

_LEVELS = np.arange(FIRST_LEVEL, LAST_LEVEL + 1)


def require_matplotlib() -> None:
    """To be asked before hours are spent on what then cannot be drawn. Raises Unavailable."""
    if find_spec("matplotlib") is None:
        raise Unavailable("pictures need matplotlib: pip install 'noodle-ray[bench]'")


def write_plots(outcome: Outcome, directory: Path) -> list[Path]:
    """Writes `TRACE.png` for each trace into the directory, which is made where there is none."""
    # Imported here: a second that only those who want pictures wait for. Agg draws without a screen.
    import matplotlib

    matplotlib.use("Agg")
    directory.mkdir(parents=True, exist_ok=True)
    return [_write_plot(outcome, trace, directory / f"{trace}.png") for trace in outcome.contest.traces]


def _write_plot(outcome: Outcome, trace: str, path: Path) -> Path:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.6, 4.6), layout="constrained")
    axes.plot(_LEVELS, _LEVELS, color="0.75", linewidth=1, linestyle=":", label="all that was asked for")
    _draw_bounds(axes, outcome, trace)
    for number, policy in enumerate(outcome.contest.policies):
        _draw_policy(axes, outcome, trace, policy, _COLOURS[number % len(_COLOURS)])
    _draw_published(axes, outcome, trace)
    _label(axes, outcome, trace)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
    return path


def _draw_policy(axes: Any, outcome: Outcome, trace: str, policy: str, colour: str) -> None:
    """The mean as a line, in front for our default, and one standard deviation around it."""
    curves = outcome.curves(trace, policy)[:, FIRST_LEVEL:]
    mean, ours = curves.mean(axis=0), policy == DEFAULT_POLICY
    spread = curves.std(axis=0, ddof=1) if len(curves) > 1 else np.zeros(len(mean))
    axes.fill_between(_LEVELS, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0)
    width, order = (2.4, 5) if ours else (1.5, 3)
    axes.plot(_LEVELS, mean, color=colour, linewidth=width, zorder=order, label=f"{policy}  {_at_100(mean)}")


def _draw_published(axes: Any, outcome: Outcome, trace: str) -> None:
    runs = outcome.published.runs.get((trace, RIVAL))
    if runs is not None:
        mean = runs.mean(axis=0)[FIRST_LEVEL:]
        label = f"FGD as published  {_at_100(mean)}"
        axes.plot(_LEVELS, mean, color="black", linewidth=1.2, linestyle="--", zorder=4, label=label)


def _draw_bounds(axes: Any, outcome: Outcome, trace: str) -> None:
    """A short horizontal mark at each level that the bound was computed for."""
    label: str | None = "bound: no policy allocates more"
    for at in (at for at in outcome.contest.at if at >= FIRST_LEVEL):
        bound = outcome.bounds[trace, at]
        axes.plot([at - 1.5, at + 1.5], [bound, bound], color="#B22222", linewidth=3, zorder=6, label=label)
        axes.annotate(f"{bound:.1f}", (at, bound), (0, 5), textcoords="offset points", ha="center", color="#B22222")
        label = None


def _at_100(mean: Any) -> str:
    return f"{mean[100 - FIRST_LEVEL]:.1f}"


def _label(axes: Any, outcome: Outcome, trace: str) -> None:
    seeds = len(outcome.contest.seeds)
    axes.set_title(f"{trace}: GPU allocated, mean of {seeds} seeds (figures: at 100 %)", loc="left")
    axes.set_xlabel("GPU asked for so far, % of capacity")
    axes.set_ylabel("GPU allocated, % of capacity")
    axes.set_xlim(FIRST_LEVEL, LAST_LEVEL + 1.5)
    axes.set_ylim(FIRST_LEVEL, 101)
    axes.grid(color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False, fontsize=9)
