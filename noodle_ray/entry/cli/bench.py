"""noodle bench NAME: measure, print a table, write JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Benchmarks: a table here, JSON with --json FILE.", no_args_is_help=True)

JsonFile = Annotated[Path | None, typer.Option("--json", dir_okay=False, help="Write the rows to this file.")]


@app.command()
def targets(json: JsonFile = None, seconds: Annotated[float, typer.Option(min=1, max=120)] = 10.0) -> None:
    """The project's promises beside what this cluster measures just now (it must be running: `noodle up`)."""
    from noodle_ray.entry.bench import report
    from noodle_ray.entry.bench.targets import measure

    report.publish("targets", measure(seconds), json)
