"""Prices: what free room is worth to the workload, as tables that a node's value is read from.

Four parts, each in fixed-point GPUs (`SCALE` parts of one), so that values add up exactly in any order:

usable   the room that a demand drawn from the workload could use: fragmentation gradient descent (Weng et al.,
         "Beware of Fragmentation", USENIX ATC 2023), without its quantisation. Room is a GPU's free amount; it counts
         for a class where the class fits it and the node has the class's CPUs free.
worth    what a hole of a size is worth when every hole is filled as well as the workload allows: the dual prices of
         the linear program that packs the workload's shares into one GPU (an arc-flow model, Valério de Carvalho 1999;
         bid prices, Talluri & van Ryzin 1998). .19 beside an .81 is worth little where nothing that small arrives.
balance  what a node's GPUs, CPUs and memory are worth together: 1 / sqrt(1/g² + 1/c² + 1/m²), with each counted in
         GPUs that it could serve. Work with many CPUs thus goes where CPUs are plenty beside the free GPUs.
scarcity see `market`: what one type of accelerator costs more than another because some demands can use no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from noodle_ray.placement.columns import CPUS, MEMORY, Bools, Columns, Ints
from noodle_ray.placement.workload import DemandClass, Workload
from noodle_ray.resources import UNITS

SCALE = 10**10
"""Parts of one GPU in which values are counted."""

Floats = npt.NDArray[np.float64]
OVERLOAD = 1.05
"""GPUs asked for in the linear program for each that there is: with less than one, room would be worth nothing."""

ENOUGH_SEEN = 20
"""Demands that must have been seen before prices are taken from them."""


def _assumed(gpu_share: float, weight: float) -> tuple[DemandClass, float]:
    return DemandClass(0, 0, round(gpu_share * UNITS), 1, None, None), weight


ASSUMED = (_assumed(1, 0.6), _assumed(0.5, 0.2), _assumed(0.25, 0.2))
"""The demands for GPUs that are prepared for while none is known: a started GPU is then filled before another is."""


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each part counts: GPUs of score for a GPU of it, or for each that stays free on the chosen node.

    `memory_plenty`: memory counts as if there were so many times as much, for it is rarely what runs out first.
    `custom_left`: for all of a custom resource of a node that the demand asks for and leaves free. The
    defaults were found by random search over arrivals of other seeds than those reported (docs/placement.md).
    """

    usable: float = 5.0
    usable_whole: float = 1.0
    usable_gang: float = 3.0
    worth: float = 25.0
    balance: float = 0.65
    scarcity: float = 40.0
    memory_plenty: float = 2.0
    gpu_left: float = 0.000375
    cpu_left: float = 0.00023
    memory_left_gib: float = 0.000002
    custom_left: float = 1.0


FGD_WEIGHTS = Weights(
    usable=1, usable_gang=1, worth=0, balance=0, scarcity=0, gpu_left=0, cpu_left=0, memory_left_gib=0, custom_left=0
)


@dataclass(frozen=True, slots=True)
class PriceInputs:
    """All that prices depend on: the workload's classes with their shares, the fleet's types and its amounts."""

    classes: tuple[tuple[DemandClass, float], ...]
    kinds: tuple[str, ...]
    cpu_units: int = 0
    memory_bytes: int = 0
    gpus: int = 0
    weights: Weights = Weights()

    @classmethod
    def of(cls, columns: Columns, workload: Workload, weights: Weights) -> PriceInputs:
        """Those of a fleet, and of the workload if enough of it was seen."""
        return cls(
            classes=workload.classes() if workload.seen >= ENOUGH_SEEN else (),
            kinds=tuple(columns.kinds),
            cpu_units=int(columns.amounts("total", CPUS).sum()),
            memory_bytes=int(columns.amounts("total", MEMORY).sum()),
            gpus=int(columns.vector("gpu_count").sum()),
            weights=weights,
        )


