"""The faults: a schedule by seed of what goes wrong, when, where and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

Kind = Literal[
    "power-cut",
    "process-kill",
    "agent-kill",
    "freeze",
    "stall",
    "partition",
    "deaf",
    "link-cut",
    "loss",
    "manager-crash",
    "manager-pause",
    "clock-jump",
    "drain",
    "cordon",
    "group-lost",
    "job-end",
]

STALL_S = 2.0
"""A node that is held up for so long must not die of it."""

LOSS = 0.2
EVERY_S = 240.0
"""The mean time between two faults, or two spells of them."""

LASTS_S: dict[Kind, tuple[float, float]] = {
    "power-cut": (10, 90),
    "process-kill": (5, 60),
    "agent-kill": (1, 1),
    "freeze": (3, 50),
    "stall": (STALL_S, STALL_S),
    "partition": (1, 50),
    "deaf": (1, 50),
    "link-cut": (1, 60),
    "loss": (5, 40),
    "manager-crash": (0.1, 20),
    "manager-pause": (0.5, 40),
    "clock-jump": (0, 0),
    "drain": (10, 60),
    "cordon": (10, 60),
    "group-lost": (0, 0),
    "job-end": (0, 0),
}
WEIGHTS: dict[Kind, int] = dict.fromkeys(LASTS_S, 2) | {"manager-crash": 6, "partition": 3, "job-end": 1}

JUMPS_S = (-3600.0, -5.0, -0.5, 0.5, 5.0, 300.0, 7200.0)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong. `slots`: the machines it hits, by number; `amount`: how far a clock jumps."""

    at: float
    kind: Kind
    slots: tuple[int, ...] = ()
    lasts_s: float = 0.0
    amount: float = 0.0

    def __str__(self) -> str:
        where = f" of {', '.join(f'n{slot}' for slot in self.slots)}" if self.slots else ""
        how_long = f" for {self.lasts_s:.1f} s" if self.lasts_s else ""
        return f"{self.at:8.2f} s  {self.kind}{where}{how_long}{f' by {self.amount:g} s' if self.amount else ''}"


def schedule(random: Random, slots: int, until: float, every_s: float = EVERY_S) -> tuple[Fault, ...]:
    """Faults at random times, some close together; all are over by `until`."""
    faults: list[Fault] = []
    at = random.expovariate(1 / every_s)
    while at < until:
        fault = _draw(random, at, slots)
        if fault.at + fault.lasts_s < until:
            faults.append(fault)
        # A fault often comes while another one is dealt with.
        at += random.expovariate(1 / every_s) if random.random() < 0.6 else random.uniform(0, 8)
    return tuple(faults)


def _draw(random: Random, at: float, slots: int) -> Fault:
    kind = random.choices(tuple(WEIGHTS), tuple(WEIGHTS.values()))[0]
    lasts_s = random.uniform(*LASTS_S[kind])
    amount = random.choice(JUMPS_S) if kind == "clock-jump" else 0.0
    return Fault(at, kind, _slots(random, kind, slots), lasts_s, amount)


def _slots(random: Random, kind: Kind, slots: int) -> tuple[int, ...]:
    every: Sequence[int] = range(slots)
    match kind:
        case "partition" | "stall":
            return tuple(sorted(random.sample(every, random.randint(1, slots - 1))))
        case "link-cut":
            return tuple(sorted(random.sample(every, 2)))
        case "loss" | "manager-crash" | "manager-pause" | "clock-jump":
            return ()
        case "group-lost" | "job-end":
            return (random.randrange(100),)
    return (random.randrange(slots),)
