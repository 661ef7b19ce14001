"""Scaling: which nodes an autoscaler could still launch, and what the cluster must be able to hold, as one request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from noodle_ray.placement.allocation import Allocation
from noodle_ray.placement.columns import CPUS, MEMORY
from noodle_ray.placement.earmarking import fits_when_empty
from noodle_ray.placement.ledger import ResourcePool
from noodle_ray.placement.request import Request
from noodle_ray.resources import ACCELERATOR_LABEL, UNITS, Demand, NodeResources, from_units

ASK_AFTER_S = 1.0
"""A request that waits less than this is met by what is released; it is not worth a node."""

ASK_AGAIN_S = 10.0
"""How often the same is asked for again: Ray's head keeps it in memory only, and another's request replaces it."""


@dataclass(frozen=True, slots=True)
class NodeType:
    """A kind of node that the autoscaler may launch, at most so many at once."""

    name: str
    resources: NodeResources
    max_workers: int


@dataclass(frozen=True, slots=True)
class Room:
    """Room on one node that is asked for: Ray's amounts, and the labels that the node must have (Ray's selectors)."""

    amounts: Mapping[str, float]
    labels: Mapping[str, str]


class Scaling:
    """What was asked of the autoscaler. `types` are the nodes that it may launch; none where there is no autoscaler."""

    def __init__(self) -> None:
        self.types: tuple[NodeType, ...] = ()
        self._asked_for: tuple[Room, ...] = ()
        self._asked_at = 0.0

    def forget_what_was_asked(self) -> None:
        """Something was asked by another: it is to be asked anew, or taken back."""
        self._asked_for = (Room({}, {}),)

    def could_launch(self, request: Request, fleet: Iterable[tuple[str, NodeResources]]) -> bool:
        """Whether the request would fit an empty fleet that is grown by every node that may be launched."""
        return could_launch(request, fleet, self.types)

    def ask(self, waiting: Sequence[Allocation], pool: ResourcePool, now: float) -> tuple[Room, ...] | None:
        """What to ask for now: None when that is what was asked already, and not long ago."""
        patient = [allocation for allocation in waiting if now - allocation.created_at >= ASK_AFTER_S]
        rooms = wanted_room(patient, pool) if patient else ()
        if rooms == self._asked_for and (not rooms or now - self._asked_at < ASK_AGAIN_S):
            return None
        self._asked_for, self._asked_at = rooms, now
        return rooms


def could_launch(request: Request, fleet: Iterable[tuple[str, NodeResources]], types: Sequence[NodeType]) -> bool:
    """Whether the request would fit an empty fleet that is grown by every node that may be launched."""
    if not types:
        return False
    pool = ResourcePool()
    for node_id, resources in fleet:
        pool.add_node(node_id, resources)
    for kind in types:
        for number in range(min(kind.max_workers, len(request.bundles))):
            pool.add_node(f"{kind.name} {number}", kind.resources)
    return fits_when_empty(request, pool)


def wanted_room(waiting: Sequence[Allocation], pool: ResourcePool) -> tuple[Room, ...]:
    """All that the cluster must be able to hold: what is used on each node now, and what waits.

    Ray is told totals, not what is missing: without what is used, it would find room on nodes that are full.
    """
    smallest = min((d.gpu_units for a in waiting for d in a.request.bundles if d.gpu_count), default=0)
    used = [_used(pool, node_id, smallest) for node_id in pool.node_ids]
    rooms = [room for allocation in waiting for room in _rooms(allocation.request)]
    return (*(Room(amounts, {}) for amounts in used if amounts), *rooms)


def _used(pool: ResourcePool, node_id: str, smallest: int) -> dict[str, float]:
    """What is not free on a node. A GPU that is too full for any that wait counts as a whole one."""
    row = pool.columns.require(node_id)
    used = {name: int(pool.total(name)[row] - pool.free(name)[row]) for name in pool.dimensions}
    gpus = sum(
        UNITS if left < smallest else UNITS - left
        for left, total in zip(pool.gpu_free[row].tolist(), pool.gpu_total[row].tolist(), strict=True)
        if total
    )
    amounts = {_rays_name(name): _rays_amount(name, units) for name, units in used.items() if units}
    return amounts | ({"GPU": from_units(gpus)} if gpus else {})


def _rays_name(dimension: str) -> str:
    return "CPU" if dimension == CPUS else dimension


def _rays_amount(dimension: str, units: int) -> float:
    return units if dimension == MEMORY else from_units(units)


def _rooms(request: Request) -> list[Room]:
    if request.strategy != "strict-pack":
        return [Room(demand.ray_resources(), _labels(demand)) for demand in request.bundles]
    together: dict[str, float] = {}
    labels: dict[str, str] = {}
    for demand in request.bundles:
        labels |= _labels(demand)
        for name, amount in demand.ray_resources().items():
            together[name] = together.get(name, 0.0) + amount
    return [Room(together, labels)]


def _labels(demand: Demand) -> dict[str, str]:
    kind = {ACCELERATOR_LABEL: demand.accelerator_type} if demand.accelerator_type else {}
    return {**demand.labels, **kind}