@dataclass(frozen=True)
class Prices:
    """Tables of integers. K accelerator types, C distinct CPU demands, S distinct shares, G the largest gang.

    `cpu_levels` (C) sorted; `size_index` (UNITS + 1) number of shares up to an amount; `usable` (K, C + 1, S + 1) per
    unit of a GPU's free amount; `whole` (K, C + 1, G + 1) per free whole GPU; `worth` (UNITS + 1) of one GPU's free
    amount; `constrained` (M, K) and `masses` (M): which types each group of demands may use, and its share of all
    requested GPU. `gpus_per_…` turn a node's worth, CPUs and memory into GPUs that they could serve; `…_left` are
    what a unit of GPU, a unit of CPU and a MiB that stay free on the chosen node cost.
    """

    cpu_levels: Ints
    size_index: Ints
    usable: Ints
    whole: Ints
    worth: Ints
    balance: float
    gpus_per_worth: float
    gpus_per_cpu_unit: float
    gpus_per_byte: float
    gpu_left: int
    cpu_left: int
    mib_left: int
    scarcity: float
    constrained: Bools
    masses: Floats

    @cached_property
    def tables(self) -> tuple[Ints, Ints, Ints, Ints, Ints, Floats, Ints]:
        """What a node's value is read from, as machine code takes it: the tables, then the rates, then what is left."""
        rates = (self.balance, self.gpus_per_worth, self.gpus_per_cpu_unit, self.gpus_per_byte)
        left = (self.gpu_left, self.cpu_left, self.mib_left)
        tables = (self.cpu_levels, self.size_index, self.usable, self.whole, self.worth)
        return (*tables, np.array(rates, np.float64), np.array(left, np.int64))


def compute(inputs: PriceInputs) -> Prices:
    """The prices of a workload on a fleet. Some 50 ms of computing, most of it in the linear program."""
    weights = inputs.weights
    wanting = [(kind, share) for kind, share in inputs.classes if kind.gpu_count] or list(ASSUMED)
    levels = np.unique([kind.cpu_units for kind, _ in wanting]).astype(np.int64)
    sizes = np.unique([kind.gpu_units for kind, _ in wanting if kind.gpu_units < UNITS]).astype(np.int64)
    constrained, masses = _groups(wanting, inputs.kinds)
    cpus_per_gpu, bytes_per_gpu = _ratios(wanting, inputs)
    worth = hole_worths(wanting) if weights.worth or weights.balance else np.zeros(UNITS + 1)
    return Prices(
        cpu_levels=levels,
        size_index=np.searchsorted(sizes, np.arange(UNITS + 1), side="right").astype(np.int64),
        usable=_usable(wanting, inputs.kinds, levels, sizes, weights.usable),
        whole=_whole(wanting, inputs.kinds, levels, weights),
        worth=np.rint(weights.worth * SCALE * worth).astype(np.int64),
        balance=weights.balance * SCALE,
        gpus_per_worth=1 / (weights.worth * SCALE) if weights.worth else 0.0,
        gpus_per_cpu_unit=1 / (cpus_per_gpu * UNITS),
        gpus_per_byte=weights.memory_plenty / bytes_per_gpu,
        gpu_left=round(weights.gpu_left * SCALE / UNITS),
        cpu_left=round(weights.cpu_left * SCALE / UNITS),
        mib_left=round(weights.memory_left_gib * SCALE / 1024),
        scarcity=weights.scarcity,
        constrained=constrained,
        masses=masses,
    )


Wanting = Sequence[tuple[DemandClass, float]]


def _ratios(wanting: Wanting, inputs: PriceInputs) -> tuple[float, float]:
    """CPUs and bytes that go with one GPU: as the workload asks for them; as the fleet has them, before any is seen."""
    gpus = sum(share * kind.gpu_total for kind, share in wanting) / UNITS
    cpus = sum(share * kind.cpu_units for kind, share in wanting) / UNITS
    memory = sum(share * kind.memory for kind, share in wanting)
    own = max(inputs.gpus, 1)
    fleet_cpus, fleet_memory = max(inputs.cpu_units / UNITS / own, 1e-3), max(inputs.memory_bytes / own, 1.0)
    return (cpus / gpus if cpus and gpus else fleet_cpus), (memory / gpus if memory and gpus else fleet_memory)


def _usable(wanting: Wanting, kinds: Sequence[str], levels: Ints, sizes: Ints, weight: float) -> Ints:
    """Share of the workload that a free amount is usable for, cumulated over CPUs and over the amount."""
    table = np.zeros((len(kinds), len(levels) + 1, len(sizes) + 1))
    for kind, share in wanting:
        if kind.gpu_units < UNITS:
            level, size = np.searchsorted(levels, kind.cpu_units), np.searchsorted(sizes, kind.gpu_units)
            table[_allowed(kind, kinds), level + 1, size + 1] += share
    return _fixed_point(table, weight)


