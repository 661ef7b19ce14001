"""Whether the ledger, Ray and the store say the same: who holds what, and what is free. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from noodle_ray.entry.bench.report import Row
from noodle_ray.placement.allocation import Allocation
from noodle_ray.resources import UNITS, Demand, NodeResources, to_units
from noodle_ray.store.changes import Document

Sort = Literal[
    "unsettled",
    "without_group",
    "group_without_allocation",
    "without_row",
    "row_without_allocation",
    "row_differs",
    "held_differs",
    "units_leaked",
]
BOOKED = ("reserving", "held", "releasing")
"""The states in which an allocation has amounts in the ledger."""

KEPT = ("state", "epoch", "bundles", "spare")
"""The fields of an allocation that say where it is: its row must have the same."""


@dataclass(frozen=True, slots=True)
class RaySide:
    """What Ray says. nodes: what those that are alive have in all; free: Ray's names → amounts that are free there.

    groups: our placement groups by name, and whether all of each is reserved.
    """

    nodes: Mapping[str, NodeResources]
    free: Mapping[str, Mapping[str, float]]
    groups: Mapping[str, bool]

    @property
    def used(self) -> dict[str, int]:
        """Units of CPU and GPU that are taken, by whomever, on nodes whose free amounts are known."""
        known = [(node, self.free[node_id]) for node_id, node in self.nodes.items() if node_id in self.free]
        return {
            "CPU": sum(node.cpu_units - to_units(free.get("CPU", 0.0)) for node, free in known),
            "GPU": sum(node.gpus * UNITS - to_units(free.get("GPU", 0.0)) for node, free in known),
        }


@dataclass(frozen=True, slots=True)
class Books:
    """All three. totals: the manager's; rows: the store's table of allocations.

    others: units that others used in Ray beside our allocations when all was well (see `used_by_others`).
    """

    allocations: Sequence[Allocation]
    totals: Mapping[str, Any]
    ray: RaySide
    rows: Mapping[str, Document]
    others: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing on which they disagree. name: the allocation, group, row or dimension."""

    sort: Sort
    name: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.sort.replace('_', ' ')}{f' ({self.detail})' if self.detail else ''}"


def used_by_others(allocations: Sequence[Allocation], ray: RaySide) -> dict[str, int]:
    """What Ray counts as taken beside our allocations, in units: to be asked before anything goes wrong."""
    ours = booked_units(allocations)
    return {dimension: used - ours[dimension] for dimension, used in ray.used.items()}


def differences(books: Books) -> list[Difference]:
    """Everything that is wrong, of a system that is at rest."""
    return [*_of_groups(books), *_of_rows(books), *_of_totals(books), *_leaks(books)]


def leaked_units(books: Books) -> int:
    """Units of CPU and GPU that the ledger or Ray holds for taken although no allocation has them, or the reverse."""
    return sum(abs(units) for _, units in _unowned(books))


def booked_units(allocations: Sequence[Allocation]) -> Counter[str]:
    """Units of CPU and GPU in all homes, second ones too."""
    booked: Counter[str] = Counter()
    for demand in _demands(allocations):
        booked["CPU"] += demand.cpu_units
        booked["GPU"] += demand.gpu_count * demand.gpu_units
    return booked


def rows_of(books: Books) -> list[Row]:
    """`leaked_units` and how much of each sort differs, each to be nothing."""
    found = Counter(one.sort for one in differences(books) if one.sort != "units_leaked")
    context: dict[str, str | int | float] = dict(found.items())
    return [
        Row(metric="leaked_units", value=leaked_units(books), unit="", goal=0),
        Row(metric="books_differ", value=found.total(), unit="", goal=0, context=context),
    ]


def _demands(allocations: Sequence[Allocation]) -> Iterator[Demand]:
    for one in allocations:
        if one.state in BOOKED:
            yield from (bundle.demand for bundle in (*one.bundles, *(one.spare.bundles if one.spare else ())))


def _of_groups(books: Books) -> Iterator[Difference]:
    owned = set[str]()
    for one in books.allocations:
        if one.state in ("reserving", "releasing"):
            yield Difference("unsettled", one.id, one.state)
        if one.state in BOOKED:
            owned |= {one.group, one.spare_group} - {""}
        if one.state == "held":
            yield from _lacking(one, books.ray.groups)
    for name in sorted(books.ray.groups.keys() - owned):
        yield Difference("group_without_allocation", name)


def _lacking(allocation: Allocation, groups: Mapping[str, bool]) -> Iterator[Difference]:
    spare = allocation.spare_group if allocation.spare and allocation.spare.ready else ""
    for name in (allocation.group, spare):
        if name and not groups.get(name, False):
            yield Difference(
                "without_group", allocation.id, f"{name} is {'not ready' if name in groups else 'not there'}"
            )


def _of_rows(books: Books) -> Iterator[Difference]:
    ours = {one.id: one.to_json() for one in books.allocations}
    for key in sorted(ours.keys() - books.rows.keys()):
        yield Difference("without_row", key, ours[key]["state"])
    for key in sorted(books.rows.keys() - ours.keys()):
        yield Difference("row_without_allocation", key, str(books.rows[key].get("state")))
    for key in sorted(ours.keys() & books.rows.keys()):
        other = [field for field in KEPT if books.rows[key].get(field) != ours[key][field]]
        if other:
            yield Difference("row_differs", key, ", ".join(other))


def _of_totals(books: Books) -> Iterator[Difference]:
    wanted: Counter[str] = Counter()
    for demand in _demands(books.allocations):
        wanted += Counter({"memory_bytes": demand.memory, **demand.custom_units})
    for dimension, amounts in sorted(books.totals.items()):
        if isinstance(amounts, Mapping) and dimension not in ("cpus", "gpus"):
            held = round(amounts["held"] * (1 if dimension == "memory_bytes" else UNITS))
            if held != wanted[dimension]:
                yield Difference("held_differs", dimension, f"{held} held, {wanted[dimension]} in allocations")


def _leaks(books: Books) -> Iterator[Difference]:
    for where, units in _unowned(books):
        if units:
            yield Difference("units_leaked", where, f"{units:+d} units")


def _unowned(books: Books) -> Iterator[tuple[str, int]]:
    """Where → units that are taken there and are nobody's."""
    booked = booked_units(books.allocations)
    for dimension, used in books.ray.used.items():
        yield f"{dimension} in Ray", used - booked[dimension] - books.others.get(dimension, 0)
    for dimension, name in (("CPU", "cpus"), ("GPU", "gpus")):
        held = books.totals.get(name, {}).get("held", 0.0)
        yield f"{dimension} in the ledger", to_units(held) - booked[dimension]
