"""What the modules' shell needs of others: somebody who places a request on a node and holds it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from noodle_ray.nodes.membership import Node
from noodle_ray.placement.allocation import Allocation
from noodle_ray.placement.request import Request


class Allocator(Protocol):
    """Holds requests on nodes. The node manager is one."""

    async def allocate(self, request: Request, policy: str | None, owner: str, lease_s: float | None) -> Allocation:
        """Places the request and holds it. Raises DoesNotFit, Unavailable."""
        ...

    async def release(self, allocation_id: str) -> None:
        """Frees it. Raises NotFound where it is free already."""
        ...

    async def allocations(self) -> Sequence[Allocation]:
        """Everything that is held. Raises Unavailable."""
        ...

    async def missing(self, allocation_ids: Sequence[str]) -> Sequence[str]:
        """Those of them that hold nothing any more: lost with their nodes, or unknown. Raises Unavailable."""
        ...

    async def nodes(self) -> Sequence[Node]:
        """The nodes there are. Raises Unavailable."""
        ...
