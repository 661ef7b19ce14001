"""The host starter: finds a module's host a place, takes or starts it, and has it load the module."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any

import structlog

from noodle_ray.actors.artefact_store import ArtefactStore
from noodle_ray.actors.host_environment import not_counted, place_options, prepare
from noodle_ray.actors.loaded_module import Held
from noodle_ray.actors.ray_errors import await_ref
from noodle_ray.actors.registry_book import RegistryBook
from noodle_ray.actors.warm_hosts import Host, WarmHosts, start_host
from noodle_ray.errors import Incompatible, NotFound, Unavailable
from noodle_ray.modules.artefact import Missing
from noodle_ray.modules.load import HostRecord, ModuleChange
from noodle_ray.modules.manifest import Manifest
from noodle_ray.modules.ports import Allocator
from noodle_ray.modules.registry import HostTaken
from noodle_ray.modules.release import Lock
from noodle_ray.modules.swap_messages import StartHost
from noodle_ray.placement.allocation import Allocation
from noodle_ray.placement.request import Request
from noodle_ray.resources import Demand
from noodle_ray.settings import Settings

log = structlog.get_logger()

OWNER = "module:"
NODE_LABEL = "ray.io/node-id"
RELEASE_AGAIN_S = 1.0
Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


class HostStarter:
    """Prepares hosts; what one has got so far is in its `Held`, whatever happens."""

    def __init__(
        self,
        settings: Settings,
        allocator: Allocator,
        book: RegistryBook,
        artefacts: ArtefactStore,
        warm: WarmHosts,
        spawn: Spawn,
    ) -> None:
        self._settings, self._allocator, self._book, self._artefacts = settings, allocator, book, artefacts
        self._warm, self._spawn = warm, spawn

    async def prepare(
        self,
        order: StartHost,
        held: Held,
        change: ModuleChange | None,
        beside: Callable[[], Collection[str]],
        on_death: Callable[[], None],
    ) -> None:
        """Places, takes and loads one host, and gives it the state that was kept where it is to go on from that.

        beside: tells the nodes that other hosts of the revision are on.
        """
        manifest = held.manifest
        with held.stage("place"):
            node_id, group = await self._place(order, held, beside)
        environment = await self._environment(held, node_id)
        with held.stage("host"):
            host = held.host = await self._take_host(manifest, node_id, group, environment)
        host.death.add_done_callback(lambda _: on_death())
        # Beside each other: a host that nobody noted down is found by its name, and what it holds by its owner.
        held.recording = self._spawn(self._record(order, held, host, change))
        await self._load(host, held)
        with held.stage("keep"):
            await asyncio.shield(held.recording)
        if order.restores:
            with held.stage("restore"):
                await self._restore(held)

    async def _record(self, order: StartHost, held: Held, host: Host, change: ModuleChange | None) -> None:
        record = HostRecord(
            epoch=order.epoch,
            revision=order.revision,
            version=order.version,
            actor=host.namespace,
            node_id=host.node_id,
            allocation_id=held.allocation_id,
            taken_at=time.time(),
        )
        await self._book.keep(HostTaken(held.manifest.name, record, change))
        held.recorded = True

    async def _restore(self, held: Held) -> None:
        kept, spec = await self._book.state(held.manifest.name), held.manifest.state
        if kept is None or spec is None:
            return
        if not spec.can_read(kept.schema_version):
            name, version = held.manifest.name, held.revision.version
            told = f"{name} {version} cannot read the state that {kept.version} left; load it fresh to forget that"
            raise Incompatible(told, [f"state: schema {kept.schema_version} is kept"])
        await await_ref(held.handle.import_state.remote(kept.state, kept.schema_version))

    # -- a place

    async def _place(
        self, order: StartHost, held: Held, beside: Callable[[], Collection[str]]
    ) -> tuple[str, str | None]:
        """The node for a module, and the group that holds what it asks for, if it asks for anything.

        A node that has no other host of it where there is one; any, unless it must be `apart`.
        """
        manifest = held.manifest
        if manifest.resources is None:
            held.node_id = await self._choose_node(order.apart, beside)
            return held.node_id, None
        allocation = await self._hold(manifest, order.revision, manifest.resources, order.apart)
        held.allocation_id, held.node_id = allocation.id, allocation.node_id
        if order.apart and allocation.node_id in beside():  # one there did not find room on a node of its own
            raise Unavailable(f"no node without a host of {manifest.name} has room for one")
        return allocation.node_id, allocation.group

    async def hold_again(self, epoch: int, held: Held, is_there: Callable[[], bool]) -> None:
        """Holds, on its node, what a host that lives has lost there. Raises DoesNotFit, Unavailable.

        is_there: tells whether the host is still one of the module's; if not, nothing is held for it.
        """
        name, demand = held.manifest.name, held.manifest.resources
        assert demand is not None and held.node_id is not None, "what holds nothing has lost nothing"
        there = demand.model_copy(update={"labels": {**demand.labels, NODE_LABEL: held.node_id}})
        allocation = await self._hold(held.manifest, held.revision.number, there, apart=False)
        if not is_there():
            await self.release(allocation.id)
            return
        held.allocation_id = allocation.id
        record = self._book.core.load(name).host(epoch).model_copy(update={"allocation_id": allocation.id})
        await self._book.keep_for_sure(HostTaken(name, record))

    async def _hold(self, manifest: Manifest, revision: int, demand: Demand, apart: bool) -> Allocation:
        """Where other hosts of the revision are not, if that can be: those that had to share a node count, too."""
        key = f"{OWNER}{manifest.name}:{revision}" if manifest.replicas.max > 1 else None
        request = Request(bundles=(demand,), anti_affinity=key, anti_affinity_soft=not apart)
        return await self._allocate(manifest, request)

    async def _allocate(self, manifest: Manifest, request: Request) -> Allocation:
        asked = asyncio.create_task(self._allocator.allocate(request, None, OWNER + manifest.name, None))
        try:
            return await asyncio.shield(asked)
        except asyncio.CancelledError:
            # The manager does not know that nobody waits any more: what it grants after all is given back.
            asked.add_done_callback(self._give_back)
            raise

    def _give_back(self, asked: asyncio.Task[Allocation]) -> None:
        if not asked.cancelled() and asked.exception() is None:
            self._spawn(self.release(asked.result().id))

    async def release(self, allocation_id: str) -> None:
        """Frees what a host held; tried again while the manager is away."""
        while True:
            try:
                await self._allocator.release(allocation_id)
                return
            except NotFound:
                log.info("allocation_was_free", allocation=allocation_id)
                return
            except Unavailable as error:
                log.warning("allocation_not_released", allocation=allocation_id, error=str(error))
                await asyncio.sleep(RELEASE_AGAIN_S)

    async def _choose_node(self, apart: bool, beside: Callable[[], Collection[str]]) -> str:
        """For a module that holds nothing: an open node without a host of it, with a warm one, with few modules."""
        nodes = [node.id for node in await self._allocator.nodes() if node.is_open]
        others = beside()
        if apart:
            nodes = [node_id for node_id in nodes if node_id not in others]
        if not nodes:
            raise Unavailable("no node takes work now")
        hosts = [host.node_id for load in self._book.core.loads() for host in load.hosts]
        ready = self._warm.nodes()
        return min(nodes, key=lambda node_id: (node_id in others, node_id not in ready, hosts.count(node_id), node_id))

    # -- a host

    async def _environment(self, held: Held, node_id: str) -> dict[str, Any]:
        """The runtime environment that a host needs for the packages of its modules; empty where there are none."""
        packages = self._book.core.packages(held.revision.lock)
        if not packages:
            return {}
        cache_dir, limit_ms = str(self._settings.cache_dir), self._settings.module_install_timeout_ms
        async with not_counted(held.limit):
            with held.stage("install"):
                return await prepare(cache_dir, held.manifest.name, packages, node_id, limit_ms)

    async def _take_host(
        self, manifest: Manifest, node_id: str, group: str | None, environment: dict[str, Any]
    ) -> Host:
        """A warm host, or for what a running process cannot be given any more (GPUs, packages) one of its own."""
        has_gpus = group is not None and manifest.resources is not None and manifest.resources.gpu_count > 0
        if not environment and not has_gpus:
            return await self._warm.take(node_id)
        options = await place_options(manifest.resources, node_id, group)
        if environment:
            options["runtime_env"] = environment
        return await start_host(str(self._settings.cache_dir), False, options)

    async def _load(self, host: Host, held: Held) -> None:
        """Has the host load the module; it is sent what its machine has not."""
        answer = await await_ref(host.handle.load.remote(_artefacts(held.revision.lock, {}), held.manifest))
        if isinstance(answer, Missing):
            with held.stage("send"):
                read = [await asyncio.to_thread(self._artefacts.get, sha256) for sha256 in answer.hashes]
            artefacts = _artefacts(held.revision.lock, dict(zip(answer.hashes, read, strict=True)))
            answer = await await_ref(host.handle.load.remote(artefacts, held.manifest))
        held.milliseconds |= answer


def _artefacts(lock: Lock, contents: Mapping[str, bytes]) -> list[tuple[str, str, bytes | None]]:
    """What a host must load, in order, with the bytes of those that it is sent."""
    return [(module.name, module.sha256, contents.get(module.sha256)) for module in lock.modules]
