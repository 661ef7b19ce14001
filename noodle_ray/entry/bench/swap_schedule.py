"""When which version is swapped in and which host is killed: the same for the same seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from noodle_ray.entry.bench.module_versions import Breakage

T = TypeVar("T")

SOON_S = 0.3
"""A host that is to die in the middle of a swap dies within this after its beginning."""


@dataclass(frozen=True, slots=True)
class Step:
    """At this time, in seconds from the start, a swap to a good version, or to one that is broken in this way.

    `kill_after_s`: so long after it the module's host is killed; None where it lives.
    """

    at_s: float
    breakage: Breakage | None = None
    kill_after_s: float | None = None


def schedule(seconds: float, every_s: float, breakages: Sequence[Breakage], seed: int) -> list[Step]:
    """A step every `every_s`, the last one as long before the end.

    Of four in a row, in any order, two only swap, one also has a host killed, soon or late in turn, and one is broken.
    Every kind of breakage has its turn before one comes again.
    """
    chance = np.random.default_rng(seed)
    count = max(0, math.floor(seconds / every_s + 1e-9) - 1)
    kinds = _shuffled(["swap", "swap", "kill", "break"], count, chance)
    broken = iter(_shuffled(list(breakages), kinds.count("break"), chance))
    steps, kills = [], 0
    for number, kind in enumerate(kinds):
        late = chance.uniform(0.5, 0.9) * every_s if kills % 2 else chance.uniform(0, min(SOON_S, every_s / 2))
        kills += kind == "kill"
        breakage = next(broken) if kind == "break" else None
        steps.append(Step((number + 1) * every_s, breakage, float(late) if kind == "kill" else None))
    return steps


def _shuffled(items: list[T], count: int, chance: np.random.Generator) -> list[T]:
    """So many of them: all in random order, then all again in another."""
    rounds = -(-count // len(items)) if items else 0
    return [items[place] for _ in range(rounds) for place in chance.permutation(len(items))][:count]
