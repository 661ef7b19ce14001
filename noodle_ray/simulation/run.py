"""Running: one seed's world from its start until everything has healed, and shortening what went wrong in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random

from noodle_ray.settings import Settings
from noodle_ray.simulation.cluster import Cluster
from noodle_ray.simulation.faults import EVERY_S, Fault, schedule
from noodle_ray.simulation.invariants import Broken, Checker, Violation
from noodle_ray.simulation.world import World

SETTINGS = Settings()
MINUTES = 30.0
HEAL_S = 100.0
"""How long before the end the last fault is over: Ray needs half a minute to give up a node that was silent."""

SETTLE_S = 300.0
SETTLE_LOOK_S = 10.0
"""By when everything must be at rest after the end, and how often that is looked at."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A world to run. `faults`: instead of the seed's own, of which there is one every `fault_every_s` on average."""

    seed: int
    minutes: float = MINUTES
    nodes: int | None = None
    faults: tuple[Fault, ...] | None = None
    fault_every_s: float = EVERY_S


@dataclass(frozen=True, slots=True)
class Result:
    """How it went: the first violation, or None."""

    seed: int
    simulated_s: float
    events: int
    trace: str
    faults: tuple[Fault, ...]
    violation: Violation | None


def run(plan: Plan) -> Result:
    """Runs one world. The same plan gives the same result, to the last event."""
    nodes, faults = shape(plan)
    world = World(plan.seed)
    cluster = Cluster(world, nodes, SETTINGS)
    checker = Checker(cluster, SETTINGS)
    violation = None
    try:
        _play(plan, world, cluster, checker, faults)
    except Broken as broken:
        violation = Violation(world.now, broken.invariant, broken.details)
    except Exception as error:  # whatever the core raises is a violation too
        violation = Violation(world.now, "the manager raises nothing", repr(error))
    return Result(plan.seed, world.now, world.events, world.trace, faults, violation)


def shape(plan: Plan) -> tuple[int, tuple[Fault, ...]]:
    """How many nodes it has, and its faults."""
    random = Random(f"{plan.seed} shape")  # noqa: S311  (nothing here is a secret)
    drawn = random.randint(3, 6)
    nodes = plan.nodes or drawn
    until = max(plan.minutes * 60 - HEAL_S, 0.0)
    return nodes, schedule(random, nodes, until, plan.fault_every_s) if plan.faults is None else plan.faults


def _play(plan: Plan, world: World, cluster: Cluster, checker: Checker, faults: Sequence[Fault]) -> None:
    for fault in faults:
        world.at(fault.at, lambda fault=fault: cluster.inject(fault))  # type: ignore[misc]
    cluster.start()
    end = plan.minutes * 60
    world.run(end, checker.check)
    cluster.clients.stop()
    while differences := list(checker.final()):
        if world.now >= end + SETTLE_S:
            raise Broken("all comes to rest when everything has healed", "; ".join(differences))
        world.run(world.now + SETTLE_LOOK_S, checker.check)


def shorten(plan: Plan) -> Result:
    """Drops faults from the schedule as long as the same invariant breaks. The result has the faults that are left."""
    result = run(plan)
    if result.violation is None:
        return result
    size = max(len(result.faults) // 2, 1)
    while size >= 1:
        shorter = next(_broken_too(plan, result, size), None)
        if shorter is not None:
            result = shorter
        else:
            size //= 2
    return result


def _broken_too(plan: Plan, result: Result, size: int) -> Iterator[Result]:
    """The runs without some of the faults in which the same invariant breaks."""
    assert result.violation is not None
    for first in range(0, len(result.faults), size):
        left = (*result.faults[:first], *result.faults[first + size :])
        again = run(replace(plan, nodes=shape(plan)[0], faults=left))
        if again.violation is not None and again.violation.invariant == result.violation.invariant:
            yield again
