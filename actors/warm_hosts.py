"""Warm hosts: module hosts that are started before anybody asks, one on each node, so that a load need not wait."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
import structlog
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from noodle_ray.actors.module_host import MAX_CALLS, ModuleHost
from noodle_ray.actors.names import HOST_NAMESPACES
from noodle_ray.actors.ray_errors import await_ref
from noodle_ray.errors import NoodleError

log = structlog.get_logger()

WARM, OWN = "module-host", "module-host-own"
"""The actors' names; own ones were started for one module, with its packages or GPUs: they serve no other."""

_ModuleHosts = ray.remote(ModuleHost)
RECONNECT_S = 0.2
START_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Host:
    """A module host: its actor's namespace, in which nothing else is, its handle, its actor's id, and its node.

    `warm`: it was started beforehand. `own`: it serves one module only. `death` ends when the host has.
    """

    namespace: str
    handle: Any
    actor_id: str
    node_id: str
    warm: bool
    own: bool
    death: asyncio.Task[None]


async def start_host(cache_dir: str, warm: bool, options: dict[str, Any]) -> Host:
    """Starts an empty host and waits until it answers. Raises Unavailable."""
    name, namespace = WARM if warm else OWN, HOST_NAMESPACES + uuid.uuid4().hex[:12]
    kept = {"name": name, "namespace": namespace, "lifetime": "detached", "max_restarts": 0}
    # Not in a thread: if this is cancelled, no host may be left behind whose handle nobody has.
    handle = _ModuleHosts.options(**kept, max_concurrency=MAX_CALLS, **options).remote(cache_dir)
    try:
        return await reach_host(namespace, handle, warm, own=not warm)
    except BaseException:
        kill_host(handle)
        raise


async def reach_host(namespace: str, handle: Any, warm: bool, own: bool) -> Host:
    """The host behind a handle, once it answers. Raises Unavailable."""
    answer = await await_ref(handle.ping.remote())
    death = asyncio.create_task(_until_dead(handle))
    return Host(namespace, handle, answer["actor_id"], answer["node_id"], warm, own, death)


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
    """So many started, empty hosts for each node. They hold nothing of Ray's resources."""

    def __init__(self, cache_dir: str, count: int) -> None:
        self._cache_dir, self._count = cache_dir, count
        self._ready: dict[str, list[Host]] = {}
        self._filling: dict[str, asyncio.Event] = {}
        self._taken = asyncio.Event()

    def nodes(self) -> set[str]:
        """The nodes that have a host ready."""
        return {node_id for node_id, hosts in self._ready.items() if hosts}

    async def take(self, node_id: str) -> Host:
        """A warm host of the node if it has one or is about to, or else one that is started now. Raises Unavailable."""
        if not self._ready.get(node_id) and node_id in self._filling:
            await self._filling[node_id].wait()
        self._taken.set()
        if hosts := self._ready.get(node_id):
            return hosts.pop(0)
        return await self._start(node_id, warm=False)

    def adopt(self, host: Host) -> None:
        """Takes an empty host into the pool; ends one too many, and one that was started for some module."""
        hosts = self._ready.setdefault(host.node_id, [])
        if len(hosts) >= self._count or host.own:
            kill_host(host.handle)
            return
        hosts.append(host)
        host.death.add_done_callback(lambda _: self._forget(host))

    def _forget(self, host: Host) -> None:
        hosts = self._ready.get(host.node_id, [])
        if host in hosts:
            hosts.remove(host)
            self._taken.set()

    async def wanted(self, within_s: float) -> None:
        """Returns when a host was taken, or after so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._taken.wait()

    async def restock(self, node_ids: Iterable[str]) -> None:
        """Starts hosts on every node that has too few, and ends those of nodes that take no more work."""
        self._taken.clear()
        wanted = set(node_ids)
        for node_id in sorted(self._ready.keys() - wanted):
            for host in self._ready.pop(node_id):
                kill_host(host.handle)
        await asyncio.gather(*(self._fill(node_id) for node_id in sorted(wanted)))

    async def _fill(self, node_id: str) -> None:
        """One after the other: to start several at once makes none of them sooner ready."""
        try:
            while len(self._ready.get(node_id, [])) < self._count:
                filled = self._filling[node_id] = asyncio.Event()
                try:
                    async with asyncio.timeout(START_TIMEOUT_S):
                        self.adopt(await self._start(node_id, warm=True))
                finally:
                    del self._filling[node_id]
                    filled.set()
        except (NoodleError, TimeoutError) as error:
            log.warning("no_warm_host", node=node_id, error=str(error) or "it did not start in time")

    async def _start(self, node_id: str, warm: bool) -> Host:
        strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
        return await start_host(self._cache_dir, warm, {"num_cpus": 0, "scheduling_strategy": strategy})
