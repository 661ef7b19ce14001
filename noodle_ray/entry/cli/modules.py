"""noodle module …: write, check, publish, resolve, load, call, swap and unload versioned modules."""

from __future__ import annotations

import json as json_format
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from noodle_ray.entry.cli.output import AsJson, console, print_json, print_table
from noodle_ray.errors import InvalidInput

app = typer.Typer(help="Versioned modules: publish, load, call, swap.", no_args_is_help=True)

Source = Annotated[Path, typer.Argument(help="A module's directory or wheel, or a package that can be imported.")]
_RELEASE = ["version", "requires", "sha256", "size_bytes", "yanked"]
_CHANGE = ["kind", "version", "before", "outcome", "why", "forced"]

Name = Annotated[str, typer.Argument(help="The module's name.")]
MinimalChange = Annotated[
    bool, typer.Option("--minimal-change", help="Keep to versions that are loaded already, where they will do.")
]
Constraint = Annotated[str, typer.Argument(help='Which versions, such as ">=1.2,<2"; default: the newest.')]


def _connected() -> Any:
    from noodle_ray.entry.client import connect

    return connect()


@app.command()
def init(
    name: Name,
    directory: Annotated[
        Path | None, typer.Argument(file_okay=False, help="Where; default: a new directory of the module's name.")
    ] = None,
    state: Annotated[bool, typer.Option("--state", help="One that has state, which outlives its versions.")] = False,
) -> None:
    """Write the files of a new module, ready to be published."""
    from noodle_ray.modules.scaffold import scaffold

    files, place = scaffold(name, state), directory or Path(name)
    if place.exists() and any(place.iterdir()):
        raise InvalidInput.of("directory", "must be new or empty", str(place))
    for path, text in files.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_text(text)
        console.print(f"{place / path}", highlight=False)
    console.print(f"next: noodle module check {place}, then noodle module publish {place}", highlight=False)


@app.command()
def check(
    directory: Annotated[
        Path, typer.Argument(help="The module's directory or wheel, or a package that can be imported.")
    ],
    json: AsJson = False,
) -> None:
    """Check a module without publishing or running it: its manifest, its files, what it offers."""
    from noodle_ray.modules.artefact import pack_module, read_artefact

    artefact = read_artefact(pack_module(directory))
    manifest = artefact.manifest
    offered = artefact.functions
    described = {
        "name": manifest.name,
        "version": manifest.version,
        "description": manifest.description,
        "requires": dict(manifest.requires),
        "functions": [function.text() for function in offered if function.certain] if offered is not None else None,
        "sha256": artefact.sha256,
        "size_bytes": len(artefact.archive),
    }
    _print_one(described, json)
    if offered is None and not json:
        console.print("What it offers cannot be read from its source: swaps will not be checked.", highlight=False)


@app.command()
def publish(
    directory: Annotated[
        Path, typer.Argument(help="The module's directory or wheel, or a package that can be imported.")
    ],
    json: AsJson = False,
) -> None:
    """Publish a module. The same content twice is no error; other content under a published version is."""
    with _connected() as cluster:
        published = cluster.modules.publish(directory)
    _print_one(published, json)


@app.command("list")
def list_modules(json: AsJson = False) -> None:
    """List the published modules."""
    with _connected() as cluster:
        modules = cluster.modules.list()
    if json:
        print_json(modules)
        return
    rows = [
        [
            module["name"],
            module["loaded"] or "",
            module["phase"],
            len(module["nodes"]),
            module["versions"][0],
            module["description"],
        ]
        for module in modules
    ]
    print_table("Modules", ["name", "loaded", "phase", "hosts", "newest", "description"], rows)


@app.command()
def show(name: Name, json: AsJson = False) -> None:
    """Show one module: its versions, and what is loaded."""
    with _connected() as cluster:
        described = cluster.modules.describe(name)
    if json:
        print_json(described)
        return
    releases, changes = described.pop("releases"), described.pop("changes")
    _print_one(described, json)
    print_table("Versions", _RELEASE, [[_cell(release[column]) for column in _RELEASE] for release in releases])
    print_table("Last changes", ["when", *_CHANGE], [_change(change) for change in changes])


