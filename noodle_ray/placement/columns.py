"""The fleet as columns: one row a node, one array a property, with a log of the rows that changed."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from noodle_ray.errors import Conflict, NotFound
from noodle_ray.resources import UNITS, LabelSelector, NodeResources

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
T = TypeVar("T")

CPUS, MEMORY = "cpus", "memory"

_GPU_MARKS: list[int] = [0, *np.random.default_rng(0).integers(1, 2**40, UNITS).tolist()]
"""A number for each free amount of a GPU: their sum tells nodes' states apart, whatever the order of the GPUs.

0 for nothing free, so that the columns of GPUs that a node does not have count for nothing.
"""


class Columns:
    """Amounts of every node as integers: CPUs and custom resources in 1/10,000, memory in bytes.

    GPUs are a matrix, one column an index, in 1/10,000 of a GPU. Rows are dense; removing a node moves the last row
    into its place. Every change of a row is appended to `changes`, so that whoever keeps figures per row knows which
    to compute anew.
    """

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.row: dict[str, int] = {}
        self.kinds: list[str] = [""]
        """Accelerator types; `kind` has each node's index in here, 0 for none."""
        self.changes = ChangeLog()
        self._free_by_kind = [0]
        self._resources: list[NodeResources] = []
        self._marks: list[int] = []
        self._labels: dict[str, _LabelColumn] = {}
        self._open = np.zeros(0, np.bool_)
        self._vectors: dict[str, Ints] = {name: np.zeros(0, np.int64) for name in _ROW_COLUMNS}
        self._amounts: dict[str, dict[str, Ints]] = {part: {} for part in _PARTS}
        for dimension in (CPUS, MEMORY):
            self._add_dimension(dimension)
        self._gpus: dict[str, Ints] = {part: np.zeros((0, 1), np.int64) for part in _PARTS}

    def __len__(self) -> int:
        return len(self.ids)

    # -- reading

    def require(self, node_id: str) -> int:
        """The node's row. Raises NotFound."""
        if node_id not in self.row:
            raise NotFound("node", node_id)
        return self.row[node_id]

    def resources(self, row: int) -> NodeResources:
        return self._resources[row]

    @property
    def dimensions(self) -> tuple[str, ...]:
        return tuple(self._amounts["total"])

    def amounts(self, part: str, dimension: str) -> Ints:
        """`part` is total, held, foreign or free; zeros for a dimension that no node has."""
        column = self._amounts[part].get(dimension)
        return np.zeros(len(self), np.int64) if column is None else column[: len(self)]

    def gpus(self, part: str) -> Ints:
        """Matrix nodes by GPU index; 0 where a node has no such GPU."""
        return self._gpus[part][: len(self)]

    def vector(self, name: str) -> Ints:
        """One number a row: gpu_count, gpu_largest and gpu_whole (of what is free), kind, state and tie.

        Rows with the same `state`, free CPUs and free memory are alike in everything but labels and id; `tie` is a
        hash of the id.
        """
        return self._vectors[name][: len(self)]

    @property
    def open(self) -> Bools:
        """Whether something new may be placed there."""
        return self._open[: len(self)]

    @property
    def gpu_free_by_kind(self) -> Ints:
        """Units of GPU that are free on each kind."""
        return np.array(self._free_by_kind, np.int64)

    def label_matches(self, label: str, selector: LabelSelector) -> Bools:
        """For each row whether its label satisfies the selector."""
        if label not in self._labels:
            self._labels[label] = _LabelColumn.of(resources.labels.get(label) for resources in self._resources)
        return self._labels[label].matches(selector)

    # -- nodes

    def add(self, node_id: str, resources: NodeResources) -> int:
        """Appends an empty, open node; its row. Raises Conflict where it is known."""
        if node_id in self.row:
            raise Conflict(f"node {node_id} is in the ledger already")
        self._make_room(resources)
        row = len(self.ids)
        self.ids.append(node_id)
        self.row[node_id] = row
        self._resources.append(resources)
        for label, column in self._labels.items():
            column.append(resources.labels.get(label))
        self._write_totals(row, resources)
        self._vectors["kind"][row] = self._kind_of(resources.accelerator_type or "")
        self._vectors["tie"][row] = _hash(node_id)
        self._marks.append(
            _hash(repr((resources.accelerator_type or "", resources.gpus, sorted(_totals_of(resources).items()))))
        )
        self._open[row] = True
        self.refresh(row)
        return row

    def remove(self, node_id: str) -> None:
        """Takes the node out; the last row moves into its place. Raises NotFound."""
        row, last = self.require(node_id), len(self.ids) - 1
        self._free_by_kind[self._vectors["kind"][row]] -= int(self._gpus["free"][row].sum())
        for column in self._all_arrays():
            column[row] = column[last]
            column[last] = 0
        for labels in self._labels.values():
            labels.move_last_to(row)
        _move_last(self.ids, row)
        _move_last(self._resources, row)
        _move_last(self._marks, row)
        if row < last:
            self.row[self.ids[row]] = row
        del self.row[node_id]
        self.changes.append(row)

    def relabel(self, row: int, labels: Mapping[str, str]) -> None:
        """The node's labels are these from now on."""
        self._resources[row] = dataclasses.replace(self._resources[row], labels=dict(labels))
        for label, column in self._labels.items():
            column.set(row, labels.get(label))

    def set_open(self, row: int, is_open: bool) -> None:
        self._open[row] = is_open

    def _write_totals(self, row: int, resources: NodeResources) -> None:
        for dimension, amount in _totals_of(resources).items():
            self._amounts["total"][dimension][row] = amount
        self._gpus["total"][row, : resources.gpus] = UNITS
        self._vectors["gpu_count"][row] = resources.gpus

    def _kind_of(self, accelerator_type: str) -> int:
        if accelerator_type not in self.kinds:
            self.kinds.append(accelerator_type)
            self._free_by_kind.append(0)
        return self.kinds.index(accelerator_type)

    def _all_arrays(self) -> Iterable[npt.NDArray[np.generic]]:
        yield from self._vectors.values()
        yield from self._gpus.values()
        yield self._open
        for columns in self._amounts.values():
            yield from columns.values()

    def _make_room(self, resources: NodeResources) -> None:
        """Doubles the arrays when they are full; a GPU index or a resource that is new gets its column."""
        rows, width = self._gpus["total"].shape
        wanted_rows = max(16, 2 * rows) if len(self.ids) == rows else rows
        wanted_width = max(width, resources.gpus)
        if (wanted_rows, wanted_width) != (rows, width):
            grow = (0, wanted_rows - rows)
            self._gpus = {part: np.pad(array, (grow, (0, wanted_width - width))) for part, array in self._gpus.items()}
            self._vectors = {name: np.pad(array, grow) for name, array in self._vectors.items()}
            self._open = np.pad(self._open, grow)
            self._amounts = {
                part: {name: np.pad(array, grow) for name, array in columns.items()}
                for part, columns in self._amounts.items()
            }
        for dimension in resources.custom_units:
            if dimension not in self._amounts["total"]:
                self._add_dimension(dimension)

    def _add_dimension(self, dimension: str) -> None:
        for columns in self._amounts.values():
            columns[dimension] = np.zeros(len(self._open), np.int64)

    # -- amounts

    def book(self, row: int, amounts: dict[str, int], gpu_indices: Sequence[int], gpu_units: int, sign: int) -> None:
        """Adds to what is held there, or (sign -1) takes it back."""
        known = {dimension: amount for dimension, amount in amounts.items() if dimension in self._amounts["held"]}
        for dimension, amount in known.items():
            column = self._amounts["held"][dimension]
            column[row] += sign * amount
            assert column[row] >= 0, f"{dimension} of {self.ids[row]} freed twice"
        held = self._gpus["held"]
        for index in gpu_indices:
            if index < held.shape[1]:
                held[row, index] += sign * gpu_units
                assert held[row, index] >= 0, f"GPU {index} of {self.ids[row]} freed twice"
        self._refresh_amounts(row, known)
        if gpu_indices:
            self._refresh_gpus(row)
        if gpu_indices or not known.keys() <= _PLAIN:
            self._vectors["state"][row] = self._state(row)
        self.changes.append(row)

    def set_foreign(self, row: int, amounts: dict[str, int], gpus: Ints) -> None:
        """What others use on the node, GPUs by index."""
        for dimension, column in self._amounts["foreign"].items():
            column[row] = max(amounts.get(dimension, 0), 0)
        self._gpus["foreign"][row, : len(gpus)] = gpus
        self.refresh(row)

    def refresh(self, row: int) -> None:
        """Computes what is free (never below zero, even while others use what we hold) and what follows from it."""
        self._refresh_amounts(row, self._amounts["free"])
        self._refresh_gpus(row)
        self._vectors["state"][row] = self._state(row)
        self.changes.append(row)

    def _refresh_amounts(self, row: int, dimensions: Iterable[str]) -> None:
        total, held, foreign, free = (self._amounts[part] for part in _PARTS)
        for dimension in dimensions:
            left = int(total[dimension][row]) - int(held[dimension][row]) - int(foreign[dimension][row])
            free[dimension][row] = max(left, 0)

    def _refresh_gpus(self, row: int) -> None:
        # Plain numbers: on so few, numpy's calls would take ten times as long.
        total, held, foreign, before = (self._gpus[part][row].tolist() for part in _PARTS)
        left = [max(t - h - f, 0) for t, h, f in zip(total, held, foreign, strict=True)]
        self._free_by_kind[self._vectors["kind"][row]] += sum(left) - sum(before)
        self._gpus["free"][row] = left
        self._vectors["gpu_largest"][row] = max(left)
        self._vectors["gpu_whole"][row] = left.count(UNITS)

    def _state(self, row: int) -> int:
        custom = (
            _hash(name) * int(column[row]) for name, column in self._amounts["free"].items() if name not in _PLAIN
        )
        gpus = (_GPU_MARKS[amount] for amount in self._gpus["free"][row].tolist())
        return int(self._marks[row] + sum(gpus) + sum(custom)) % 2**62


