"""The simulation: worlds in which nothing breaks, that run again exactly, and whose faults can be shortened."""

from dataclasses import replace
from random import Random

import pytest
from planted_bugs import BUGS
from typer.testing import CliRunner

from noodle_ray.entry.bench.simulation import measure, rows_of
from noodle_ray.entry.cli.bench import app
from noodle_ray.simulation import faults
from noodle_ray.simulation.network import HEAD, Network
from noodle_ray.simulation.run import Plan, run, shorten
from noodle_ray.simulation.world import World


@pytest.mark.parametrize("seed", range(8))
def test_nothing_breaks(seed: int) -> None:
    result = run(Plan(seed, minutes=10))
    assert result.violation is None, f"{result.violation}\n" + "\n".join(map(str, result.faults))


@pytest.mark.slow
def test_nothing_breaks_in_many_worlds() -> None:
    results = [run(Plan(seed)) for seed in range(10_000, 10_300)]
    assert [str(result.violation) for result in results if result.violation] == []


def test_a_seed_runs_again_exactly() -> None:
    first, again, other = run(Plan(3, minutes=15)), run(Plan(3, minutes=15)), run(Plan(4, minutes=15))
    assert first == again
    assert first.trace != other.trace
    assert first.events > 500


def test_every_kind_of_fault_happens() -> None:
    kinds = {fault.kind for seed in range(100) for fault in faults.schedule(Random(seed), 4, 1700.0)}
    assert kinds == set(faults.LASTS_S)


def test_faults_are_over_in_time_and_hit_machines_that_there_are() -> None:
    for seed in range(50):
        for fault in faults.schedule(Random(seed), 3, 1000.0):
            assert fault.at + fault.lasts_s < 1000.0
            assert fault.kind in ("group-lost", "job-end") or set(fault.slots) <= {0, 1, 2}


def test_a_cut_holds_calls_back_or_loses_them_and_loss_delays_them() -> None:
    world = World(1)
    network, arrived = Network(world), []
    network.rewire([("a", HEAD)])
    for number in range(100):
        network.call("a", HEAD, lambda number=number: arrived.append(number))  # type: ignore[misc]
    world.run(10.0, lambda: None)
    assert arrived == []
    network.rewire([])
    world.run(20.0, lambda: None)
    assert 20 < len(arrived) < 80
    assert arrived != sorted(arrived)
    network.lose(0.2)
    assert 250 < sum(network.answered("a", "b", 1) for _ in range(500)) < 390


def test_a_stall_alone_kills_nobody() -> None:
    stalls = tuple(faults.Fault(60.0 + 20 * number, "stall", (number % 3,), 2.0) for number in range(10))
    assert run(Plan(5, 8, 3, stalls)).violation is None


# -- bugs planted on purpose

FOUND_LATE = {"one vote suffices", "recovery forgets unknown groups", "stale news is accepted"}
DENSE_S = 50.0
"""More faults than usual: each test is short."""


def plan(seed: int) -> Plan:
    return Plan(seed, minutes=15, fault_every_s=DENSE_S)


def first_broken(at_most: int) -> int:
    """The first seed in which something breaks."""
    return next(seed for seed in range(at_most) if run(plan(seed)).violation is not None)


@pytest.mark.parametrize("bug", sorted(BUGS.keys() - FOUND_LATE))
def test_a_planted_bug_is_found(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    BUGS[bug](monkeypatch)
    assert first_broken(at_most=50) < 50


@pytest.mark.slow
@pytest.mark.parametrize("bug", sorted(FOUND_LATE))
def test_a_planted_bug_is_found_in_many_worlds(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    BUGS[bug](monkeypatch)
    assert first_broken(at_most=300) < 300


def test_faults_are_shortened_while_the_same_thing_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    BUGS["the spare is left behind"](monkeypatch)
    whole = run(plan(first_broken(at_most=50)))
    short = shorten(plan(whole.seed))
    assert short.violation is not None
    assert whole.violation is not None
    assert short.violation.invariant == whole.violation.invariant
    assert set(short.faults) < set(whole.faults)
    assert run(replace(plan(whole.seed), faults=short.faults)) == short


# -- the benchmark


def test_the_benchmark_counts() -> None:
    steps: list[int] = []
    outcome = measure(range(2), 4.0, 3, 1, lambda: steps.append(1))
    rows = {row.metric: row for row in rows_of(outcome)}
    assert len(steps) == rows["seeds"].value == 2
    assert rows["violations"].value == 0
    assert (rows["cluster_hours_a_minute"].value or 0) > 0


def test_the_command_tells_what_broke_and_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["simulation", "--seeds", "1", "--seed-from", "7", "--minutes", "4", "--jobs", "1"]
    assert CliRunner().invoke(app, wanted).exit_code == 0
    BUGS["groups are made before their rows"](monkeypatch)
    result = CliRunner().invoke(app, wanted)
    assert result.exit_code == 1
    assert "seed 7: " in result.output
    assert "a group is made only after its intent is kept" in result.output
    assert "with these faults: none" in result.output
