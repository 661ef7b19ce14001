"""A snapshot: all that the manager knows at one moment, for whoever computes from it elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from noodle_ray.errors import NotFound
from noodle_ray.nodes.membership import Node
from noodle_ray.placement.allocation import Allocation
from noodle_ray.placement.ledger import ResourcePool
from noodle_ray.placement.workload import Workload


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Nodes, ledger, workload and allocations at a time, in seconds since 1970. Whoever is given one only reads it.

    Of allocations those that wait come last, in the order in which room is offered to them.
    """

    nodes: tuple[Node, ...]
    pool: ResourcePool
    workload: Workload
    allocations: tuple[Allocation, ...]
    at: float

    @property
    def names(self) -> dict[str, str]:
        """What each node is called."""
        return {node.id: node.name for node in self.nodes}

    def allocation(self, allocation_id: str) -> Allocation:
        """Raises NotFound."""
        found = [allocation for allocation in self.allocations if allocation.id == allocation_id]
        if not found:
            raise NotFound("allocation", allocation_id)
        return found[0]

    @property
    def waiting(self) -> list[Allocation]:
        """The queue, the next first."""
        return [allocation for allocation in self.allocations if allocation.state == "waiting"]

    def kept_for(self, allocation_id: str) -> list[str]:
        """The nodes on which whatever becomes free is kept for this one."""
        return sorted(node for node, owner in self.pool.earmarks.items() if owner == allocation_id)
