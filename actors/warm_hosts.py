"""Warm hosts: module hosts that are started before anybody asks, one on each node, so that a load need not wait."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import ray
import structlog
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from noodle_ray.actors.module_host import MAX_CALLS, ModuleHost
from noodle_ray.actors.names import NAMESPACE
from noodle_ray.actors.ray_errors import await_ref
from noodle_ray.errors import NoodleError

log = structlog.get_logger()

PREFIX = "module-host-"


@dataclass(frozen=True, slots=True)
class Host:
    """A module host: the name of its actor, its handle, its node, and whether it was started beforehand."""

    actor: str
    handle: Any
    node_id: str
    warm: bool


def start_host(cache_dir: str, options: dict[str, Any]) -> tuple[str, Any]:
    """Starts an empty host; gives its name and its handle, which works once the process is up."""
    actor = PREFIX + uuid.uuid4().hex[:12]
    handle = (
        ray.remote(ModuleHost)
        .options(
            name=actor,
            namespace=NAMESPACE,
            lifetime="detached",
            max_restarts=0,
            max_concurrency=MAX_CALLS,
            **options,
        )
        .remote(cache_dir)
    )
    return actor, handle


def kill_host(handle: Any) -> None:
    """Ends a host; nothing happens where it has ended."""
    ray.kill(handle, no_restart=True)


class WarmHosts:
    """One started, empty host for each node. They hold nothing of Ray's resources."""

    def __init__(self, cache_dir: str) -> None:
        self._cache_dir = cache_dir
        self._ready: dict[str, Host] = {}
        self._starting: set[str] = set()

    def nodes(self) -> set[str]:
        """The nodes that have a host ready."""
        return set(self._ready)

    async def take(self, node_id: str) -> Host:
        """The node's warm host if it has one, or else one that is started now. Raises Unavailable."""
        host = self._ready.pop(node_id, None)
        return host if host is not None else await self._start(node_id, warm=False)

    def adopt(self, host: Host) -> bool:
        """Takes over an empty host that was left by a registry before this one; False where the node has one."""
        if host.node_id in self._ready:
            return False
        self._ready[host.node_id] = host
        return True

    async def restock(self, node_ids: Iterable[str]) -> None:
        """Starts a host on every node that has none, and forgets those of nodes that are gone."""
        wanted = set(node_ids)
        for node_id in self._ready.keys() - wanted:
            kill_host(self._ready.pop(node_id).handle)
        await asyncio.gather(*(self._fill(node_id) for node_id in wanted - self._ready.keys() - self._starting))

    async def _fill(self, node_id: str) -> None:
        self._starting.add(node_id)
        try:
            host = await self._start(node_id, warm=True)
        except NoodleError as error:
            log.warning("no_warm_host", node=node_id, error=str(error))
            return
        finally:
            self._starting.discard(node_id)
        if not self.adopt(host):
            kill_host(host.handle)

    async def _start(self, node_id: str, warm: bool) -> Host:
        strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
        actor, handle = await asyncio.to_thread(
            start_host, self._cache_dir, {"num_cpus": 0, "scheduling_strategy": strategy}
        )
        await await_ref(handle.ping.remote())
        return Host(actor, handle, node_id, warm)

    def forget_dead(self, node_id: str, actor: str) -> None:
        """A ready host has died: the next `restock` replaces it."""
        if node_id in self._ready and self._ready[node_id].actor == actor:
            del self._ready[node_id]
