"""The one form of every benchmark: rows with goals, drawn as a table and written as JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import psutil

from noodle_ray.base_model import Model
from noodle_ray.entry.cli.output import console, print_table


class Row(Model):
    """One measured figure. `value` is None where it was not measured; a rival's row names it in `context`."""

    metric: str
    value: float | None
    unit: str
    goal: float | None = None
    better: Literal["higher", "lower"] = "lower"
    context: dict[str, str | int | float] = {}  # noqa: RUF012  (pydantic copies it)

    @property
    def ratio(self) -> float | None:
        """How many times better than the goal: above 1 the goal is met."""
        if self.value is None or self.goal is None or self.value <= 0 or self.goal <= 0:
            return None
        return self.goal / self.value if self.better == "lower" else self.value / self.goal


class Report(Model):
    """A benchmark's result."""

    bench: str
    machine: dict[str, Any]
    rows: tuple[Row, ...]


def this_machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cpus": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.release()}",
        "processor": platform.machine(),
        "python": platform.python_version(),
    }


def publish(bench: str, rows: list[Row], file: Path | None, table: Callable[[], None] | None = None) -> Report:
    """Prints the rows as a table, or as `table` prints them, and writes them as JSON where a file is named."""
    report = Report(bench=bench, machine=this_machine(), rows=tuple(rows))
    (table or (lambda: _print(bench, rows)))()
    console.print(
        f"{report.machine['cpus']} CPUs, {report.machine['memory_bytes'] / 2**30:.0f} GiB, "
        f"{report.machine['system']}, Python {report.machine['python']}",
        style="dim",
        highlight=False,
    )
    if file is not None:
        file.write_text(json.dumps(report.to_json(), indent=2) + "\n")
    return report


def _print(bench: str, rows: list[Row]) -> None:
    print_table(f"bench {bench}", ["metric", "measured", "goal", "times better", "context"], map(_cells, rows))


def _cells(row: Row) -> list[str]:
    sign = "<" if row.better == "lower" else ">"
    return [
        row.metric,
        "not yet measured" if row.value is None else f"{row.value:.4g} {row.unit}",
        "" if row.goal is None else f"{'' if row.goal == 0 else sign} {row.goal:g} {row.unit}".strip(),
        "" if row.ratio is None else f"{row.ratio:.1f}",
        ", ".join(f"{name} {value}" for name, value in row.context.items()),
    ]
