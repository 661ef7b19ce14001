"""noodle explain · allocations · release: what is held, where, and why there."""

from __future__ import annotations

from typing import Annotated

import typer

from noodle_ray.entry.cli.cluster import print_allocations
from noodle_ray.entry.cli.output import AsJson, console, print_json, print_table
from noodle_ray.placement.planner import Explanation

AllocationId = Annotated[str, typer.Argument(help="An allocation's id, as `noodle status` shows it.")]


def add_commands(app: typer.Typer) -> None:
    app.command()(explain)
    app.command()(allocations)
    app.command()(release)


def explain(allocation: AllocationId, json: AsJson = False) -> None:
    """Show which nodes were considered for an allocation, and why its node won."""
    from noodle_ray.entry.client import connect

    with connect() as cluster:
        explanation = cluster.explain(allocation)
        names = {node.id: node.name for node in cluster.nodes()}
    if json:
        print_json(explanation)
    else:
        print_explanation(explanation, names)


def print_explanation(explanation: Explanation, names: dict[str, str]) -> None:
    filtered = ", ".join(f"{count} by {dimension}" for dimension, count in sorted(explanation.filtered.items()))
    console.print(
        f"policy {explanation.policy}: {explanation.considered} nodes considered, filtered out: {filtered or 'none'}",
        highlight=False,
    )
    rows = [
        [
            "→" if candidate.node_id == explanation.chosen else "",
            names.get(candidate.node_id, candidate.node_id[:8]),
            f"{candidate.score:.3f}",
            ", ".join(f"{part} {value:.3f}" for part, value in candidate.parts.items()),
        ]
        for candidate in explanation.candidates
    ]
    print_table("Candidates (higher is better)", ["", "node", "score", "leftover after placing, by dimension"], rows)


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
