"""noodle bench NAME: measure, print a table, write JSON."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from noodle_ray.entry.cli import bench_hosts
from noodle_ray.errors import InvalidInput

if TYPE_CHECKING:
    from noodle_ray.entry.bench.placement import Contest
    from noodle_ray.entry.bench.report import Row

app = typer.Typer(help="Benchmarks: a table here, JSON with --json FILE.", no_args_is_help=True)

bench_hosts.add_commands(app)

JsonFile = Annotated[Path | None, typer.Option("--json", dir_okay=False, help="Write the rows to this file.")]
POLICIES = "noodle,noodle+moves,noodle-on-ray,fgd,best-fit,ray-hybrid"
CPUS = os.cpu_count() or 1
STORIES = 3
"""Worlds in which something broke whose faults are told, shortened; the others are counted."""

Jobs = Annotated[int, typer.Option(min=1, help="Processes; the figures do not depend on it.", show_default="CPUs")]


@app.command()
def targets(json: JsonFile = None, seconds: Annotated[float, typer.Option(min=1, max=120)] = 10.0) -> None:
    """The project's promises beside what this cluster measures just now (it must be running: `noodle up`)."""
    from noodle_ray.entry.bench import report
    from noodle_ray.entry.bench.targets import measure

    report.publish("targets", measure(seconds), json)


@app.command()
def simulation(
    seeds: Annotated[int, typer.Option(min=1, help="How many worlds.")] = 2000,
    seed_from: Annotated[int, typer.Option(min=0, help="The first one's seed.")] = 0,
    minutes: Annotated[float, typer.Option(min=3, max=1440, help="Simulated time of each.")] = 30.0,
    nodes: Annotated[int | None, typer.Option(min=3, max=50, help="Of each; default: 3 to 6, by seed.")] = None,
    jobs: Jobs = CPUS,
    json: JsonFile = None,
) -> None:
    """Plays the manager through crashes, partitions and delays in seeded worlds, and checks what must hold."""
    from noodle_ray.entry.bench import report
    from noodle_ray.entry.bench.simulation import measure, rows_of, stories
    from noodle_ray.entry.cli.output import say
    from noodle_ray.entry.cli.progress import shown_count

    with shown_count("worlds", seeds) as advance:
        outcome = measure(range(seed_from, seed_from + seeds), minutes, nodes, jobs, advance)
    report.publish("simulation", rows_of(outcome), json)
    for story in stories(outcome.broken[:STORIES], minutes, nodes):
        say(story)
    if outcome.broken:
        raise typer.Exit(1)


@app.command()
def placement(
    traces: Annotated[
        Path | None, typer.Option(help="Directory of traces; default: traces/ in the folder that SHARED_DATA names.")
    ] = None,
    trace: Annotated[list[str] | None, typer.Option(help="A pod list's name; may be repeated; default: all.")] = None,
    policies: Annotated[str, typer.Option(help="Comma-separated.")] = POLICIES,
    seeds: Annotated[int, typer.Option(min=1, help="How many.")] = 10,
    seed_from: Annotated[int, typer.Option(min=0, help="The first one.")] = 42,
    shuffle_names: Annotated[
        bool, typer.Option("--shuffle-names/--keep-names", help="Nodes in a random order under new names, by seed.")
    ] = True,
    at: Annotated[str, typer.Option(help="Arrived GPU in % of capacity, comma-separated, 0 to 130.")] = "90,100,130",
    json: JsonFile = None,
    plots: Annotated[Path | None, typer.Option(file_okay=False, help="Draw TRACE.png into this folder.")] = None,
    jobs: Jobs = CPUS,
    latency: Annotated[bool, typer.Option("--latency", help="Time decisions instead, up to 100,000 nodes.")] = False,
    churn: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Replay this file's arrivals and departures instead.")
    ] = None,
    ray: Annotated[bool, typer.Option("--ray", help="Time allocations on a local cluster instead.")] = False,
) -> None:
    """How much GPU each policy allocates on public traces, beside published results and an upper bound."""
    from noodle_ray.entry.bench import report

    levels, names, all_seeds = levels_of(at), names_of(policies), range(seed_from, seed_from + seeds)
    rows: list[Row] = []
    if churn is not None:
        rows += _churn_rows(churn, names, all_seeds, jobs)
    if latency:
        rows += _latency_rows(directory_of(traces), trace or [])
    if ray:
        rows += _ray_rows()
    if rows:
        report.publish("placement", rows, json)
        return
    from noodle_ray.entry.bench.placement import contest_of

    _replay(contest_of(directory_of(traces), trace or [], names, all_seeds, levels, shuffle_names), jobs, json, plots)