def _whole(wanting: Wanting, kinds: Sequence[str], levels: Ints, weights: Weights) -> Ints:
    """The same for whole GPUs, cumulated over the number of GPUs; gangs of them have a weight of their own."""
    largest = max([kind.gpu_count for kind, _ in wanting], default=0)
    table = np.zeros((len(kinds), len(levels) + 1, largest + 1))
    for kind, share in wanting:
        if kind.gpu_units == UNITS:
            weight = weights.usable_whole if kind.gpu_count == 1 else weights.usable_gang
            level = np.searchsorted(levels, kind.cpu_units)
            table[_allowed(kind, kinds), level + 1, kind.gpu_count] += share * weight
    return _fixed_point(table, 1.0)


def _fixed_point(table: Floats, weight: float) -> Ints:
    cumulated = table.cumsum(axis=1).cumsum(axis=2)
    return np.rint(cumulated * weight * SCALE / UNITS).astype(np.int64)


def _allowed(kind: DemandClass, kinds: Sequence[str]) -> Bools:
    return np.array([kind.runs_on(name) for name in kinds], np.bool_)


def _groups(wanting: Wanting, kinds: Sequence[str]) -> tuple[Bools, Floats]:
    """Demands by the types that they may use: (M, K), and each group's share of the requested GPU."""
    mass: dict[tuple[bool, ...], float] = {}
    for kind, share in wanting:
        allowed = tuple(map(bool, _allowed(kind, kinds)))
        if any(allowed):
            mass[allowed] = mass.get(allowed, 0.0) + share * kind.gpu_total
    groups = sorted(mass)
    total = sum(mass.values()) or 1.0
    return (
        np.array(groups, np.bool_).reshape(len(groups), len(kinds)),
        np.array([mass[group] / total for group in groups], np.float64),
    )


# -- the linear program


def hole_worths(wanting: Wanting) -> Floats:
    """For each free amount of a GPU (UNITS + 1 of them) what it is worth, where a whole GPU is worth 1.

    Packs the workload, scaled to ask for a little more than one GPU, into one GPU: maximise the GPU that is used.
    Places are free amounts, an item of size s is an arc from h to h - s; the dual of a place's balance is its worth.
    Where no shares were seen an amount is worth itself.
    """
    demanded = {kind.gpu_units: 0.0 for kind, _ in wanting if kind.gpu_units < UNITS}
    if not demanded:
        return np.arange(UNITS + 1) / UNITS
    total = sum(share * kind.gpu_total for kind, share in wanting) / OVERLOAD
    for kind, share in wanting:
        if kind.gpu_units < UNITS:
            demanded[kind.gpu_units] += share * UNITS / total
    whole = sum(share * kind.gpu_count * UNITS / total for kind, share in wanting if kind.gpu_units == UNITS)
    levels = 100 if all(size % (UNITS // 100) == 0 for size in demanded) else 200
    items = [(_level(size, levels), size / UNITS, amount) for size, amount in sorted(demanded.items())]
    duals = _place_duals([*items, (levels, 1.0, whole)], levels)
    worths: Floats = duals[np.arange(UNITS + 1) * levels // UNITS] / duals[-1]
    return worths


def _level(size: int, levels: int) -> int:
    """A share on the coarse scale, rounded so that as many of it fit one GPU as really do."""
    down = max(size * levels // UNITS, 1)
    return down if levels // down == UNITS // size else -(-size * levels // UNITS)


def _place_duals(items: Sequence[tuple[int, float, float]], levels: int) -> Floats:
    """Items are (size in levels, value, amount at most). Gives the dual price of each free amount, 0 to `levels`."""
    from scipy.optimize import linprog  # half a second to import: only where prices are computed
    from scipy.sparse import coo_array

    rows: list[int] = []
    columns: list[int] = []
    signs: list[float] = []
    values: list[float] = []

    def arc(source: int, target: int, value: float, item: int | None) -> None:
        column = len(values)
        ends = [(source, 1.0), (target, -1.0)] + ([] if item is None else [(levels + 1 + item, 1.0)])
        for row, sign in ends:
            rows.append(row)
            columns.append(column)
            signs.append(sign)
        values.append(value)

    for place in range(1, levels + 1):
        for number, (size, value, _) in enumerate(items):
            if size <= place:
                arc(place, place - size, value, number)
        arc(place, place - 1, 0.0, None)
    matrix = coo_array((signs, (rows, columns)), shape=(levels + 1 + len(items), len(values))).tocsr()
    limits = np.zeros(levels + 1 + len(items))
    limits[levels], limits[0] = 1.0, np.inf
    limits[levels + 1 :] = [amount for _, _, amount in items]
    solved = linprog(-np.array(values), A_ub=matrix, b_ub=np.minimum(limits, 1e6), method="highs")
    return -np.asarray(solved.ineqlin.marginals)[: levels + 1]
