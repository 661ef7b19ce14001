"""noodle join: this host as one more node of a cluster whose head runs on another."""

from __future__ import annotations

from typing import Annotated

import typer

from noodle_ray.entry.cli.output import AsJson, console, print_json, say
from noodle_ray.entry.cli.wording import read_seconds
from noodle_ray.errors import InvalidInput
from noodle_ray.resources import NodeResources
from noodle_ray.settings import read_settings


def add_commands(app: typer.Typer) -> None:
    app.command()(join)
    app.command()(rejoin)


def join(
    head: Annotated[
        str, typer.Argument(help="The head, HOST:PORT, as `noodle up` there prints it; default: who announces itself.")
    ] = "",
    cluster: Annotated[str, typer.Option(help="Which of those that are announced; default: the only one.")] = "",
    address: Annotated[str, typer.Option(help="Where the head reaches this host; default: on the way to it.")] = "",
    name: Annotated[str, typer.Option(help="The node's name; default: the host's.")] = "",
    cpus: Annotated[int | None, typer.Option(min=0, help="CPUs of the node; default: this machine's.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="NAME=VALUE, e.g. rack=b; may be repeated.")] = None,
    object_store: Annotated[str, typer.Option(help='Shared memory for objects, such as "2GiB"; default: Ray\'s.')] = "",
    gateway: Annotated[
        bool,
        typer.Option("--gateway", help="It answers HTTP, too, where NOODLE_GATEWAY_REPLICAS says so."),
    ] = False,
    json: AsJson = False,
) -> None:
    """Start Ray on this host as one more node of a cluster whose head runs on another."""
    from noodle_ray.entry.cluster import joining

    settings = read_settings()
    object_store_bytes = NodeResources.of(memory=object_store).memory_bytes if object_store else None
    options = joining.JoinOptions(address, name, cpus, _labels(label or []), object_store_bytes, gateway)
    joined = joining.join(settings, head or joining.find_head(settings, cluster, say), options, say)
    if json:
        print_json(joined)
    else:
        console.print(f"this host is a node of {joined.address} now; `noodle down` here ends it", highlight=False)


def rejoin(
    deadline: Annotated[str, typer.Option(help="How long what runs here has to move: 60, 60s, 5m, 1h.")] = "60s",
    run: Annotated[str, typer.Option(help='Done before Ray starts again, such as "git pull && make setup".')] = "",
) -> None:
    """Leave the cluster for a moment and come back as before: for upgrades, host by host."""
    from noodle_ray.entry.cluster import rejoining

    rejoining.rejoin(read_settings(), read_seconds("deadline", deadline, 86_400), run, say)


def _labels(given: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    for text, (name, _, value) in zip(given, pairs, strict=True):
        if not name or not value:
            raise InvalidInput.of("label", "must be NAME=VALUE", text)
    return {name: value for name, _, value in pairs}