def _replay(contest: Contest, jobs: int, json: Path | None, plots: Path | None) -> None:
    from noodle_ray.entry.bench import placement_plots, placement_table, report
    from noodle_ray.entry.bench.placement import measure, tasks_of
    from noodle_ray.entry.bench.placement_rows import rows_of
    from noodle_ray.entry.cli.output import say
    from noodle_ray.entry.cli.progress import shown_count

    if plots is not None:
        placement_plots.require_matplotlib()
    with shown_count("replays and bounds", len(tasks_of(contest))) as advance:
        outcome = measure(contest, jobs, advance)
    report.publish("placement", rows_of(outcome), json, lambda: placement_table.show(outcome))
    for path in placement_plots.write_plots(outcome, plots) if plots is not None else []:
        say(f"drawn: {path}")


def _churn_rows(file: Path, policies: list[str], seeds: range, jobs: int) -> list[Row]:
    from noodle_ray.entry.bench.placement_churn import measure
    from noodle_ray.entry.cli.progress import shown_count

    with shown_count("replays of churn", len(policies) * len(seeds)) as advance:
        return measure(file, policies, seeds, jobs, advance)


def _latency_rows(directory: Path, traces: list[str]) -> list[Row]:
    from noodle_ray.entry.bench.placement_latency import measure
    from noodle_ray.entry.cli.progress import shown_progress

    with shown_progress() as progress:
        return measure(directory, traces[0] if traces else "default", progress)


def _ray_rows() -> list[Row]:
    from noodle_ray.entry.bench.placement_on_ray import measure

    return measure()


def directory_of(given: Path | None) -> Path:
    """The directory of traces that was named, or SHARED_DATA's. Raises InvalidInput where there is neither."""
    return shared_directory("--traces", "traces", given)


def shared_directory(option: str, name: str, given: Path | None) -> Path:
    """The directory that was named, or the one of that name in SHARED_DATA. Raises InvalidInput where there is none."""
    if given is not None:
        return given
    shared = os.environ.get("SHARED_DATA")
    if shared is None or not (Path(shared) / name).is_dir():
        problem = f"must name a directory; without it, SHARED_DATA must name a folder that has {name}/"
        raise InvalidInput.of(option, problem, shared or "neither")
    return Path(shared) / name


def names_of(text: str) -> list[str]:
    """A comma-separated list, each name once. Raises InvalidInput where it is empty."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise InvalidInput.of("--policies", "must name at least one", text)
    return names


def levels_of(text: str) -> list[int]:
    """Percents in ascending order. Raises InvalidInput."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) <= 130 for part in parts):
        raise InvalidInput.of("--at", "must be whole numbers from 0 to 130, comma-separated", text)
    return sorted({int(part) for part in parts})


@app.command()
def nodes(
    trials: Annotated[int, typer.Option(min=1, help="Nodes that fall silent.")] = 20,
    kills: Annotated[int, typer.Option(min=1, help="Nodes that are killed.")] = 100,
    stall_minutes: Annotated[float, typer.Option(min=0, help="How long nodes stall for two seconds each.")] = 10.0,
    overhead: Annotated[
        bool, typer.Option("--overhead/--no-overhead", help="Also what watching costs beside Ray as it comes.")
    ] = True,
    scale: Annotated[bool, typer.Option("--scale", help="What the core costs at 10 to 10,000 nodes instead.")] = False,
    json: JsonFile = None,
) -> None:
    """How fast dead and silent nodes are found and their work held anew; some 45 minutes with the defaults."""
    from noodle_ray.entry.bench import nodes_overhead, nodes_scale, report
    from noodle_ray.entry.bench.nodes import Plan, measure
    from noodle_ray.entry.cli.output import say

    if scale:
        report.publish("nodes", nodes_scale.measure(say), json)
        return
    rows = nodes_overhead.measure(say) if overhead else []
    report.publish("nodes", [*measure(Plan(trials, kills, stall_minutes)), *rows], json)


