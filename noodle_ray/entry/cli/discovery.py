"""noodle discover: which clusters are announced on this network."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from noodle_ray.entry.cli.output import AsJson, print_json, print_table, say
from noodle_ray.entry.cluster.cluster_file import read_token
from noodle_ray.errors import NotFound
from noodle_ray.nodes.discovery import Judged, Standing, ignored, verify_all
from noodle_ray.settings import read_settings

Timeout = Annotated[float, typer.Option(min=0.1, max=60, help="Seconds to listen for.")]
Interface = Annotated[
    str, typer.Option(help="This host's address on the network to listen to; default: all networks it is on.")
]
_TOKEN: dict[Standing, str] = {
    "ours": "fits",
    "another token": "another",
    "too old": "fits, but signed long ago",
    "from the future": "fits, but signed in the future",
}


def add_commands(app: typer.Typer) -> None:
    app.command()(discover)


def discover(timeout: Timeout = 3.0, interface: Interface = "", json: AsJson = False) -> None:
    """List the clusters that are announced on this network, and which of them this host's token fits."""
    from noodle_ray.entry.cluster.hearing import HELP, hear

    token = _token()
    judged, faults = verify_all(hear(timeout, interface or None), token, time.time())
    if json:
        print_json([_plain(one) for one in judged])
    else:
        columns = ["name", "address", "gateway", "noodle-ray", "Ray", "Python", "token"]
        print_table("Clusters", columns, [_row(one) for one in judged])
    for said in ignored([], faults):
        say(said)
    if not judged:
        say(f"nothing was heard within {timeout:g} s. {HELP}")
    elif not token:
        say("there is no token here yet: anybody may have announced these")


def _token() -> str:
    try:
        return read_token(read_settings().state_dir)
    except NotFound:
        return ""


def _row(one: Judged) -> list[str]:
    it = one.announcement
    versions = [it.versions.noodle_ray, it.versions.ray, it.versions.python]
    return [it.name, it.address, it.gateway_url or "-", *versions, _TOKEN[one.standing]]


def _plain(one: Judged) -> dict[str, Any]:
    return {**one.announcement.to_json(), "standing": one.standing, "age_s": round(one.age_s, 1)}
