"""noodle bench hosts · chaos: what only shows between machines. They take Linux, and root."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from noodle_ray.entry.cli.output import say
from noodle_ray.errors import InvalidInput

JsonFile = Annotated[Path | None, typer.Option("--json", dir_okay=False, help="Write the rows to this file.")]


MUST_BE_NOTHING = {"leaked_units", "books_differ", "faults_not_recovered", "processes_growing"}
"""What makes a run fail, whatever was answered meanwhile."""


def add_commands(app: typer.Typer) -> None:
    app.command()(hosts)
    app.command()(chaos)


def hosts(
    trials: Annotated[int, typer.Option(min=0, help="Hosts that are frozen, one after another.")] = 20,
    loss_seconds: Annotated[float, typer.Option(min=0, max=3600, help="How long packets are lost.")] = 120.0,
    storage: Annotated[
        list[str] | None, typer.Option(help="embedded or served; may be repeated; default: both.")
    ] = None,
    json: JsonFile = None,
) -> None:
    """Starts clusters over hosts, takes their heads away while they are asked, freezes hosts and loses packets."""
    from noodle_ray.entry.bench import report
    from noodle_ray.entry.bench.host_bench import measure

    report.publish("hosts", measure(trials, loss_seconds, storages_of(storage)), json)


def storages_of(names: list[str] | None) -> tuple[str, ...]:
    """Raises InvalidInput where one is none."""
    from noodle_ray.entry.bench.host_storage import STORAGES

    chosen = tuple(dict.fromkeys(names or STORAGES))
    for name in chosen:
        if name not in STORAGES:
            raise InvalidInput.of("storage", f"must be one of {', '.join(STORAGES)}", name)
    return chosen


def chaos(
    minutes: Annotated[float, typer.Option(min=1, max=600, help="How long.")] = 10.0,
    rate: Annotated[float, typer.Option(min=1, max=1000, help="Requests a second, of all routes together.")] = 24.0,
    seed: Annotated[int, typer.Option(min=0, help="The same seed: the same faults and requests.")] = 1,
    faults: Annotated[bool, typer.Option(help="Whether anything is broken at all.")] = True,
    json: JsonFile = None,
    plots: Annotated[Path | None, typer.Option(file_okay=False, help="Draw answers and latency into here.")] = None,
    logs: Annotated[
        Path | None, typer.Option(file_okay=False, help="Keep each host's logs, and what processes used.")
    ] = None,
) -> None:
    """Breaks a cluster of three hosts again and again while it is asked, and tells what was answered."""
    from noodle_ray.entry.bench import report
    from noodle_ray.entry.bench.chaos import growth, outcome_rows
    from noodle_ray.entry.bench.chaos.plots import write_plots
    from noodle_ray.entry.bench.chaos.run import PLAN, Run, measure
    from noodle_ray.entry.bench.host_cluster import host_cluster

    with host_cluster(PLAN, say) as cluster:
        try:
            found = measure(cluster, Run(minutes, rate, seed, faults), say)
        finally:
            if logs is not None:
                cluster.keep_logs(logs)
    if logs is not None:
        growth.write(found.samples, logs / "processes.jsonl")
    grown = growth.judge(found.samples)
    rows = [*outcome_rows.rows_of(found.outcome), *found.rows(), *growth.rows_of(grown)]
    outcome_rows.print_schedule(found.outcome)
    outcome_rows.print_losses(found.outcome)
    report.publish("chaos", rows, json)
    for difference in found.books["differences"] if found.books else ():
        say(f"the books differ: {difference}")
    if plots is not None:
        write_plots(found.outcome, plots)
    if any(row.metric in MUST_BE_NOTHING and row.value != 0 for row in rows):
        raise typer.Exit(1)
