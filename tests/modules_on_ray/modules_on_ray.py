"""What tests of modules on a real Ray share: an allocator, modules made of a few lines, and deaths."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from noodle_ray.actors import ray_state
from noodle_ray.actors.ray_errors import await_ref
from noodle_ray.errors import DoesNotFit, NotFound, Unavailable
from noodle_ray.modules.archive import write_entries
from noodle_ray.nodes.lease_book import pinned
from noodle_ray.nodes.membership import Node
from noodle_ray.placement.allocation import Allocation, Bundle
from noodle_ray.placement.refusal import Refusal
from noodle_ray.placement.request import Request
from noodle_ray.resources import NodeResources

EXAMPLES = Path(__file__).parents[2] / "examples" / "modules"
LOADING_TIMEOUT_MS = 15_000


def allocator() -> Callable[[], Any]:
    """A factory of an allocator that puts everything on the one node; by value, so that the actor's process has it."""

    class OneNode:
        def __init__(self) -> None:
            self.held: dict[str, Allocation] = {}
            self.refuses_labels = False

        async def allocate(self, request: Request, policy: str | None, owner: str, lease_s: float | None) -> Allocation:
            [node] = await self.nodes()
            if self.refuses_labels and any(demand.labels for demand in request.bundles):
                raise DoesNotFit(Refusal(str(request), 1, {"cpus": 1}, {}, never=False))
            allocation = Allocation(
                id=f"noodle-{len(self.held)}{time.time_ns()}",
                epoch=1,
                state="held",
                request=request,
                bundles=tuple(Bundle(demand=demand, node_id=node.id) for demand in request.bundles),
                policy="one-node",
                owner=owner,
                created_at=0.0,
            )
            _, made = await asyncio.to_thread(ray_state.create_group, allocation.group, pinned(allocation), 10.0)
            assert made
            self.held[allocation.id] = allocation
            return allocation

        async def release(self, allocation_id: str) -> None:
            allocation = self.held.pop(allocation_id, None)
            if allocation is None:
                raise NotFound("allocation", allocation_id)
            group = await asyncio.to_thread(ray_state.group_named, allocation.group)
            assert group is not None
            await asyncio.to_thread(ray_state.remove_group, group.id)

        async def allocations(self) -> list[Allocation]:
            return list(self.held.values())

        async def missing(self, allocation_ids: Sequence[str]) -> list[str]:
            return [each for each in allocation_ids if each not in self.held]

        async def nodes(self) -> list[Node]:
            resources = NodeResources.of(cpus=2, gpus=1)
            return [
                Node(id=node, name="n", address="127.0.0.1", resources=resources, joined_at=0, heard_at=0)
                for node in await asyncio.to_thread(ray_state.live_nodes)
            ]

    return OneNode


async def lose_places(registry: Any) -> None:
    """Everything that is held is lost, as when a node is held for dead; what runs outside of groups runs on."""
    lost = await places(registry)
    await await_ref(registry.__ray_call__.remote(lambda actor: actor._allocator.held.clear()))
    for allocation in lost:
        group = ray_state.group_named(allocation.group)
        assert group is not None
        ray_state.remove_group(group.id)


async def places(registry: Any) -> list[Allocation]:
    """What is held now."""
    called = registry.__ray_call__.remote(lambda actor: [*actor._allocator.held.values()])
    held: list[Allocation] = await await_ref(called)
    return held


def module(name: str, version: str, code: str, more: str = "") -> bytes:
    """A packed module whose one file, named after it, has this code."""
    file = name.replace("-", "_")
    entry_point = "" if "entry_point" in more else f'entry_point = "{file}"\n'
    manifest = f'[tool.noodle.module]\nname = "{name}"\nversion = "{version}"\n{entry_point}{more}'
    return write_entries({"pyproject.toml": manifest.encode(), f"{file}.py": code.encode()})


async def publish(registry: Any, name: str, version: str, code: str, more: str = "") -> dict[str, Any]:
    published: dict[str, Any] = await await_ref(registry.publish.remote(module(name, version, code, more)))
    return published


async def until(holds: Callable[[], Awaitable[bool]], within_s: float = 30.0) -> None:
    async with asyncio.timeout(within_s):
        while not await holds():  # noqa: ASYNC110 - what is waited for is in another process
            await asyncio.sleep(0.05)


async def process_of(registry: Any) -> int:
    pid: int = await await_ref(registry.__ray_call__.remote(lambda actor: os.getpid()))
    return pid


async def kill(registry: Any) -> None:
    """Kills the registry's process, and waits until Ray has brought it back."""
    before = await process_of(registry)
    os.kill(before, signal.SIGKILL)

    async def is_back() -> bool:
        try:
            return await process_of(registry) != before
        except Unavailable:
            return False

    await until(is_back)


async def has(condition: Callable[[], bool]) -> bool:
    return condition()


async def loaded_version(registry: Any, name: str) -> str | None:
    described = await await_ref(registry.describe.remote(name))
    version: str | None = described["loaded"]
    return version
