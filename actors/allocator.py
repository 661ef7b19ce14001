"""The node manager as whoever loads modules needs it: somebody who places a request and holds it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray

from noodle_ray.actors.names import NAMESPACE, NODE_MANAGER
from noodle_ray.actors.ray_errors import await_ref
from noodle_ray.errors import Unavailable
from noodle_ray.nodes.membership import Node
from noodle_ray.placement.allocation import Allocation
from noodle_ray.placement.claim import Claim, new_claim_id
from noodle_ray.placement.request import Request


class NodeManagerAllocator:
    """The port `Allocator` over the node manager, looked up when it is needed: it may start after the registry."""

    async def _ask(self, method: str, *args: Any) -> Any:
        try:
            manager = ray.get_actor(NODE_MANAGER, NAMESPACE)
        except ValueError:
            raise Unavailable("no node manager runs on this cluster") from None
        return await await_ref(getattr(manager, method).remote(*args))

    async def allocate(self, request: Request, policy: str | None, owner: str, lease_s: float | None) -> Allocation:
        # It does not wait for room: a load has a deadline, and its caller is to hear why it does not fit.
        claim = Claim(id=new_claim_id(), request=request, policy=policy, owner=owner, lease_s=lease_s, wait_s=0)
        allocation: Allocation = await self._ask("allocate", claim)
        return allocation

    async def release(self, allocation_id: str) -> None:
        await self._ask("release", allocation_id)

    async def allocations(self) -> list[Allocation]:
        return list(await self._ask("allocations"))

    async def missing(self, allocation_ids: Sequence[str]) -> list[str]:
        return list(await self._ask("missing", list(allocation_ids)))

    async def nodes(self) -> list[Node]:
        return list(await self._ask("nodes"))
