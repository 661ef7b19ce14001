"""noodle state: the state of a cluster in one file, and back."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import typer

from noodle_ray.entry.backup.contents import TOKEN, Manifest, kind_of
from noodle_ray.entry.cli.output import AsJson, console, print_json, print_table, say
from noodle_ray.resources import format_bytes
from noodle_ray.settings import read_settings
from noodle_ray.store.tables import RUNNING

app = typer.Typer(help="Backup and restore of the state.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(dir_okay=False, help="The backup.")]


@app.command("export")
def export(
    file: File,
    with_token: Annotated[bool, typer.Option("--with-token", help="The cluster's token, too.")] = False,
    json: AsJson = False,
) -> None:
    """Write modules, their states, sessions, indexes and heads into one file; a cluster may run meanwhile."""
    from noodle_ray.entry.backup.exporting import export_state

    manifest = export_state(read_settings(), file, with_token, time.time(), say)
    _show(file, "exported to", manifest, json)


@app.command("import")
def import_(
    file: File,
    replace: Annotated[bool, typer.Option("--replace", help="Also where there is a state, which is lost.")] = False,
    with_running: Annotated[
        bool,
        typer.Option("--with-running", help="Nodes, allocations, loads and services, too: for the same Ray cluster."),
    ] = False,
    json: AsJson = False,
) -> None:
    """Put a backup in the place of the state. No cluster may run; all of the file is checked before."""
    from noodle_ray.entry.backup.importing import import_state

    manifest = import_state(read_settings(), file, replace, with_running, say)
    _show(file, "imported from", manifest, json, () if with_running else RUNNING)


@app.command()
def check(file: File, json: AsJson = False) -> None:
    """Check a backup, all of it, without importing it."""
    from noodle_ray.entry.backup.reading import open_backup

    with open_backup(file) as backup:
        _show(file, "whole:", backup.manifest, json)


def _show(file: Path, what: str, manifest: Manifest, json: bool, left_out: Collection[str] = ()) -> None:
    """`left_out`: tables of it that were not made use of."""
    kinds = [known[0] for member in manifest.members if (known := kind_of(member.name)) is not None]
    files = {kind: kinds.count(kind) for kind in ("artefact", "head", "index")}
    with_token = TOKEN in (member.name for member in manifest.members)
    size = sum(member.size for member in manifest.members)
    if json:
        facts = manifest.model_dump(include={"format", "noodle_version", "created_at", "rows"})
        print_json({**facts, "files": files, "bytes": size, "token": with_token, "left_out": list(left_out)})
        return
    console.print(f"{what} {file}: {format_bytes(size)}", highlight=False, markup=False, soft_wrap=True)
    told = {name: f"{count} (left out)" if name in left_out else str(count) for name, count in manifest.rows.items()}
    tables = [("table", name, count) for name, count in told.items()]
    there = [("files", kind, str(count)) for kind, count in files.items()]
    print_table("In it", ["", "of", "number"], [*tables, *there, ("token", "", "yes" if with_token else "no")])
