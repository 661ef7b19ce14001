"""The valuation and the search for the best node as machine code: the same integers as `valuation`, a row at a time.

Imported only when it is wanted (`kernels`): importing numba takes a second, and so does compiling where its cache is
empty.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from noodle_ray.placement.columns import Bools, Ints
from noodle_ray.placement.prices import Floats
from noodle_ray.resources import UNITS

NEVER = np.iinfo(np.int64).min


Nodes = tuple[Ints, Ints, Ints, Ints, Ints, Ints]
"""Columns of all nodes: kind, free CPU units, free memory, free GPU units by index, largest free GPU, whole GPUs."""

Tables = tuple[Ints, Ints, Ints, Ints, Ints, Floats, Ints]
"""See `prices.Prices.tables`."""


@njit(cache=True, nogil=True)
def _level(levels: Ints, cpu_units: int) -> int:
    low, high = 0, len(levels)
    while low < high:
        middle = (low + high) // 2
        if levels[middle] <= cpu_units:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True, nogil=True)
def _balance(worth: int, cpu_units: int, memory: int, rates: Floats) -> int:
    if worth <= 0 or cpu_units <= 0 or memory <= 0 or rates[1] == 0.0:
        return 0
    gpus, cpus, room = worth * rates[1], cpu_units * rates[2], memory * rates[3]
    return int(rates[0] / np.sqrt(1.0 / (gpus * gpus) + 1.0 / (cpus * cpus) + 1.0 / (room * room)))


@njit(cache=True, nogil=True)
def _costs(row: int, nodes: Nodes, ask: Ints, tables: Tables) -> tuple[int, int, int, int, int]:
    """What the ask (CPU units, memory, GPU units, GPU count, own choice) costs a node that has it: usable, worth,
    balance, left over; and the index of the GPU for a share, else -1."""
    kinds, all_cpu_units, all_memory, all_gpus, _, _ = nodes
    kind, cpu_units, memory, gpus = kinds[row], all_cpu_units[row], all_memory[row], all_gpus[row]
    levels, size_index, usable, whole, worth, rates, left = tables
    largest = whole.shape[2] - 1
    before, after = _level(levels, cpu_units), _level(levels, cpu_units - ask[0])
    room, rest, worths, free, wholes = 0, 0, 0, 0, 0
    for index in range(len(gpus)):
        amount = gpus[index]
        if amount == 0:
            continue
        size = size_index[amount]
        room += amount * usable[kind, before, size]
        rest += amount * usable[kind, after, size]
        worths += worth[amount]
        free += amount
        if amount == UNITS:
            wholes += 1
    room += wholes * UNITS * whole[kind, before, min(wholes, largest)]
    balance = _balance(worths, cpu_units, memory, rates)
    cpu_left, memory_left = cpu_units - ask[0], memory - ask[1]
    cost_left = (free - ask[2] * ask[3]) * left[0] + cpu_left * left[1] + (memory_left >> 20) * left[2]
    if ask[3] == 0 or ask[2] == UNITS:
        wholes -= ask[3]
        spent = ask[3] * worth[UNITS]
        rest -= ask[3] * UNITS * usable[kind, after, size_index[UNITS]]
        rest += wholes * UNITS * whole[kind, after, min(wholes, largest)]
        then_balance = _balance(worths - spent, cpu_left, memory_left, rates)
        return room - rest, spent, balance - then_balance, cost_left, -1
    best, tightest = NEVER, 2 * UNITS
    result = (0, 0, 0, 0, -1)
    for index in range(len(gpus)):
        amount = gpus[index]
        if amount < ask[2] or (ask[4] == 0 and amount >= tightest):
            continue
        remaining = amount - ask[2]
        then_whole = wholes - 1 if amount == UNITS else wholes
        then = rest - amount * usable[kind, after, size_index[amount]]
        then += remaining * usable[kind, after, size_index[remaining]]
        then += then_whole * UNITS * whole[kind, after, min(then_whole, largest)]
        spent = worth[amount] - worth[remaining]
        then_balance = _balance(worths - spent, cpu_left, memory_left, rates)
        value = then - spent + then_balance
        if ask[4] == 0 or value > best or (value == best and amount < tightest):
            best, tightest = value, amount
            result = (room - then, spent, balance - then_balance, cost_left, index)
    return result


@njit(cache=True, nogil=True)
def score_rows(rows: Ints, out: Ints, nodes: Nodes, ask: Ints, tables: Tables) -> None:
    """Writes each row's score into `out` at that row; NEVER where an amount is too small."""
    _, cpu_units, memory, _, gpu_largest, gpu_whole = nodes
    for place in range(len(rows)):
        row = rows[place]
        short = cpu_units[row] < ask[0]
        if ask[3] > 0:
            short = short or (gpu_largest[row] < ask[2] if ask[2] < UNITS else gpu_whole[row] < ask[3])
        if short or memory[row] < ask[1]:
            out[row] = NEVER
        else:
            parts = _costs(row, nodes, ask, tables)
            out[row] = -(parts[0] + parts[1] + parts[2] + parts[3])


@njit(cache=True, nogil=True)
def cost_rows(rows: Ints, out: Ints, nodes: Nodes, ask: Ints, tables: Tables) -> None:
    """Writes what the ask costs each of the rows, all of which have the amounts, into a row of `out`: see `_costs`."""
    for place in range(len(rows)):
        out[place] = _costs(rows[place], nodes, ask, tables)


@njit(cache=True, nogil=True)
def best_rows(
    scores: Ints,
    is_open: Bools,
    kind: Ints,
    cpu_units: Ints,
    memory: Ints,
    state: Ints,
    tie: Ints,
    extra: Ints,
    units: int,
    allowed: Bools,
    blocked: Bools,
    count: int,
) -> Ints:
    """See `kernels.best_rows`; an empty `blocked` blocks nothing."""
    best = np.empty(count, np.int64)
    final = np.empty(count, np.int64)
    found = 0
    for row in range(len(scores)):
        if scores[row] == NEVER or not is_open[row] or not allowed[kind[row]]:
            continue
        if len(blocked) > 0 and blocked[row]:
            continue
        score = scores[row] - extra[kind[row]] * units
        if found == count and score < final[count - 1]:
            continue
        place = found
        while place > 0:
            other = best[place - 1]
            if score < final[place - 1]:
                break
            if score == final[place - 1]:
                if cpu_units[row] != cpu_units[other]:
                    if cpu_units[row] > cpu_units[other]:
                        break
                elif memory[row] != memory[other]:
                    if memory[row] > memory[other]:
                        break
                elif state[row] != state[other]:
                    if state[row] > state[other]:
                        break
                elif tie[row] >= tie[other]:
                    break
            place -= 1
        if place == count:
            continue
        found = min(found + 1, count)
        for moved in range(found - 1, place, -1):
            best[moved], final[moved] = best[moved - 1], final[moved - 1]
        best[place], final[place] = row, score
    return best[:found]
