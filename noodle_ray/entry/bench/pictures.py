"""Pictures of benchmarks: one way to draw and write them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#8C564B", "#4D4D4D")
"""Okabe and Ito's, which people who see colours otherwise tell apart too."""


def write_plot(path: Path, draw: Callable[[Any], None], legend: Mapping[str, Any] | None = None) -> Path:
    """One picture; its directory is made where there is none. Agg draws without a screen.

    legend: matplotlib's words for where it is, if not where it covers least.
    """
    import matplotlib  # a second that only those who want pictures wait for

    matplotlib.use("Agg")
    from matplotlib import pyplot

    path.parent.mkdir(parents=True, exist_ok=True)
    figure, axes = pyplot.subplots(figsize=(7.6, 4.6), layout="constrained")
    draw(axes)
    axes.grid(color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, **(legend or {}))
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
    return path
