"""How fast dead and silent nodes are found and their work is held anew, on real raylets that are killed and frozen."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from noodle_ray.entry.bench.nodes_fleet import Fleet, fleet, wait_for
from noodle_ray.entry.bench.report import Row
from noodle_ray.entry.bench.timing import percentile
from noodle_ray.entry.cli.output import say
from noodle_ray.errors import DeadlineExceeded, Unavailable
from noodle_ray.placement.allocation import OnLoss

SLOTS = 4
KEPT = 24
"""Allocations that are held all the time and restart when their node dies."""

STALL_S, BETWEEN_STALLS_S = 2.0, 1.0
STARTS = 3
"""How often a raylet is started that does not come up on a busy machine."""

OUTER_S = 15.0
"""A node that is dead is known as such within this, or the trial counts as missed."""

GOALS_MS = {"detect_killed": 1000.0, "suspect_silent": 3000.0, "recover_silent": 5000.0, "replan": 100.0}


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is to be measured."""

    trials: int = 20
    kills: int = 100
    stall_minutes: float = 10.0
    seed: int = 1


@dataclass(slots=True)
class Times:
    """Milliseconds by what was measured, and what never came."""

    taken: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in GOALS_MS})
    missed: int = 0
    starts_missed: int = 0


def measure(plan: Plan) -> list[Row]:
    """All rows of one fleet: kills, silences, stalls, and what is left over after all of it."""
    chance, times = np.random.default_rng(plan.seed), Times()
    with fleet(SLOTS, say) as running:
        for _ in range(KEPT):
            running.claim("restart")
        for number in range(plan.trials):
            say(f"silence {number + 1} of {plan.trials}")
            _silence(running, _busiest(running), times)
        false_deaths, stalls = _stall(running, plan, chance)
        for number in range(plan.kills):
            say(f"kill {number + 1} of {plan.kills}")
            _kill(running, int(chance.choice(running.slots)), times, chance)
        leaked = _leaked(running)
    return [
        *_time_rows(times),
        Row(metric="false_deaths", value=false_deaths, unit="", goal=0, context={"stalls": stalls, "seconds": STALL_S}),
        Row(metric="leaked_units", value=leaked, unit="", goal=0, context={"kills": plan.kills}),
        Row(metric="missed", value=times.missed, unit="", goal=0, context={"trials": plan.trials + plan.kills}),
        Row(metric="starts_missed", value=times.starts_missed, unit="", context={"starts": plan.trials + plan.kills}),
    ]


def _busiest(running: Fleet) -> int:
    """The slot that holds the most."""
    held = Counter(one.node_id for one in running.ask("allocations"))
    nodes = {slot: running.node_in(slot) for slot in running.slots}
    return max(nodes, key=lambda slot: (held[node.id] if (node := nodes[slot]) else -1, -slot))


def _kill(running: Fleet, slot: int, times: Times, chance: np.random.Generator) -> None:
    """All processes of a node at once, while others come and go."""
    node, since = running.node_in(slot), running.last_event()
    assert node is not None
    ways: tuple[OnLoss, ...] = ("fail", "restart", "standby")
    passing = [running.claim(ways[chance.integers(3)]) for _ in range(3)]
    killed_at = running.signal(slot, signal.SIGKILL)
    with _counted(times):
        event = running.first_event(since, node.id, {"node_dead", "node_left"}, OUTER_S)
        times.taken["detect_killed"].append((event.at - killed_at) * 1000)
        times.taken["replan"].append(float(event.details["decided_ms"]))
    for allocation in passing:
        running.ask("release", allocation.id)
    _replace(running, slot, times)


def _silence(running: Fleet, slot: int, times: Times) -> None:
    """All processes of a node stop, as when its host freezes or its cable is cut."""
    node, since = running.node_in(slot), running.last_event()
    assert node is not None
    there = [one for one in running.ask("allocations") if one.node_id == node.id]
    frozen_at = running.signal(slot, signal.SIGSTOP)
    with _counted(times):
        suspected = running.first_event(since, node.id, {"node_suspect", "node_dead"}, OUTER_S)
        times.taken["suspect_silent"].append((suspected.at - frozen_at) * 1000)
        dead = running.first_event(since, node.id, {"node_dead", "node_left"}, OUTER_S)
        times.taken["replan"].append(float(dead.details["decided_ms"]))
        if there:
            times.taken["recover_silent"].append((running.held_anew(there[0], OUTER_S) - frozen_at) * 1000)
    _replace(running, slot, times)


def _replace(running: Fleet, slot: int, times: Times) -> None:
    """A new raylet in the slot; one that does not come up in time is counted, and started anew, but not for ever."""
    for left in reversed(range(STARTS)):
        running.replace(slot)
        try:
            running.settle()
            break
        except (DeadlineExceeded, Unavailable) as error:
            say(str(error))
            times.starts_missed += 1
            if not left:
                raise


@contextmanager
def _counted(times: Times) -> Iterator[None]:
    """What does not happen in time is counted, and ends nothing."""
    try:
        yield
    except (DeadlineExceeded, Unavailable) as error:
        say(str(error))
        times.missed += 1


def _stall(running: Fleet, plan: Plan, chance: np.random.Generator) -> tuple[int, int]:
    """Nodes stop for two seconds, one after another: how many were held for dead, of how many."""
    say(f"stalls of {STALL_S:g} s for {plan.stall_minutes:g} minutes")
    since, stalls, end = running.last_event(), 0, time.monotonic() + plan.stall_minutes * 60
    deaths = 0
    while time.monotonic() < end:
        slot = int(chance.choice(running.slots))
        running.signal(slot, signal.SIGSTOP)
        time.sleep(STALL_S)
        running.signal(slot, signal.SIGCONT)
        stalls += 1
        time.sleep(BETWEEN_STALLS_S)
        deaths += len(running.events(since, "node_dead"))
        since = running.last_event()
    return deaths, stalls


def _leaked(running: Fleet) -> int:
    """Everything is released: what is still taken then, in the ledger or in Ray."""
    for allocation in running.ask("allocations"):
        running.ask("release", allocation.id)
    try:
        wait_for("all to be free", lambda: running.leaked_units() == 0 and not running.ask("allocations"), 30)
    except DeadlineExceeded:
        return max(running.leaked_units(), 1)
    return 0


def _time_rows(times: Times) -> Iterator[Row]:
    for name, goal in GOALS_MS.items():
        taken = times.taken[name]
        for percent in (50, 99):
            if taken:
                yield Row(
                    metric=f"{name}_ms_p{percent}",
                    value=percentile(taken, percent),
                    unit="ms",
                    goal=goal if percent == 99 else None,
                    context={"trials": len(taken), "workers": SLOTS},
                )
