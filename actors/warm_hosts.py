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
OWN = PREFIX + "own-"
"""Of hosts that have packages of one module: they serve no other."""

RECONNECT_S = 0.2
START_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Host:
    """A module host: the name of its actor, its handle, its node, and whether it was started beforehand.

    `death` ends when the host has.
    """

    actor: str
    handle: Any
    node_id: str
    warm: bool
    death: asyncio.Task[None]


async def start_host(cache_dir: str, warm: bool, options: dict[str, Any]) -> Host:
    """Starts an empty host and waits until it answers. Raises Unavailable."""
    actor = (OWN if "runtime_env" in options else PREFIX) + uuid.uuid4().hex[:12]
    kept = {"name": actor, "namespace": NAMESPACE, "lifetime": "detached", "max_restarts": 0}
    # Not in a thread: if this is cancelled, no host may be left behind whose handle nobody has.
    handle = ray.remote(ModuleHost).options(**kept, max_concurrency=MAX_CALLS, **options).remote(cache_dir)
    try:
        return await reach_host(actor, handle, warm)
    except BaseException:
        kill_host(handle)
        raise


async def reach_host(actor: str, handle: Any, warm: bool) -> Host:
    """The host behind a handle, once it answers. Raises Unavailable."""
    answer = await await_ref(handle.ping.remote())
    return Host(actor, handle, answer["node_id"], warm, asyncio.create_task(_until_dead(handle)))


async def _until_dead(handle: Any) -> None:
    while True:
        try:
            await handle.outlive.remote()
        except ray.exceptions.ActorUnavailableError:
            await asyncio.sleep(RECONNECT_S)
        except ray.exceptions.RayError:
            return


def kill_host(handle: Any) -> None:
    """Ends a host; nothing happens where it has ended."""
    ray.kill(handle, no_restart=True)


class WarmHosts:
    """One started, empty host for each node. They hold nothing of Ray's resources."""

    def __init__(self, cache_dir: str) -> None:
        self._cache_dir = cache_dir
        self._ready: dict[str, Host] = {}
        self._filling: dict[str, asyncio.Event] = {}
        self._starting: set[str] = set()

    def nodes(self) -> set[str]:
        """The nodes that have a host ready."""
        return set(self._ready)

    async def take(self, node_id: str) -> Host:
        """The node's warm host if it has one or is about to, or else one that is started now. Raises Unavailable."""
        if node_id in self._filling:
            await self._filling[node_id].wait()
        host = self._ready.pop(node_id, None)
        return host if host is not None else await self._start(node_id, warm=False)

    def adopt(self, host: Host) -> None:
        """Takes an empty host into the pool; ends it where its node has one, or where it was started for one module."""
        if host.node_id in self._ready or host.actor.startswith(OWN):
            kill_host(host.handle)
            return
        self._ready[host.node_id] = host
        host.death.add_done_callback(lambda _: self._forget(host))

    def _forget(self, host: Host) -> None:
        if self._ready.get(host.node_id) is host:
            del self._ready[host.node_id]

    async def restock(self, node_ids: Iterable[str]) -> None:
        """Starts a host on every node that has none, and ends those of nodes that take no more work."""
        wanted = set(node_ids)
        for node_id in sorted(self._ready.keys() - wanted):
            kill_host(self._ready.pop(node_id).handle)
        await asyncio.gather(*(self._fill(node_id) for node_id in sorted(wanted - self._ready.keys())))

    async def _fill(self, node_id: str) -> None:
        filled = self._filling[node_id] = asyncio.Event()
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                self.adopt(await self._start(node_id, warm=True))
        except (NoodleError, TimeoutError) as error:
            log.warning("no_warm_host", node=node_id, error=str(error) or "it did not start in time")
        finally:
            del self._filling[node_id]
            filled.set()

    async def _start(self, node_id: str, warm: bool) -> Host:
        strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
        return await start_host(self._cache_dir, warm, {"num_cpus": 0, "scheduling_strategy": strategy})