@app.command()
def resolver(
    cases: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Directory; default: resolver-cases/ in the folder of SHARED_DATA."),
    ] = None,
    hard: Annotated[int, typer.Option(min=0, help="Hard random graphs beside them.")] = 100,
    seed_from: Annotated[int, typer.Option(min=0, help="The first graph's seed.")] = 0,
    rival: Annotated[bool, typer.Option("--rival/--no-rival", help="Also resolvelib, within a second each.")] = True,
    json: JsonFile = None,
) -> None:
    """How often exact versions are found or rightly refused, how fast, and whether refusals say why."""
    from noodle_ray.entry.bench import report
    from noodle_ray.entry.bench.resolver import hard_cases, measure
    from noodle_ray.entry.cli.progress import shown_count
    from noodle_ray.resolution.cases import read_cases

    directory = shared_directory("--cases", "resolver-cases", cases)
    all_cases = [*read_cases(directory), *hard_cases(hard, seed_from)]
    with shown_count("cases", len(all_cases)) as advance:
        rows = measure(all_cases, rival, advance)
    report.publish("resolver", rows, json)


@app.command()
def load(
    loads: Annotated[
        int, typer.Option(min=1, help="Warm loads of a module that holds nothing, and of one more.")
    ] = 200,
    cold: Annotated[int, typer.Option(min=1, help="Loads of a new artefact into a new process.")] = 20,
    calls: Annotated[int, typer.Option(min=1, help="Calls of each function, ours and the rivals' in turn.")] = 2000,
    json: JsonFile = None,
) -> None:
    """How fast modules load, warm and cold, and what their calls cost; some 20 minutes with the defaults."""
    from noodle_ray.entry.bench import report
    from noodle_ray.entry.bench.load import Plan, measure

    report.publish("load", measure(Plan(loads, cold, calls)), json)


@app.command()
def swap(
    seconds: Annotated[float, typer.Option(min=5, max=3600, help="How long each module is called.")] = 120.0,
    callers: Annotated[int, typer.Option(min=1, max=1000, help="Sessions that call at once.")] = 32,
    in_flight: Annotated[int, typer.Option(min=1, max=16, help="Calls that each has under way at once.")] = 1,
    pause_ms: Annotated[float, typer.Option(min=0, max=10_000, help="A caller's rest after an answer.")] = 0.0,
    swap_every: Annotated[float, typer.Option(min=1, max=600, help="Seconds from one swap to the next.")] = 5.0,
    only: Annotated[str, typer.Option(help="The module: stateless or stateful; default: both.")] = "",
    serve: Annotated[bool, typer.Option("--serve/--no-serve", help="Also Ray Serve's rolling update.")] = True,
    seed: Annotated[int, typer.Option(min=0, help="Of the schedule of swaps, broken versions and kills.")] = 1,
    json: JsonFile = None,
) -> None:
    """What callers notice of hot swaps, of broken versions, and of hosts that are killed, while they call on."""
    from noodle_ray.entry.bench import report
    from noodle_ray.entry.bench.swap import Plan, measure
    from noodle_ray.entry.bench.swap_callers import Crowd

    crowd = Crowd(callers, in_flight, pause_ms / 1000)
    report.publish("swap", measure(Plan(seconds, crowd, swap_every, kinds_of(only), serve, seed)), json)


def kinds_of(text: str) -> tuple[str, ...]:
    """The modules that are swapped: the one that is named, or all. Raises InvalidInput."""
    known = ("stateless", "stateful")
    if text and text not in known:
        raise InvalidInput.of("--only", f"must be one of {', '.join(known)}", text)
    return (text,) if text else known


