"""The command `noodle`: every command group under one roof."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from noodle_ray.entry.cli import (
    allocations,
    bench,
    cluster,
    data,
    discovery,
    doctor,
    fusion,
    fusion_group,
    joining,
    models,
    modules,
    monitoring,
    placement,
    services,
    state,
)
from noodle_ray.entry.cli.output import console, with_clear_errors
from noodle_ray.logs import configure_logs
from noodle_ray.settings import read_settings

app = typer.Typer(
    help="Placement, live modules and multimodal fusion for Ray clusters.", no_args_is_help=True, add_completion=False
)
cluster.add_commands(app)
joining.add_commands(app)
allocations.add_commands(app)
placement.add_commands(app)
discovery.add_commands(app)
fusion.add_commands(app)
doctor.add_commands(app)
app.add_typer(modules.app, name="module")
app.add_typer(services.app, name="service")
app.add_typer(fusion_group.app, name="fusion")
app.add_typer(models.app, name="models")
app.add_typer(data.app, name="data")
app.add_typer(monitoring.app, name="monitoring")
app.add_typer(state.app, name="state")
app.add_typer(bench.app, name="bench")


def _print_version(wanted: bool) -> None:
    if wanted:
        console.print(f"noodle-ray {version('noodle-ray')}", highlight=False)
        raise typer.Exit


@app.callback()
def _prepare(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    configure_logs(read_settings().log_level)


def run() -> None:
    """The console script: errors of ours become one line, anything else a traceback (it is a bug)."""
    sys.exit(with_clear_errors(lambda: app(standalone_mode=True)))
