"""An overview: how full every node is, what is fragmented, and who waits, as a person watches it."""

from __future__ import annotations

import numpy as np

from noodle_ray.base_model import Model
from noodle_ray.nodes.figures import Sums, allocation_ratio, sums
from noodle_ray.nodes.membership import Health, Node
from noodle_ray.nodes.snapshot import Snapshot
from noodle_ray.placement.columns import CPUS, MEMORY, Columns
from noodle_ray.placement.fragmentation import unusable
from noodle_ray.placement.prices import Floats
from noodle_ray.resources import UNITS


class Use(Model):
    """How much there is of something, how much of it allocations hold, and how much others use beside them."""

    total: float
    held: float
    others: float


class NodeLoad(Model):
    """One node. Memory in bytes; `gpus` by index, each with a total of 1. `fragmented_gpus`: free, but unusable."""

    id: str
    name: str
    state: Health
    cordoned: bool
    draining: bool
    kept_for: str | None
    accelerator_type: str | None
    pretended: bool
    cpus: Use
    memory_bytes: Use
    gpus: tuple[Use, ...]
    fragmented_gpus: float
    cpu_used_ratio: float | None
    memory_used_ratio: float | None


class Waiting(Model):
    """One that waits, since `waits_s` seconds; `kept`: the nodes that are kept for it."""

    id: str
    position: int
    priority: int
    waits_s: float
    request: str
    waits_for: str
    owner: str
    kept: tuple[str, ...]


class Overview(Model):
    """The cluster at a time, in seconds since 1970."""

    at: float
    nodes: tuple[NodeLoad, ...]
    totals: Sums
    allocation_ratio: float
    fragmented_gpus: float
    queue: tuple[Waiting, ...]

    @classmethod
    def of(cls, snapshot: Snapshot) -> Overview:
        fragmented = unusable(snapshot.pool, snapshot.workload)
        by_name = sorted(snapshot.nodes, key=lambda node: (node.name, node.id))
        return cls(
            at=snapshot.at,
            nodes=tuple(_load(snapshot, node, fragmented) for node in by_name),
            totals=sums(snapshot.pool),
            allocation_ratio=allocation_ratio(snapshot.pool),
            fragmented_gpus=float(fragmented.sum()),
            queue=_queue(snapshot),
        )


def _load(snapshot: Snapshot, node: Node, fragmented: Floats) -> NodeLoad:
    columns = snapshot.pool.columns
    row = columns.row.get(node.id)
    return NodeLoad(
        id=node.id,
        name=node.name,
        state=node.state,
        cordoned=node.cordoned,
        draining=node.drain_until is not None,
        kept_for=snapshot.pool.earmarks.get(node.id),
        accelerator_type=node.resources.accelerator_type,
        pretended=node.pretended,
        cpus=_use(columns, CPUS, row, UNITS),
        memory_bytes=_use(columns, MEMORY, row, 1),
        gpus=() if row is None else _gpus(columns, row),
        fragmented_gpus=0.0 if row is None else float(fragmented[row]),
        cpu_used_ratio=node.metrics.cpu_used_ratio if node.metrics else None,
        memory_used_ratio=node.metrics.memory_used_ratio if node.metrics else None,
    )


def _use(columns: Columns, dimension: str, row: int | None, unit: int) -> Use:
    """Nothing of a node that is not in the ledger: a dead one."""
    if row is None:
        return Use(total=0, held=0, others=0)
    total, held, others = (int(columns.amounts(part, dimension)[row]) for part in ("total", "held", "foreign"))
    return Use(total=total / unit, held=held / unit, others=others / unit)


def _gpus(columns: Columns, row: int) -> tuple[Use, ...]:
    held, others = columns.gpus("held")[row] / UNITS, columns.gpus("foreign")[row] / UNITS
    there = np.flatnonzero(columns.gpus("total")[row])
    return tuple(Use(total=1, held=float(held[index]), others=float(others[index])) for index in there)


def _queue(snapshot: Snapshot) -> tuple[Waiting, ...]:
    names = snapshot.names
    return tuple(
        Waiting(
            id=one.id,
            position=position,
            priority=one.priority,
            waits_s=max(snapshot.at - one.created_at, 0.0),
            request=str(one.request),
            waits_for=one.waits_for,
            owner=one.owner,
            kept=tuple(names.get(node, node) for node in snapshot.kept_for(one.id)),
        )
        for position, one in enumerate(snapshot.waiting, start=1)
    )