@app.command()
def fusion(
    accuracy: Annotated[bool, typer.Option("--accuracy", help="How often it is right, on every task.")] = False,
    latency: Annotated[bool, typer.Option("--latency", help="How quickly it answers, beside its rivals.")] = False,
    precisions: Annotated[
        bool, typer.Option("--precisions", help="Each encoder in each precision, beside itself in fp32.")
    ] = False,
    task: Annotated[list[str] | None, typer.Option(help="Of --accuracy; may be repeated; default: all.")] = None,
    rival: Annotated[
        list[str] | None, typer.Option(help='Of --latency; may be repeated; "none"; default: all.')
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, max=3600, help="Of --latency: how long at 60 % of capacity.")] = 60.0,
    quick: Annotated[
        bool, typer.Option("--quick", help="Of --latency: a second or two of each, to see that it works.")
    ] = False,
    json: JsonFile = None,
    plots: Annotated[Path | None, typer.Option(file_okay=False, help="Draw pictures into this folder.")] = None,
) -> None:
    """How often fusion is right, by task, subset of senses and method; or how quickly it answers over HTTP."""
    from noodle_ray.entry.bench.placement_plots import require_matplotlib

    if accuracy + latency + precisions != 1:
        raise InvalidInput.of("--accuracy", "or --latency or --precisions: one of them says what is measured")
    rivals = rivals_of(rival)
    if plots is not None:
        require_matplotlib()
    if precisions:
        _fusion_precisions(json)
    elif accuracy:
        _fusion_accuracy(task or [], json, plots)
    else:
        _fusion_latency(rivals, seconds, quick, json, plots)


def rivals_of(names: list[str] | None) -> tuple[str, ...]:
    """Those that were named, or all. Raises InvalidInput."""
    from noodle_ray.entry.bench.fusion.rivals import RIVALS

    wanted = tuple(dict.fromkeys(names or RIVALS))
    if wanted == ("none",):
        return ()
    if unknown := [name for name in wanted if name not in RIVALS]:
        raise InvalidInput.of("--rival", f"must be one of {', '.join(RIVALS)}, or none", unknown[0])
    return wanted


def _fusion_accuracy(tasks: list[str], json: Path | None, plots: Path | None) -> None:
    from noodle_ray.entry.bench import report
    from noodle_ray.entry.bench.fusion import accuracy_table
    from noodle_ray.entry.bench.fusion.accuracy import measure
    from noodle_ray.entry.bench.fusion.accuracy_rows import rows_of
    from noodle_ray.entry.bench.fusion.plots import write_plots
    from noodle_ray.entry.cli.output import say
    from noodle_ray.entry.cli.progress import shown_progress
    from noodle_ray.settings import read_settings

    with shown_progress() as progress:
        outcome = measure(tasks, read_settings().cache_dir, progress)
    report.publish("fusion accuracy", rows_of(outcome), json, lambda: accuracy_table.show(outcome))
    for path in write_plots(outcome, plots) if plots is not None else []:
        say(f"drawn: {path}")


def _fusion_precisions(json: Path | None) -> None:
    from noodle_ray.entry.bench import report
    from noodle_ray.entry.bench.fusion.precisions import measure, show
    from noodle_ray.entry.cli.output import say
    from noodle_ray.settings import read_settings

    compared = measure(read_settings(), say)
    report.publish("fusion precisions", [row for one in compared for row in one.rows()], json, lambda: show(compared))


def _fusion_latency(
    rivals: tuple[str, ...], seconds: float, quick: bool, json: Path | None, plots: Path | None
) -> None:
    from dataclasses import replace

    from noodle_ray.entry.bench import report
    from noodle_ray.entry.bench.fusion import latency_table
    from noodle_ray.entry.bench.fusion.latency import QUICK, Plan, measure
    from noodle_ray.entry.bench.fusion.latency_plots import write_plots
    from noodle_ray.entry.bench.fusion.latency_rows import rows_of
    from noodle_ray.entry.cli.output import say
    from noodle_ray.settings import read_settings

    plan = replace(QUICK, rivals=rivals) if quick else Plan(main_s=seconds, rivals=rivals)
    measured = measure(plan, read_settings(), say)
    report.publish("fusion latency", rows_of(measured), json, lambda: latency_table.show(measured))
    for path in write_plots(measured, plots) if plots is not None else []:
        say(f"drawn: {path}")
