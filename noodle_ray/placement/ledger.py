"""The ledger: who holds what of the fleet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from noodle_ray.errors import Conflict, NotFound
from noodle_ray.placement import gpu_rule
from noodle_ray.placement.allocation import Bundle
from noodle_ray.placement.columns import CPUS, MEMORY, Bools, Columns, Ints
from noodle_ray.placement.workload import DemandClass
from noodle_ray.resources import (
    ACCELERATOR_LABEL,
    UNITS,
    Demand,
    LabelSelector,
    NodeResources,
    Shortfall,
    format_bytes,
    from_units,
)

_ALL = slice(None)


def amounts_of(demand: Demand) -> dict[str, int]:
    """The demand's divisible dimensions, GPUs apart: dimension → amount in its own integer unit."""
    wanted = {CPUS: demand.cpu_units, MEMORY: demand.memory, **demand.custom_units}
    return {dimension: amount for dimension, amount in wanted.items() if amount}


class ResourcePool:
    """Free and held amounts of every node. It never gives out what is not free, and takes back exactly what it gave.

    An allocation holds one or several bundles. What others use beside us is kept apart (`set_foreign`) and counts as
    used. The amounts are in `columns`, for policies to read; only the pool changes them.
    """

    def __init__(self) -> None:
        self.columns = Columns()
        self._holdings: dict[str, tuple[Bundle, ...]] = {}
        self._on_node: dict[str, set[str]] = {}
        self._key_of: dict[str, str] = {}
        self._apart: dict[str, Counter[str]] = {}
        self._alike: dict[tuple[int, int], Counter[str]] = {}
        self._cordoned: set[str] = set()
        self._earmarks: dict[str, str] = {}

    # -- the fleet

    @property
    def node_ids(self) -> tuple[str, ...]:
        """The nodes, in the order of the columns' rows."""
        return tuple(self.columns.ids)

    def has_node(self, node_id: str) -> bool:
        return node_id in self.columns.row

    def add_node(self, node_id: str, resources: NodeResources) -> None:
        """Adds an empty node. Raises Conflict where it is known already."""
        self.columns.add(node_id, resources)
        self._on_node[node_id] = set()

    def remove_node(self, node_id: str) -> tuple[str, ...]:
        """Takes the node out, and frees all bundles of each allocation that held some of it; gives their ids."""
        self.columns.require(node_id)
        lost = tuple(sorted(self._on_node[node_id]))
        for allocation_id in lost:
            self.deallocate(allocation_id)
        self._cordoned.discard(node_id)
        self._earmarks.pop(node_id, None)
        del self._on_node[node_id]
        self.columns.remove(node_id)
        return lost

    def relabel(self, node_id: str, labels: Mapping[str, str]) -> None:
        """The node's labels are these from now on; what is held there stays. Raises NotFound."""
        self.columns.relabel(self.columns.require(node_id), labels)

    def cordon(self, node_id: str, cordoned: bool) -> None:
        """Nothing new is placed on a cordoned node; what is held there stays."""
        row = self.columns.require(node_id)
        (self._cordoned.add if cordoned else self._cordoned.discard)(node_id)
        self.columns.set_open(row, not cordoned)

    def earmark(self, node_ids: Sequence[str], allocation_id: str | None) -> None:
        """Keeps what becomes free on the nodes for one waiting request (None: for nobody any more)."""
        for node_id in node_ids:
            self.columns.require(node_id)
            if allocation_id is None:
                self._earmarks.pop(node_id, None)
            else:
                self._earmarks[node_id] = allocation_id

    @property
    def earmarks(self) -> Mapping[str, str]:
        """Node → the waiting request that it is kept for."""
        return self._earmarks

    def set_foreign(self, node_id: str, amounts: Mapping[str, int], gpu_units: int) -> None:
        """What others use on the node. Ray tells only a sum for its GPUs: it is laid out as Ray lays work out."""
        row = self.columns.require(node_id)
        free = self.columns.gpus("total")[row] - self.columns.gpus("held")[row]
        self.columns.set_foreign(row, dict(amounts), gpu_rule.lay_out(free, max(gpu_units, 0)))

    # -- columns, for totals and tests

    def total(self, dimension: str) -> Ints:
        """What each node has in all; zeros for a dimension that no node has."""
        return self.columns.amounts("total", dimension)

    def free(self, dimension: str) -> Ints:
        """What each node has left: never below zero, even while others use what we hold."""
        return self.columns.amounts("free", dimension)

    def held(self, dimension: str) -> Ints:
        """What each node has given to allocations."""
        return self.columns.amounts("held", dimension)

    @property
    def dimensions(self) -> tuple[str, ...]:
        return self.columns.dimensions

    @property
    def gpu_total(self) -> Ints:
        """Matrix nodes by GPU index: 10,000 where there is such a GPU, else 0."""
        return self.columns.gpus("total")

    @property
    def gpu_free(self) -> Ints:
        """Matrix nodes by GPU index: the units free on each GPU."""
        return self.columns.gpus("free")

    @property
    def gpu_held(self) -> Ints:
        return self.columns.gpus("held")

    # -- does it fit?

    def failures(
        self,
        demand: Demand,
        empty: bool = False,
        anti_affinity: str | None = None,
        for_id: str = "",
        rows: slice = _ALL,
    ) -> dict[str, Bools]:
        """For each condition of the demand: on which rows it fails now, or would even on an empty fleet."""
        failed = self.amount_failures(demand, empty, rows) | self.custom_failures(demand, empty, rows)
        return failed | self.special_failures(demand, empty, anti_affinity, for_id, rows)

    def amount_failures(self, demand: Demand, empty: bool = False, rows: slice = _ALL) -> dict[str, Bools]:
        """The conditions that most demands have: CPUs, memory, GPUs and their type."""
        wanted = {CPUS: demand.cpu_units, MEMORY: demand.memory}
        failed = {name: self._too_little(name, amount, empty, rows) for name, amount in wanted.items() if amount}
        if demand.gpu_count:
            failed["gpu_share" if demand.gpu_share is not None else "gpus"] = self._gpu_failures(demand, empty, rows)
        if demand.accelerator_type is not None or ACCELERATOR_LABEL in demand.labels:
            failed["accelerator_type"] = ~self.kind_matches(demand)[self.columns.vector("kind")[rows]]
        return failed

    def custom_failures(self, demand: Demand, empty: bool = False, rows: slice = _ALL) -> dict[str, Bools]:
        """The custom resources of the demand: on which rows there is too little of each."""
        wanted = {name: units for name, units in demand.custom_units.items() if units}
        return {name: self._too_little(name, units, empty, rows) for name, units in wanted.items()}

    def _too_little(self, dimension: str, wanted: int, empty: bool, rows: slice) -> Bools:
        there = self.total(dimension) if empty else self.free(dimension)
        return np.asarray(there[rows] < wanted, np.bool_)

    def _gpu_failures(self, demand: Demand, empty: bool, rows: slice) -> Bools:
        if empty:
            return self.columns.vector("gpu_count")[rows] < demand.gpu_count
        if demand.gpu_share is not None:
            return self.columns.vector("gpu_largest")[rows] < demand.gpu_units
        return self.columns.vector("gpu_whole")[rows] < demand.gpus

    def kind_matches(self, demand: Demand) -> Bools:
        """For each accelerator type of the fleet (see `Columns.kinds`) whether the demand may run on it."""
        wanted = DemandClass.of(demand)
        return np.array([wanted.runs_on(kind) for kind in self.columns.kinds], np.bool_)

    def special_failures(
        self,
        demand: Demand,
        empty: bool = False,
        anti_affinity: str | None = None,
        for_id: str = "",
        rows: slice = _ALL,
    ) -> dict[str, Bools]:
        """The conditions that few demands have: labels, closed nodes, company that is not wanted."""
        failed: dict[str, Bools] = {}
        for label, text in sorted(demand.labels.items()):
            if label != ACCELERATOR_LABEL:
                failed[f"label {label}"] = ~self.columns.label_matches(label, LabelSelector.read(text))[rows]
        if empty:
            return failed
        closed = {
            "cordoned": self._cordoned,
            "anti_affinity": self._apart.get(anti_affinity or "", ()),
            "earmarked": [node for node, owner in self._earmarks.items() if owner != for_id],
        }
        return failed | {name: self.rows_of(nodes)[rows] for name, nodes in closed.items() if nodes}

    def rows_of(self, node_ids: object) -> Bools:
        """A column that is true for these nodes; ids that are no nodes are passed over."""
        column = np.zeros(len(self.columns), np.bool_)
        column[[self.columns.row[node] for node in node_ids if node in self.columns.row]] = True  # type: ignore[attr-defined]
        return column

    def can_allocate(self, node_id: str, demand: Demand) -> bool:
        """Whether the demand fits the node now. Raises NotFound."""
        return not any(failed[0] for failed in self._failures_on(self.columns.require(node_id), demand).values())

    def _failures_on(self, row: int, demand: Demand) -> dict[str, Bools]:
        return self.failures(demand, rows=slice(row, row + 1))

    def shortfalls(self, node_id: str, demand: Demand) -> list[Shortfall]:
        """Every condition of the demand that the node does not meet now. Raises NotFound."""
        row = self.columns.require(node_id)
        return [
            Shortfall(dimension, *self._wanted_and_there(dimension, row, demand))
            for dimension, failed in self._failures_on(row, demand).items()
            if failed[0]
        ]

    def _wanted_and_there(self, dimension: str, row: int, demand: Demand) -> tuple[str, str]:
        node = self.columns.resources(row)
        if dimension in ("gpus", "gpu_share"):
            free = self.gpu_free[row]
            whole = int((free >= UNITS).sum())
            largest = from_units(int(free.max(initial=0)))
            return (
                (f"{demand.gpus}", f"{whole}") if demand.gpus else (f"{demand.gpu_share:g}", f"{largest:g} on one GPU")
            )
        if dimension == "accelerator_type":
            wanted_type = demand.accelerator_type or demand.labels[ACCELERATOR_LABEL]
            return wanted_type, node.accelerator_type or "none"
        if dimension in ("cordoned", "earmarked"):
            return "an open node", dimension
        if dimension.startswith("label "):
            label = dimension.removeprefix("label ")
            return demand.labels[label], node.labels.get(label, "no such label")
        wanted, free_amount = amounts_of(demand)[dimension], int(self.free(dimension)[row])
        if dimension == MEMORY:
            return format_bytes(wanted), format_bytes(free_amount)
        return f"{from_units(wanted):g}", f"{from_units(free_amount):g}"

    def alike(self, demand: Demand) -> Ints:
        """How many bundles each node holds that ask for the same of a GPU, or of as many."""
        column = np.zeros(len(self.columns), np.int64)
        for node_id, count in self._alike.get((demand.gpu_units, demand.gpu_count), Counter()).items():
            column[self.columns.row[node_id]] = count
        return column

    # -- giving and taking back

    def choose_gpus(self, node_id: str, demand: Demand) -> tuple[int, ...]:
        """The indices that Ray will pick for the demand on this node."""
        return gpu_rule.pick(self.gpu_free[self.columns.require(node_id)], demand)

    def allocate(
        self, allocation_id: str, wanted: Sequence[tuple[str, Demand]], anti_affinity: str | None = None
    ) -> tuple[Bundle, ...]:
        """Gives each (node, demand) to the allocation, all or nothing. Raises NotFound, Conflict."""
        if allocation_id in self._holdings:
            raise Conflict(f"allocation {allocation_id} is held already")
        given: list[Bundle] = []
        try:
            for node_id, demand in wanted:
                given.append(self._give(node_id, demand))
        except (Conflict, NotFound):
            for bundle in given:
                self._book(bundle, -1)
            raise
        self._note(allocation_id, tuple(given), anti_affinity)
        return tuple(given)

    def _give(self, node_id: str, demand: Demand) -> Bundle:
        row = self.columns.require(node_id)
        if any(failed[0] for name, failed in self._failures_on(row, demand).items() if name != "earmarked"):
            short = "; ".join(map(str, self.shortfalls(node_id, demand)))
            raise Conflict(f"node {node_id} cannot take {demand}: {short}")
        bundle = Bundle(demand=demand, node_id=node_id, gpu_indices=self.choose_gpus(node_id, demand))
        self._book(bundle, +1)
        return bundle

    def restore(self, allocation_id: str, bundles: Sequence[Bundle], anti_affinity: str | None = None) -> None:
        """Books what an allocation already holds in Ray, whether or not it fits what is known of the nodes now."""
        if allocation_id in self._holdings:
            raise Conflict(f"allocation {allocation_id} is held already")
        for bundle in bundles:
            self.columns.require(bundle.node_id)
        for bundle in bundles:
            self._book(bundle, +1)
        self._note(allocation_id, tuple(bundles), anti_affinity)

    def _note(self, allocation_id: str, bundles: tuple[Bundle, ...], anti_affinity: str | None) -> None:
        self._holdings[allocation_id] = bundles
        nodes = {bundle.node_id for bundle in bundles}
        for node_id in nodes:
            self._on_node[node_id].add(allocation_id)
        if anti_affinity is not None:
            self._key_of[allocation_id] = anti_affinity
            self._apart.setdefault(anti_affinity, Counter()).update(nodes)

    def deallocate(self, allocation_id: str) -> None:
        """Takes back exactly what was given. Raises NotFound."""
        bundles = self.bundles(allocation_id)
        del self._holdings[allocation_id]
        for bundle in bundles:
            self._book(bundle, -1)
        nodes = {bundle.node_id for bundle in bundles}
        for node_id in nodes:
            self._on_node[node_id].discard(allocation_id)
        key = self._key_of.pop(allocation_id, None)
        if key is not None:
            self._apart[key] -= Counter(nodes)
            if not self._apart[key]:
                del self._apart[key]

    def rename(self, allocation_id: str, new_id: str) -> None:
        """What is held under one id is held under another from now on. Raises NotFound, Conflict."""
        bundles, key = self.bundles(allocation_id), self._key_of.get(allocation_id)
        if new_id in self._holdings:
            raise Conflict(f"allocation {new_id} is held already")
        self.deallocate(allocation_id)
        self.restore(new_id, bundles, key)

    def correct_gpus(self, allocation_id: str, bundle: int, gpu_indices: tuple[int, ...]) -> None:
        """Books a bundle onto the GPUs that Ray really gave it. Raises NotFound."""
        bundles = list(self.bundles(allocation_id))
        moved = bundles[bundle].model_copy(update={"gpu_indices": gpu_indices})
        self._book(bundles[bundle], -1)
        self._book(moved, +1)
        bundles[bundle] = moved
        self._holdings[allocation_id] = tuple(bundles)

    def holds(self, allocation_id: str) -> bool:
        return allocation_id in self._holdings

    def on_node(self, node_id: str) -> list[str]:
        """The allocations that hold something there. Raises NotFound."""
        self.columns.require(node_id)
        return sorted(self._on_node[node_id])

    def bundles(self, allocation_id: str) -> tuple[Bundle, ...]:
        """What the allocation holds. Raises NotFound."""
        if allocation_id not in self._holdings:
            raise NotFound("allocation", allocation_id)
        return self._holdings[allocation_id]

    def _book(self, bundle: Bundle, sign: int) -> None:
        row, demand = self.columns.row[bundle.node_id], bundle.demand
        self.columns.book(row, amounts_of(demand), bundle.gpu_indices, demand.gpu_units, sign)
        alike = self._alike.setdefault((demand.gpu_units, demand.gpu_count), Counter())
        alike[bundle.node_id] += sign
        if not alike[bundle.node_id]:
            del alike[bundle.node_id]
