"""noodle plan · defrag · top: what would fit, what a repack would gain, and a live picture of the cluster."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from noodle_ray.entry.cli.output import AsJson, console, print_json
from noodle_ray.errors import InvalidInput
from noodle_ray.nodes.overview import Overview
from noodle_ray.nodes.snapshot import Snapshot
from noodle_ray.placement.policies import DEFAULT_POLICY

PolicyName = Annotated[str | None, typer.Option(help="A placement policy; default: the document's, else noodle.")]


def add_commands(app: typer.Typer) -> None:
    app.command()(plan)
    app.command()(defrag)
    app.command()(top)


def plan(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="Requests, as YAML.")],
    policy: PolicyName = None,
    json: AsJson = False,
) -> None:
    """Show what would run where, what would wait, and what one more node would change. Nothing is allocated."""
    from noodle_ray.entry.cli.plan_report import print_plan
    from noodle_ray.placement.dry_run import dry_run
    from noodle_ray.placement.plan_document import PlanDocument
    from noodle_ray.placement.workload import Workload

    document = PlanDocument.read(_text_of(file))
    pool, workload, names, fleet = document.pool(), Workload(), {}, "the described fleet"
    if pool is None:
        snapshot = _snapshot()
        pool, workload, names, fleet = snapshot.pool, snapshot.workload, snapshot.names, "the live fleet"
    result = dry_run(pool, workload, document.wanted(), policy or document.policy or DEFAULT_POLICY)
    if json:
        print_json(result)
    else:
        print_plan(result, fleet, names)


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InvalidInput.of("file", "is no text in UTF-8", file) from None


def defrag(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the moves; needed, for nothing else works yet.")] = (
        False
    ),
    policy: PolicyName = None,
    json: AsJson = False,
) -> None:
    """Show which movable allocations to put elsewhere so that more of the free GPU can be used."""
    from noodle_ray.entry.cli.plan_report import print_proposal
    from noodle_ray.placement.defrag import propose

    if not dry_run:
        raise InvalidInput.of("dry-run", "give --dry-run: moves can be shown, but not made yet")
    snapshot = _snapshot()
    proposal = propose(snapshot.pool, snapshot.allocations, snapshot.workload, policy or DEFAULT_POLICY)
    if json:
        print_json(proposal)
    else:
        print_proposal(proposal, snapshot.names)


def top(
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end; so it is where no terminal is.")] = (
        False
    ),
    interval: Annotated[float, typer.Option(min=0.2, max=3600, help="Seconds between frames.")] = 2.0,
    json: AsJson = False,
) -> None:
    """Watch nodes, every GPU's share, fragmentation and the queue."""
    if json or once or not console.is_terminal:
        _print_once(json)
        return
    from rich.live import Live

    from noodle_ray.entry.cli.frame import frame

    with suppress(KeyboardInterrupt), Live(console=console, screen=True, auto_refresh=False) as live:
        for overview in _overviews(interval):
            live.update(frame(overview, console.width, console.height), refresh=True)


def _print_once(json: bool) -> None:
    from noodle_ray.entry.cli.frame import frame

    overview = Overview.of(_snapshot())
    if json:
        print_json(overview)
    else:
        console.print(frame(overview, console.width))


def _overviews(interval: float) -> Iterator[Overview]:
    """One after the other, without an end."""
    from noodle_ray.entry.client import connect

    with connect() as cluster:
        while True:
            yield Overview.of(cluster.snapshot())
            time.sleep(interval)


def _snapshot() -> Snapshot:
    from noodle_ray.entry.client import connect

    with connect() as cluster:
        return cluster.snapshot()
