"""Valuation: what a node's free room is worth at given prices, and what of it a demand would take.

The plain numpy form. `compiled` has the same for one thread of machine code; both give the very same integers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from noodle_ray.placement.columns import CPUS, MEMORY, Columns, Ints
from noodle_ray.placement.prices import Prices
from noodle_ray.resources import UNITS, Demand

NEVER = np.iinfo(np.int64).min
"""The score of a node that lacks an amount."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A demand as the numbers that scores depend on. `own_choice`: whether we choose the GPU, or Ray's rule does."""

    cpu_units: int
    memory: int
    gpu_units: int
    gpu_count: int
    own_choice: bool = False

    @classmethod
    def of(cls, demand: Demand, own_choice: bool = False) -> Ask:
        return cls(demand.cpu_units, demand.memory, demand.gpu_units, demand.gpu_count, own_choice)


@dataclass(frozen=True, slots=True)
class Rooms:
    """Free amounts of some nodes: vectors of n, `gpus` n by index. Kinds are indices into the prices' types."""

    kind: Ints
    cpu_units: Ints
    memory: Ints
    gpus: Ints

    @classmethod
    def of(cls, columns: Columns, rows: Ints) -> Rooms:
        free_cpus, free_memory = columns.amounts("free", CPUS), columns.amounts("free", MEMORY)
        return cls(columns.vector("kind")[rows], free_cpus[rows], free_memory[rows], columns.gpus("free")[rows])


Parts = dict[str, Ints]
PARTS = ("usable", "worth", "balance", "left over")
"""The parts of a cost."""


def values(prices: Prices, rooms: Rooms) -> Parts:
    """What the rooms are worth, by part: usable, worth, balance."""
    level = np.searchsorted(prices.cpu_levels, rooms.cpu_units, side="right")
    kind, gpus = rooms.kind, rooms.gpus
    usable = np.zeros(len(kind), np.int64)
    worth = np.zeros(len(kind), np.int64)
    for index in range(gpus.shape[1]):
        amount = gpus[:, index]
        usable += amount * prices.usable[kind, level, prices.size_index[amount]]
        worth += prices.worth[amount]
    whole = (gpus == UNITS).sum(axis=1)
    usable += whole * UNITS * prices.whole[kind, level, np.minimum(whole, prices.whole.shape[2] - 1)]
    return dict(zip(PARTS, (usable, worth, _balance(prices, worth, rooms)), strict=False))


def _balance(prices: Prices, worth: Ints, rooms: Rooms) -> Ints:
    gpus = worth * prices.gpus_per_worth
    cpus = rooms.cpu_units * prices.gpus_per_cpu_unit
    memory = rooms.memory * prices.gpus_per_byte
    with np.errstate(divide="ignore"):
        inverse = 1.0 / (gpus * gpus) + 1.0 / (cpus * cpus) + 1.0 / (memory * memory)
        return (prices.balance / np.sqrt(inverse)).astype(np.int64)


def costs(prices: Prices, rooms: Rooms, ask: Ask) -> tuple[Parts, Ints]:
    """What placing the demand would cost each room, by part, and the GPU index that a share goes to (else -1).

    Rooms must have the amounts: ask for others and the parts mean nothing.
    """
    after, index = _after(prices, rooms, ask)
    before_parts, after_parts = values(prices, rooms), values(prices, after)
    parts = {name: before_parts[name] - after_parts[name] for name in before_parts}
    left = after.gpus.sum(axis=1) * prices.gpu_left + after.cpu_units * prices.cpu_left
    parts[PARTS[3]] = left + (after.memory >> 20) * prices.mib_left
    return parts, index


def _after(prices: Prices, rooms: Rooms, ask: Ask) -> tuple[Rooms, Ints]:
    cpu_units, memory = rooms.cpu_units - ask.cpu_units, rooms.memory - ask.memory
    index = np.full(len(rooms.kind), -1, np.int64)
    gpus = rooms.gpus
    if ask.gpu_count and ask.gpu_units == UNITS:
        whole = gpus == UNITS
        gpus = np.where(whole & (whole.cumsum(axis=1) <= ask.gpu_count), 0, gpus)
    elif ask.gpu_count:
        index = _share_index(prices, Rooms(rooms.kind, cpu_units, memory, gpus), ask)
        gpus = gpus.copy()
        gpus[np.arange(len(index)), index] -= ask.gpu_units
    return Rooms(rooms.kind, cpu_units.clip(min=0), memory.clip(min=0), gpus.clip(min=0)), index


def _share_index(prices: Prices, rooms: Rooms, ask: Ask) -> Ints:
    """The GPU for a share: the tightest that it fits on, or, by our own choice, the one after which most value is left.

    Equal ones: the tighter, then the lower index.
    """
    fits = rooms.gpus >= ask.gpu_units
    tightness = np.where(fits, rooms.gpus, 2 * UNITS)
    if not ask.own_choice:
        return np.asarray(tightness.argmin(axis=1), np.int64)
    best_index, best_value = tightness.argmin(axis=1), np.full(len(rooms.kind), NEVER)
    order = np.argsort(tightness, axis=1, kind="stable")
    for place in range(order.shape[1]):
        candidate = order[:, place]
        rest = rooms.gpus.copy()
        rest[np.arange(len(candidate)), candidate] -= ask.gpu_units
        room = Rooms(rooms.kind, rooms.cpu_units.clip(min=0), rooms.memory.clip(min=0), rest.clip(min=0))
        value: npt.NDArray[np.int64] = np.sum(list(values(prices, room).values()), axis=0)
        better = fits[np.arange(len(candidate)), candidate] & (value > best_value)
        best_index, best_value = np.where(better, candidate, best_index), np.where(better, value, best_value)
    return np.asarray(best_index, np.int64)


def scores(prices: Prices, columns: Columns, rows: Ints, ask: Ask) -> Ints:
    """Minus the cost for each of the rows; NEVER where `lacks`. Other conditions come later."""
    parts, _ = costs(prices, Rooms.of(columns, rows), ask)
    total: Ints = -np.sum(list(parts.values()), axis=0)
    return np.where(lacks(columns, rows, ask), NEVER, total)


def lacks(columns: Columns, rows: Ints, ask: Ask) -> npt.NDArray[np.bool_]:
    """Whether CPUs, memory or GPUs are too few on each of the rows."""
    short: npt.NDArray[np.bool_] = columns.amounts("free", CPUS)[rows] < ask.cpu_units
    short |= columns.amounts("free", MEMORY)[rows] < ask.memory
    if not ask.gpu_count:
        return short
    if ask.gpu_units < UNITS:
        return short | (columns.vector("gpu_largest")[rows] < ask.gpu_units)
    return short | (columns.vector("gpu_whole")[rows] < ask.gpu_count)