_PARTS = ("total", "held", "foreign", "free")
_PLAIN = frozenset({CPUS, MEMORY})
_ROW_COLUMNS = ("gpu_count", "gpu_largest", "gpu_whole", "kind", "state", "tie")


def _totals_of(resources: NodeResources) -> dict[str, int]:
    """All that a node has in all, GPUs apart."""
    return {CPUS: resources.cpu_units, MEMORY: resources.memory_bytes, **resources.custom_units}


def _move_last(listed: list[T], place: int) -> None:
    """Fills a place with the last of the list, which gets shorter by one."""
    listed[place] = listed[-1]
    listed.pop()


@functools.lru_cache(1 << 16)
def _hash(text: str) -> int:
    """A number from a text, the same on every run."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 2


class ChangeLog:
    """Rows in the order in which they changed. Readers keep the position up to which they have read."""

    KEPT = 1 << 16

    def __init__(self) -> None:
        self._rows = np.zeros(2 * self.KEPT, np.int64)
        self._count = 0
        self._dropped = 0

    @property
    def position(self) -> int:
        return self._dropped + self._count

    def append(self, row: int) -> None:
        if self._count == len(self._rows):
            self._rows[: self.KEPT] = self._rows[self.KEPT :]
            self._count -= self.KEPT
            self._dropped += self.KEPT
        self._rows[self._count] = row
        self._count += 1

    def since(self, position: int, length: int) -> Ints | None:
        """The rows below `length` that changed since then, each once; None where that is not known any more."""
        if position < self._dropped:
            return None
        changed = np.zeros(length, np.bool_)
        rows = self._rows[position - self._dropped : self._count]
        changed[rows[rows < length]] = True
        return np.flatnonzero(changed)


class _LabelColumn:
    """One label of every node, as numbers that stand for its values."""

    def __init__(self) -> None:
        self._numbers: dict[str | None, int] = {}
        self._column: list[int] = []
        self._array: Ints | None = None

    @classmethod
    def of(cls, values: Iterable[str | None]) -> _LabelColumn:
        column = cls()
        for value in values:
            column.append(value)
        return column

    def append(self, value: str | None) -> None:
        self._column.append(self._numbers.setdefault(value, len(self._numbers)))
        self._array = None

    def set(self, row: int, value: str | None) -> None:
        self._column[row] = self._numbers.setdefault(value, len(self._numbers))
        self._array = None

    def move_last_to(self, row: int) -> None:
        _move_last(self._column, row)
        self._array = None

    def matches(self, selector: LabelSelector) -> Bools:
        table = np.fromiter((selector.matches(value) for value in self._numbers), np.bool_, len(self._numbers))
        if self._array is None:
            self._array = np.array(self._column, np.int64)
        return table[self._array] if self._column else np.zeros(0, np.bool_)
