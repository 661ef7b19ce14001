"""noodle explain · allocations · release: what is held, where, and why there."""

from __future__ import annotations

from typing import Annotated

import typer

from noodle_ray.entry.cli.cluster import print_allocations
from noodle_ray.entry.cli.explaining import print_allocation, print_explanation
from noodle_ray.entry.cli.output import AsJson, console, print_json

AllocationId = Annotated[str, typer.Argument(help="An allocation's id, as `noodle status` shows it.")]


def add_commands(app: typer.Typer) -> None:
    app.command()(explain)
    app.command()(allocations)
    app.command()(release)


def explain(allocation: AllocationId, json: AsJson = False) -> None:
    """Show why an allocation is where it is, or what it waits for."""
    from noodle_ray.entry.client import connect

    with connect() as cluster:
        explanation, snapshot = cluster.explain(allocation), cluster.snapshot()
    if json:
        print_json({"allocation": snapshot.allocation(allocation), "explanation": explanation})
        return
    print_allocation(snapshot.allocation(allocation), snapshot)
    print_explanation(explanation, snapshot.names)


def allocations(json: AsJson = False) -> None:
    """List what is held."""
    from noodle_ray.entry.client import connect

    with connect() as cluster:
        held = cluster.allocations()
    if json:
        print_json(held)
    else:
        print_allocations(held)


def release(allocation: AllocationId) -> None:
    """Free an allocation."""
    from noodle_ray.entry.client import connect

    with connect() as cluster:
        cluster.release(allocation)
    console.print(f"{allocation} is free", highlight=False)
