"""What the command line prints: tables for people, JSON for programs, errors in one line."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from noodle_ray.errors import NoodleError

# Where nobody looks at a terminal's width, lines are not broken at eighty columns.
_WIDTH = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 140
console = Console(width=_WIDTH)
errors = Console(stderr=True, width=_WIDTH)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def plain(value: Any) -> Any:
    """Our values as plain data for JSON."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def print_json(value: Any) -> None:
    json.dump(plain(value), sys.stdout, indent=2)
    sys.stdout.write("\n")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str = "none") -> None:
    """A table with a title; `empty` stands for a table without rows."""
    cells = [[escape(str(cell)) for cell in row] for row in rows]
    if not cells:
        console.print(f"[bold]{escape(title)}[/bold]: {empty}")
        return
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in cells:
        table.add_row(*row)
    console.print(table)


def say(text: str) -> None:
    """One line on the error stream, so that a command's data stays alone on standard output."""
    errors.print(escape(text), highlight=False)


def with_clear_errors(command: Callable[[], None]) -> int:
    """Runs the command; an error of ours becomes one line and exit status 1."""
    try:
        command()
    except NoodleError as error:
        errors.print(f"[bold red]error[/bold red] ({error.code}): {escape(error.message)}", highlight=False)
        return 1
    return 0
