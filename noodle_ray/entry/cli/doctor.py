"""noodle doctor: what is wrong with this machine or its cluster, and what to do."""

from __future__ import annotations

from collections import Counter

import typer

from noodle_ray.entry.cli.output import AsJson, console, print_json, print_table
from noodle_ray.entry.doctor.finding import Finding, State, failed
from noodle_ray.settings import read_settings

STATES: tuple[State, ...] = ("fail", "warn", "ok", "skipped")


def add_commands(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(json: AsJson = False) -> None:
    """Look at versions, ports, token, clocks, disk, kernel, stores and cluster; exit status 1 where anything fails.

    Changes nothing, and prints no token or password.
    """
    from noodle_ray.entry.doctor.examination import examine

    findings = list(examine(read_settings()))
    if json:
        print_json({"healthy": not failed(findings), "findings": findings})
    else:
        _show(findings)
    raise typer.Exit(1 if failed(findings) else 0)


def _show(findings: list[Finding]) -> None:
    rows = [[one.name, one.state, one.found, one.advice] for one in findings]
    print_table("Doctor", ["check", "state", "found", "what to do"], rows)
    counted = Counter(one.state for one in findings)
    console.print(", ".join(f"{counted[state]} {state}" for state in STATES if counted[state]), highlight=False)
