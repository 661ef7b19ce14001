"""noodle fusion index …: what can be found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from noodle_ray.entry.cli.fusion import Codes, Images, Sounds, Texts, given
from noodle_ray.entry.cli.output import AsJson, console, print_json, print_table
from noodle_ray.entry.cli.progress import shown_count
from noodle_ray.errors import InvalidInput
from noodle_ray.fusion.index_messages import IndexInfo, KnownQuery, NewEntry, NewIndex

app = typer.Typer(help="Named indexes: what `noodle fuse … --index NAME` finds.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The index's name.")]
Rows = Annotated[Path | None, typer.Argument(exists=True, dir_okay=False, help="One JSON object a line.")]
AT_ONCE = 100
"""Entries that are read and kept together: a long file is added in steps."""


def _connected() -> Any:
    from noodle_ray.entry.client import connect

    return connect()


@app.command("list")
def list_indexes(json: AsJson = False) -> None:
    """List the indexes."""
    with _connected() as cluster:
        found = cluster.fusion.indexes.list()
    if json:
        print_json(list(found))
        return
    rows = [[one.name, one.kind, one.entries, _fit(one), one.damage] for one in found]
    print_table("Indexes", ["index", "kind", "entries", "fitted", "damage"], rows)


@app.command()
def show(name: Name, json: AsJson = False) -> None:
    """Show one index and the names of its entries."""
    with _connected() as cluster:
        info, entries = cluster.fusion.indexes.describe(name), cluster.fusion.indexes.entries(name)
    if json:
        print_json({**info.to_json(), "names": list(entries)})
        return
    _print_one(info, json)
    print_table("Entries", ["entry"], [[entry] for entry in entries])


@app.command()
def create(
    name: Name,
    kind: Annotated[
        str,
        typer.Option(
            help="code: compares embeddings, words and code; text: embeddings and words; dense: embeddings alone."
        ),
    ] = NewIndex().kind,
    json: AsJson = False,
) -> None:
    """Create an index. One that is there stays as it is."""
    with _connected() as cluster:
        _print_one(cluster.fusion.indexes.create(name, kind), json)


@app.command()
def add(
    name: Name,
    rows: Rows = None,
    entry: Annotated[str, typer.Option(help="Instead of a file: one entry's name, with what it is.")] = "",
    text: Texts = None,
    code: Codes = None,
    image: Images = None,
    audio: Sounds = None,
    json: AsJson = False,
) -> None:
    """Add entries: rows of {"name", "text", "code", "image", "audio", "meta"} with paths of images and sounds."""
    from noodle_ray.entry.index_rows import read_index_rows

    if bool(rows) == bool(entry):
        raise InvalidInput.of("add", "takes a file of rows, or --entry with what it is")
    if rows is not None:
        entries = read_index_rows(rows, NewEntry)
    else:
        entries = [NewEntry.parse({"name": entry, **given(text, code, image, audio)})]
    with _connected() as cluster, shown_count("reading", len(entries)) as tick:
        for some in _portions(entries):
            info = cluster.fusion.indexes.add(name, some)
            for _ in some:
                tick()
    _print_one(info, json)


@app.command()
def remove(
    name: Name, entries: Annotated[list[str], typer.Argument(help="The entries' names.")], json: AsJson = False
) -> None:
    """Remove entries, as far as they are there."""
    with _connected() as cluster:
        _print_one(cluster.fusion.indexes.remove(name, entries), json)


@app.command()
def fit(
    name: Name,
    rows: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="One JSON object a line.")],
    json: AsJson = False,
) -> None:
    """Weigh an index's evidence by known queries: rows of {"text", "code", "image", "audio", "answer"}."""
    from noodle_ray.entry.index_rows import read_index_rows

    queries = read_index_rows(rows, KnownQuery)
    with _connected() as cluster:
        _print_one(cluster.fusion.indexes.fit(name, queries), json)


@app.command()
def drop(name: Name) -> None:
    """Forget an index with all its entries."""
    with _connected() as cluster:
        cluster.fusion.indexes.drop(name)
    console.print(f"dropped: {name}", highlight=False, markup=False)


def _portions(entries: list[NewEntry]) -> list[list[NewEntry]]:
    return [entries[start : start + AT_ONCE] for start in range(0, len(entries), AT_ONCE)]


def _fit(info: IndexInfo) -> str:
    if "accuracy_percent" not in info.fitted:
        return ""
    figures = f"{info.fitted['accuracy_percent']} % of {info.fitted['validated_on']} right"
    is_kept = info.fitted.get("is_kept", False)
    return f"{figures} by the rule of its kind: none that was fitted beats it" if is_kept else figures


def _print_one(info: IndexInfo, json: bool) -> None:
    if json:
        print_json(info)
        return
    rows: list[list[object]] = [
        ["kind", info.kind],
        ["entries", info.entries],
        ["space", info.space],
        ["fitted", _fit(info)],
    ]
    print_table(f"Index {info.name}", ["", ""], [row for row in rows if row[1] != ""])
