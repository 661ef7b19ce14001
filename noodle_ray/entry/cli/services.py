"""noodle service …: who offers what."""

from __future__ import annotations

from typing import Annotated

import typer

from noodle_ray.entry.cli.output import AsJson, print_json, print_table

app = typer.Typer(help="The service directory.", no_args_is_help=True)


@app.command("list")
def list_services(
    capability: Annotated[str, typer.Option(help="Only those that offer this.")] = "", json: AsJson = False
) -> None:
    """List the registered services and what they offer."""
    from noodle_ray.entry.client import connect

    with connect() as cluster:
        services = cluster.services.list(capability or None)
    if json:
        print_json(services)
        return
    rows = [[service.name, service.kind, service.address, ", ".join(service.capabilities)] for service in services]
    print_table("Services", ["service", "kind", "address", "capabilities"], rows)
