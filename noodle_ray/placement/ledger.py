"""The ledger: the fleet as columns, and who holds what of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from noodle_ray.errors import Conflict, NotFound
from noodle_ray.resources import UNITS, Demand, LabelSelector, NodeResources, Shortfall, format_bytes, from_units

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

CPUS, MEMORY = "cpus", "memory"


def amounts_of(demand: Demand) -> dict[str, int]:
    """The demand's divisible dimensions, GPUs apart: dimension → amount in its own integer unit."""
    wanted = {CPUS: demand.cpu_units, MEMORY: demand.memory, **demand.custom_units}
    return {dimension: amount for dimension, amount in wanted.items() if amount}


@dataclass(frozen=True, slots=True)
class Holding:
    """What one allocation holds: the demand, on a node, on these of its GPUs."""

    node_id: str
    demand: Demand
    gpu_indices: tuple[int, ...]


class ResourcePool:
    """Free and held amounts of every node. It never gives out what is not free, and takes back exactly what it gave.

    A dimension is a column of integers, one row a node: CPUs in 1/10,000, memory in bytes, each custom resource in
    1/10,000. GPUs are a matrix, one column an index, in 1/10,000 of a GPU. What others use beside us is kept apart
    (`set_foreign`) and counts as used.
    """

    def __init__(self) -> None:
        self._resources: dict[str, NodeResources] = {}
        self._row: dict[str, int] = {}
        self._holdings: dict[str, Holding] = {}
        self._cordoned: set[str] = set()
        self._total: dict[str, Ints] = {}
        self._held: dict[str, Ints] = {}
        self._foreign: dict[str, Ints] = {}
        self._gpu_total, self._gpu_held, self._gpu_foreign = (np.zeros((0, 0), np.int64) for _ in range(3))

    # -- the fleet

    @property
    def node_ids(self) -> tuple[str, ...]:
        """The nodes, in the order of the columns' rows."""
        return tuple(self._row)

    def add_node(self, node_id: str, resources: NodeResources) -> None:
        """Adds an empty node. Raises Conflict where it is known already."""
        if node_id in self._row:
            raise Conflict(f"node {node_id} is in the ledger already")
        self._resources[node_id] = resources
        self._rebuild()

    def remove_node(self, node_id: str) -> tuple[str, ...]:
        """Takes the node and all that is held on it out; gives the ids of the allocations that held it."""
        self._require(node_id)
        lost = tuple(sorted(key for key, holding in self._holdings.items() if holding.node_id == node_id))
        for key in lost:
            del self._holdings[key]
        self._cordoned.discard(node_id)
        del self._resources[node_id]
        self._rebuild()
        return lost

    def _rebuild(self) -> None:
        """Lays the columns out anew: nodes come and go rarely, demands all the time."""
        foreign = {node: self._foreign_of(node) for node in self._row}
        nodes = list(self._resources.values())
        self._row = {node: row for row, node in enumerate(self._resources)}
        custom = sorted({name for node in nodes for name in node.custom_units})
        self._total = {
            CPUS: np.array([node.cpu_units for node in nodes], np.int64),
            MEMORY: np.array([node.memory_bytes for node in nodes], np.int64),
            **{name: np.array([node.custom_units.get(name, 0) for node in nodes], np.int64) for name in custom},
        }
        self._held = {dimension: np.zeros(len(nodes), np.int64) for dimension in self._total}
        self._foreign = {dimension: np.zeros(len(nodes), np.int64) for dimension in self._total}
        width = max((node.gpus for node in nodes), default=0)
        counts = np.array([node.gpus for node in nodes], np.int64).reshape(-1, 1)
        self._gpu_total = (np.arange(width) < counts).astype(np.int64) * UNITS
        self._gpu_held, self._gpu_foreign = np.zeros_like(self._gpu_total), np.zeros_like(self._gpu_total)
        for holding in self._holdings.values():
            self._book(holding, +1)
        for node, (amounts, gpus) in foreign.items():
            if node in self._row:
                self.set_foreign(node, amounts, gpus)

    def _foreign_of(self, node_id: str) -> tuple[dict[str, int], int]:
        row = self._row[node_id]
        return {name: int(column[row]) for name, column in self._foreign.items()}, int(self._gpu_foreign[row].sum())

    def cordon(self, node_id: str, cordoned: bool) -> None:
        """Nothing new is placed on a cordoned node; what is held there stays."""
        self._require(node_id)
        (self._cordoned.add if cordoned else self._cordoned.discard)(node_id)

    def set_foreign(self, node_id: str, amounts: Mapping[str, int], gpu_units: int) -> None:
        """What others use on the node. Ray tells only a sum for its GPUs: it is laid out as Ray lays work out."""
        row = self._require(node_id)
        for dimension, column in self._foreign.items():
            column[row] = max(amounts.get(dimension, 0), 0)
        free = self._gpu_total[row] - self._gpu_held[row]
        self._gpu_foreign[row] = _lay_out(free, max(gpu_units, 0))

    # -- columns, for policies and totals

    def total(self, dimension: str) -> Ints:
        """What each node has in all; zeros for a dimension that no node has."""
        return self._total.get(dimension, np.zeros(len(self._row), np.int64))

    def free(self, dimension: str) -> Ints:
        """What each node has left: never below zero, even while others use what we hold."""
        if dimension not in self._total:
            return np.zeros(len(self._row), np.int64)
        return (self._total[dimension] - self._held[dimension] - self._foreign[dimension]).clip(min=0)

    def held(self, dimension: str) -> Ints:
        """What each node has given to allocations."""
        return self._held.get(dimension, np.zeros(len(self._row), np.int64))

    @property
    def dimensions(self) -> tuple[str, ...]:
        return tuple(self._total)

    @property
    def gpu_total(self) -> Ints:
        """Matrix nodes by GPU index: 10,000 where there is such a GPU, else 0."""
        return self._gpu_total

    @property
    def gpu_free(self) -> Ints:
        """Matrix nodes by GPU index: the units free on each GPU."""
        return (self._gpu_total - self._gpu_held - self._gpu_foreign).clip(min=0)

    @property
    def gpu_held(self) -> Ints:
        return self._gpu_held

    # -- does it fit?

    def failures(self, demand: Demand, empty: bool = False) -> dict[str, Bools]:
        """For each condition of the demand: on which nodes it fails now, or would even on an empty fleet."""
        failed = {}
        for dimension, wanted in amounts_of(demand).items():
            failed[dimension] = (self.total(dimension) if empty else self.free(dimension)) < wanted
        if demand.gpu_count:
            gpus = self._gpu_total if empty else self.gpu_free
            fitting = ((gpus >= demand.gpu_units) & (self._gpu_total > 0)).sum(axis=1)
            failed["gpu_share" if demand.gpu_share is not None else "gpus"] = fitting < demand.gpu_count
        return failed | self._condition_failures(demand, empty)

    def _condition_failures(self, demand: Demand, empty: bool) -> dict[str, Bools]:
        failed = {}
        if demand.accelerator_type is not None:
            types = [node.accelerator_type for node in self._resources.values()]
            failed["accelerator_type"] = np.array([kind != demand.accelerator_type for kind in types], np.bool_)
        for label, text in sorted(demand.labels.items()):
            selector = LabelSelector.read(text)
            values = [node.labels.get(label) for node in self._resources.values()]
            failed[f"label {label}"] = np.array([not selector.matches(value) for value in values], np.bool_)
        if self._cordoned and not empty:
            failed["cordoned"] = np.array([node in self._cordoned for node in self._row], np.bool_)
        return failed

    def can_allocate(self, node_id: str, demand: Demand) -> bool:
        """Whether the demand fits the node now. Raises NotFound."""
        row = self._require(node_id)
        return not any(failed[row] for failed in self.failures(demand).values())

    def shortfalls(self, node_id: str, demand: Demand) -> list[Shortfall]:
        """Every condition of the demand that the node does not meet now. Raises NotFound."""
        row = self._require(node_id)
        return [
            Shortfall(dimension, *self._wanted_and_there(dimension, row, demand))
            for dimension, failed in self.failures(demand).items()
            if failed[row]
        ]

    def _wanted_and_there(self, dimension: str, row: int, demand: Demand) -> tuple[str, str]:
        node = self._resources[list(self._row)[row]]
        if dimension in ("gpus", "gpu_share"):
            free = self.gpu_free[row]
            whole = int((free >= UNITS).sum())
            largest = from_units(int(free.max(initial=0)))
            return (
                (f"{demand.gpus}", f"{whole}") if demand.gpus else (f"{demand.gpu_share:g}", f"{largest:g} on one GPU")
            )
        if dimension == "accelerator_type":
            return str(demand.accelerator_type), node.accelerator_type or "none"
        if dimension == "cordoned":
            return "an open node", "cordoned"
        if dimension.startswith("label "):
            label = dimension.removeprefix("label ")
            return demand.labels[label], node.labels.get(label, "no such label")
        wanted, free_amount = amounts_of(demand)[dimension], int(self.free(dimension)[row])
        if dimension == MEMORY:
            return format_bytes(wanted), format_bytes(free_amount)
        return f"{from_units(wanted):g}", f"{from_units(free_amount):g}"

    # -- giving and taking back

    def choose_gpus(self, node_id: str, demand: Demand) -> tuple[int, ...]:
        """The indices that Ray will pick: for a share the fullest GPU that fits it, else the lowest free ones."""
        if not demand.gpu_count:
            return ()
        free = self.gpu_free[self._require(node_id)]
        if demand.gpu_share is None:
            return tuple(int(index) for index in np.flatnonzero(free >= UNITS)[: demand.gpus])
        fitting = np.flatnonzero(free >= demand.gpu_units)
        return (int(fitting[np.argmin(free[fitting])]),) if fitting.size else ()

    def allocate(self, allocation_id: str, node_id: str, demand: Demand) -> tuple[int, ...]:
        """Gives the demand on the node to the allocation; the GPU indices. Raises NotFound, Conflict."""
        if allocation_id in self._holdings:
            raise Conflict(f"allocation {allocation_id} is held already")
        if not self.can_allocate(node_id, demand):
            short = "; ".join(map(str, self.shortfalls(node_id, demand)))
            raise Conflict(f"node {node_id} cannot take {demand}: {short}")
        holding = Holding(node_id, demand, self.choose_gpus(node_id, demand))
        self._holdings[allocation_id] = holding
        self._book(holding, +1)
        return holding.gpu_indices

    def restore(self, allocation_id: str, holding: Holding) -> None:
        """Books what an allocation already holds in Ray, whether or not it fits what is known of the node now."""
        if allocation_id in self._holdings:
            raise Conflict(f"allocation {allocation_id} is held already")
        self._require(holding.node_id)
        self._holdings[allocation_id] = holding
        self._book(holding, +1)

    def deallocate(self, allocation_id: str) -> None:
        """Takes back exactly what was given. Raises NotFound."""
        if allocation_id not in self._holdings:
            raise NotFound("allocation", allocation_id)
        self._book(self._holdings.pop(allocation_id), -1)

    def holds(self, allocation_id: str) -> bool:
        return allocation_id in self._holdings

    def _book(self, holding: Holding, sign: int) -> None:
        row = self._row[holding.node_id]
        for dimension, amount in amounts_of(holding.demand).items():
            if dimension in self._held:
                self._held[dimension][row] += sign * amount
                assert self._held[dimension][row] >= 0, f"{dimension} of {holding.node_id} freed twice"
        for index in holding.gpu_indices:
            if index < self._gpu_held.shape[1]:
                self._gpu_held[row, index] += sign * holding.demand.gpu_units
                assert self._gpu_held[row, index] >= 0, f"GPU {index} of {holding.node_id} freed twice"

    def _require(self, node_id: str) -> int:
        if node_id not in self._row:
            raise NotFound("node", node_id)
        return self._row[node_id]


def _lay_out(free: Ints, units: int) -> Ints:
    """Lays units of GPU onto one node's GPUs as Ray does: whole ones first, the rest on the fullest that fits."""
    used = np.zeros_like(free)
    for index in np.flatnonzero(free >= UNITS)[: units // UNITS]:
        used[index] = UNITS
    rest = units - int(used.sum())
    fitting = np.flatnonzero(free - used >= rest)
    if rest > 0 and fitting.size:
        used[fitting[np.argmin((free - used)[fitting])]] += rest
    elif rest > 0:
        used = np.minimum(free, used + rest)  # more small pieces than one GPU holds: count them everywhere they may be
    return used