def _change(change: dict[str, Any]) -> list[str]:
    when = datetime.fromtimestamp(change["at"], UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return [when, *(_cell(change[column]) for column in _CHANGE)]


@app.command()
def resolve(
    requirements: Annotated[list[str], typer.Argument(help='Such as "wordcount>=1,<2" or "wordcount[fast]".')],
    minimal_change: MinimalChange = False,
    json: AsJson = False,
) -> None:
    """Find exact versions for requirements, or say why there are none."""
    with _connected() as cluster:
        lock = cluster.modules.resolve(dict(_requirement(text) for text in requirements), minimal_change)
    _print_one(lock, json)


def _requirement(text: str) -> tuple[str, str]:
    cut = next((place for place, letter in enumerate(text) if letter in "<>=!~"), len(text))
    return text[:cut].strip(), text[cut:].strip()


@app.command()
def graph(
    svg: Annotated[Path | None, typer.Option(dir_okay=False, help="Draw it into this file.")] = None,
    json: AsJson = False,
) -> None:
    """Show who needs whom: of each module the loaded version, else the newest."""
    from noodle_ray.entry.cli import module_graph

    with _connected() as cluster:
        drawn = cluster.modules.graph()
    if svg is not None:
        svg.write_text(module_graph.svg(drawn))
        console.print(f"drawn: {svg}", highlight=False)
    elif json:
        print_json(drawn.to_json())
    else:
        console.print(module_graph.tree(drawn))


@app.command()
def load(
    name: Name,
    constraint: Constraint = "",
    minimal_change: MinimalChange = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget the state that an unload left.")] = False,
    json: AsJson = False,
) -> None:
    """Load a module and what it depends on, on a placed host."""
    with _connected() as cluster:
        loaded = cluster.modules.load(name, constraint, minimal_change, fresh)
    _print_one(loaded, json)


@app.command()
def call(
    name: Name,
    function: Annotated[str, typer.Argument()],
    arguments: Annotated[str, typer.Argument(help="A JSON list of arguments, or an object of named ones.")] = "[]",
    stream: Annotated[bool, typer.Option("--stream", help="It is a generator: print what it yields, as JSON.")] = False,
    session: Annotated[str | None, typer.Option(help="Keep to one host for calls of this name.")] = None,
    version: Annotated[str | None, typer.Option(help="Call only running versions that satisfy this.")] = None,
) -> None:
    """Call a function of a loaded module; prints the result as JSON."""
    try:
        given = json_format.loads(arguments)
    except json_format.JSONDecodeError as error:
        raise InvalidInput.of("arguments", f"must be JSON: {error}", arguments) from None
    if not isinstance(given, list | dict):
        raise InvalidInput.of("arguments", "must be a JSON list or object", arguments)
    args, kwargs = (given, {}) if isinstance(given, list) else ([], given)
    with _connected() as cluster:
        module = cluster.modules.get(name, session, version)
        if not stream:
            print_json(module.call(function, *args, **kwargs))
            return
        for item in module.stream(function, *args, **kwargs):
            print_json(item)


@app.command()
def swap(
    name: Name,
    constraint: Constraint = "",
    minimal_change: MinimalChange = False,
    force: Annotated[bool, typer.Option("--force", help="Also where its callers will stumble over it.")] = False,
    json: AsJson = False,
) -> None:
    """Replace the running version; calls in flight end on the old one. What does worse is rolled back."""
    with _connected() as cluster:
        swapped = cluster.modules.swap(name, constraint, minimal_change, force)
    _print_one(swapped, json)


@app.command()
def rollback(name: Name, json: AsJson = False) -> None:
    """Go back to the version before the last swap."""
    with _connected() as cluster:
        swapped = cluster.modules.rollback(name)
    _print_one(swapped, json)


@app.command()
def unload(name: Name) -> None:
    """End a loaded module."""
    with _connected() as cluster:
        cluster.modules.unload(name)
    console.print(f"{name} is unloaded", highlight=False)


@app.command()
def yank(name: Name, version: Annotated[str, typer.Argument()], json: AsJson = False) -> None:
    """Take a version out of future resolutions; what runs goes on."""
    with _connected() as cluster:
        yanked = cluster.modules.yank(name, version)
    _print_one(yanked, json)


def _print_one(value: dict[str, Any], json: bool) -> None:
    if json:
        print_json(value)
    else:
        print_table("", ["", ""], [[key, _cell(item)] for key, item in value.items()])


def _cell(value: Any) -> str:
    if value is None or value == []:
        return ""
    return value if isinstance(value, str) else json_format.dumps(value, ensure_ascii=False)
