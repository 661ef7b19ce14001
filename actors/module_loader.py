"""The module loader: performs what the hot-swap machines order, on hosts, and brings all of it back after a restart."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Any, assert_never

import ray
import structlog

from noodle_ray.actors.artefact_store import ArtefactStore
from noodle_ray.actors.host_environment import not_counted, place_options, prepare
from noodle_ray.actors.loaded_module import Held, Module
from noodle_ray.actors.names import NAMESPACE
from noodle_ray.actors.ray_errors import await_ref, first_line
from noodle_ray.actors.registry_book import RegistryBook
from noodle_ray.actors.warm_hosts import PREFIX, Host, WarmHosts, kill_host, reach_host, start_host
from noodle_ray.errors import Conflict, DeadlineExceeded, NoodleError, NotFound, Unavailable
from noodle_ray.modules import swap as hot_swap
from noodle_ray.modules.call_route import Route
from noodle_ray.modules.manifest import Manifest
from noodle_ray.modules.ports import Allocator
from noodle_ray.modules.registry import HostGone, HostRecord, HostRouted, HostTaken, Load, Unrouted
from noodle_ray.modules.release import Lock
from noodle_ray.placement.allocation import Allocation
from noodle_ray.settings import Settings

log = structlog.get_logger()

RESTOCK_INTERVAL_S = 1.0
DRAIN_TIMEOUT_S = 30.0
"""How long calls may go on running on a host that was replaced; then they are cut off."""

PING_TIMEOUT_S = 5.0
OWNER = "module:"


class ModuleLoader:
    """Loaded modules, and those on their way in or out."""

    def __init__(self, settings: Settings, allocator: Allocator, book: RegistryBook, artefacts: ArtefactStore) -> None:
        self._settings, self._allocator, self._book, self._artefacts = settings, allocator, book, artefacts
        self._core = book.core
        self._warm = WarmHosts(str(settings.cache_dir))
        self._modules: dict[str, Module] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # -- what the registry asks of it

    def phase(self, name: str) -> str:
        module = self._modules.get(name)
        return module.machine.phase if module else "empty"

    def is_known(self, name: str) -> bool:
        """Whether it is loaded, or on its way in or out."""
        return name in self._modules

    def serving(self, name: str) -> HostRecord | None:
        """The host that calls of a module go to."""
        loads = {load.name: load for load in self._core.loads()}
        return loads[name].serving if name in loads else None

    async def change(self, name: str, event: hot_swap.Event, lock: Lock, start: float) -> dict[str, Any]:
        """Loads or swaps by this lock; returns when calls go there. `start`: when it was asked for (perf_counter)."""
        module = self._modules.setdefault(name, Module(hot_swap.HotSwap(name)))
        previous = self.serving(name)
        try:
            todo = module.machine.handle(event)
        except Conflict:
            self._tidy(module)
            raise
        [epoch] = [order.epoch for order in todo if isinstance(order, hot_swap.StartHost)]
        held = module.held[epoch] = Held(lock=lock)
        done = module.expect(epoch)
        await self._perform(module, todo)
        await done
        host = held.host
        return {
            "name": module.name,
            "version": lock.module(module.name).version,
            "previous": previous.version if previous else None,
            "lock": lock.to_json(),
            "node_id": host.node_id if host else None,
            "warm": host.warm if host else False,
            "milliseconds": {**held.milliseconds, "total": round((time.perf_counter() - start) * 1000, 3)},
        }

    async def unload(self, name: str) -> None:
        """Ends a loaded module; returns when its last call has ended. Raises Conflict."""
        module = self._modules[name]
        todo = module.machine.handle(hot_swap.UnloadAsked())
        [ticket] = [order.ticket for order in todo if isinstance(order, hot_swap.Unroute)]
        done = module.expect(ticket)
        await self._perform(module, todo)
        await done

    async def route(self, name: str) -> Route:
        """Where calls of a loaded module go; waits while it is being loaded or restarted. Raises NotFound."""
        while (module := self._modules.get(name)) is not None:
            if module.route is not None and not module.machine.serving_died:
                return module.route
            if module.machine.phase in ("empty", "unloading"):
                break
            await module.changed.wait()
        raise NotFound("loaded module", name, sorted(self._modules)[:20])

    # -- performing

    async def _handle(self, module: Module, event: hot_swap.Event) -> None:
        """The one door: the machine decides, then its instructions are performed."""
        await self._perform(module, module.machine.handle(event))

    async def _perform(self, module: Module, todo: Sequence[hot_swap.Instruction]) -> None:
        for order in todo:
            match order:
                case hot_swap.StartHost():
                    held = module.held.setdefault(order.epoch, Held())
                    held.starting = self._spawn(self._start_host(module, order, held))
                case hot_swap.CheckHealth():
                    self._spawn(self._check(module, order.epoch, module.held[order.epoch]))
                case hot_swap.Route():
                    self._spawn(self._route(module, order, module.held[order.epoch]))
                case hot_swap.Unroute():
                    module.route = None
                    await self._book.keep_for_sure(Unrouted(module.name))
                    await self._stop_lingering(module)
                case hot_swap.Retire():
                    self._spawn(self._retire(module, order.epoch, module.held[order.epoch]))
                case hot_swap.StopHost() if order.after_s:
                    module.held[order.epoch].lingers = True
                    self._spawn(self._stop_host(module, order.epoch, order.after_s))
                case hot_swap.StopHost():
                    await self._stop_host(module, order.epoch)
                case hot_swap.Finished():
                    module.finished(order.epoch)
                case hot_swap.RolledBack():
                    log.warning("module_rolled_back", module=module.name, error=str(order.error))
                    module.given_up(order.epoch, order.error)
                case _:
                    assert_never(order)
        self._tidy(module)
        module.announce()

    def _tidy(self, module: Module) -> None:
        """Forgets a module that is not loaded any more, once its last host is gone."""
        if module.machine.phase == "empty" and not module.held and self._modules.get(module.name) is module:
            del self._modules[module.name]

    async def _start_host(self, module: Module, order: hot_swap.StartHost, held: Held) -> None:
        await asyncio.sleep(order.after_s)
        error = await self._attempt(f"loading {module.name} {order.version}", self._prepare(module, order, held), held)
        event = hot_swap.Failed(order.epoch, error) if error else hot_swap.Loaded(order.epoch)
        # In a task of its own: this one is cancelled where the host is stopped, and what follows must not be.
        self._spawn(self._handle(module, event))

    async def _attempt(self, what: str, work: Coroutine[Any, Any, None], held: Held) -> NoodleError | None:
        """Does one stage of a load within the loading timeout; gives what went wrong, with where the time went."""
        limit_ms = self._settings.module_loading_timeout_ms
        try:
            async with asyncio.timeout(limit_ms / 1000) as held.limit:
                await work
        except TimeoutError:
            spent = ", ".join(f"{stage} {taken:g} ms" for stage, taken in held.milliseconds.items())
            return DeadlineExceeded(f"{what} ({spent or 'no stage'} ended)", limit_ms)
        except NoodleError as error:
            return error
        except Exception as error:
            # Whatever it is, somebody waits for this load, and the machine for its outcome.
            log.exception("load_failed", what=what)
            return Unavailable(f"{what} failed: {first_line(error)}")
        return None

    async def _prepare(self, module: Module, order: hot_swap.StartHost, held: Held) -> None:
        """Places, takes and loads one host; what it got so far is in `held`, whatever happens."""
        lock = held.lock = held.lock or self._serving_lock(module)
        manifest = self._core.release(module.name, order.version).manifest
        with held.stage("place"):
            node_id, group = await self._place(manifest, held)
        environment = await self._environment(manifest, lock, node_id, held)
        with held.stage("host"):
            host = held.host = await self._take_host(manifest, node_id, group, environment)
        host.death.add_done_callback(lambda _: self._spawn(self._host_died(module, order.epoch)))
        record = HostRecord(
            epoch=order.epoch,
            version=order.version,
            lock=lock,
            actor=host.actor,
            node_id=host.node_id,
            allocation_id=held.allocation_id,
            taken_at=time.time(),
        )
        with held.stage("keep"):
            held.recording = self._spawn(self._record(module, record, held))
            await asyncio.shield(held.recording)
        with held.stage("send"):
            artefacts = await self._artefacts_for(host, lock)
        held.milliseconds |= await await_ref(
            host.handle.load.remote(artefacts, manifest.entry_point, manifest.health_check)
        )

    def _serving_lock(self, module: Module) -> Lock:
        """A host that died is replaced by one with the same lock, whatever has been published since."""
        serving = self._core.load(module.name).serving
        if serving is None:
            raise NotFound("loaded module", module.name)
        return serving.lock

    async def _record(self, module: Module, record: HostRecord, held: Held) -> None:
        await self._book.keep(HostTaken(module.name, record))
        held.recorded = True

    async def _place(self, manifest: Manifest, held: Held) -> tuple[str, str | None]:
        """The node for a module, and the group that holds what it asks for, if it asks for anything."""
        if manifest.resources is None:
            return await self._choose_node(), None
        asked = asyncio.create_task(self._allocator.allocate(manifest.resources, None, OWNER + manifest.name, None))
        try:
            allocation = await asyncio.shield(asked)
        except asyncio.CancelledError:
            # The manager does not know that nobody waits any more: what it grants after all is given back.
            asked.add_done_callback(self._give_back)
            raise
        held.allocation_id = allocation.id
        return allocation.node_id, allocation.group

    def _give_back(self, asked: asyncio.Task[Allocation]) -> None:
        if not asked.cancelled() and asked.exception() is None:
            self._spawn(self._release(asked.result().id))

    async def _choose_node(self) -> str:
        """For a module that holds nothing: an open node with a warm host, the one that has the fewest modules."""
        nodes = [node.id for node in await self._allocator.nodes() if node.is_open]
        if not nodes:
            raise Unavailable("no node takes work now")
        hosts = [host.node_id for load in self._core.loads() for host in load.hosts()]
        ready = self._warm.nodes()
        return min(nodes, key=lambda node_id: (node_id not in ready, hosts.count(node_id), node_id))

    async def _environment(self, manifest: Manifest, lock: Lock, node_id: str, held: Held) -> dict[str, Any]:
        """The runtime environment that a host needs for the packages of its modules; empty where there are none."""
        packages, limit_ms = self._core.packages(lock), self._settings.module_install_timeout_ms
        if not packages:
            return {}
        async with not_counted(held.limit):
            with held.stage("install"):
                return await prepare(str(self._settings.cache_dir), manifest.name, packages, node_id, limit_ms)

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

    async def _artefacts_for(self, host: Host, lock: Lock) -> list[tuple[str, str, bytes | None]]:
        """What the host must load, in order, with bytes for those that its machine has not."""
        missing = set(await await_ref(host.handle.missing.remote([module.sha256 for module in lock.modules])))
        return [
            (
                module.name,
                module.sha256,
                await asyncio.to_thread(self._artefacts.get, module.sha256) if module.sha256 in missing else None,
            )
            for module in lock.modules
        ]

    async def _check(self, module: Module, epoch: int, held: Held) -> None:
        async def check() -> None:
            with held.stage("check"):
                await await_ref(held.handle.check.remote())

        error = await self._attempt(f"the health check of {module.name}", check(), held)
        await self._handle(module, hot_swap.Failed(epoch, error) if error else hot_swap.Healthy(epoch))

    async def _route(self, module: Module, order: hot_swap.Route, held: Held) -> None:
        await asyncio.sleep(order.after_s)
        try:
            with held.stage("route"):
                await self._book.keep(HostRouted(module.name, order.epoch))
        except NoodleError as error:
            await self._handle(module, hot_swap.Failed(order.epoch, error))
            return
        record = self._core.load(module.name).host(order.epoch)
        module.route = Route(module.name, record.version, order.epoch, held.handle)
        await self._handle(module, hot_swap.Routed(order.epoch))

    async def _retire(self, module: Module, epoch: int, held: Held) -> None:
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                await await_ref(held.handle.retire.remote())
        except TimeoutError:
            log.warning("calls_cut_off", module=module.name, after_s=DRAIN_TIMEOUT_S)
        except Unavailable as error:
            log.warning("host_died_while_draining", module=module.name, error=str(error))
        await self._handle(module, hot_swap.Drained(epoch))

    async def _stop_host(self, module: Module, epoch: int, after_s: float = 0.0) -> None:
        """Ends a host at whatever stage it is, and frees what it holds."""
        if after_s:
            await asyncio.sleep(after_s)
        held = module.held.pop(epoch, None)
        if held is None:
            return
        if held.starting is not None:
            held.starting.cancel()
            await asyncio.wait([held.starting, *([held.recording] if held.recording else [])])
        if held.host is not None:
            kill_host(held.host.handle)
        if held.allocation_id is not None:
            await self._release(held.allocation_id)
        if held.recorded:
            await self._book.keep_for_sure(HostGone(module.name, epoch))
        self._tidy(module)

    async def _stop_lingering(self, module: Module) -> None:
        """A module that is unloaded has nowhere to send late calls on to: what waited for them ends now."""
        for epoch in [epoch for epoch, held in module.held.items() if held.lingers]:
            await self._stop_host(module, epoch)

    async def _host_died(self, module: Module, epoch: int) -> None:
        held = module.held.get(epoch)
        if held is None:
            return
        log.warning("module_host_died", module=module.name, epoch=epoch)
        if held.allocation_id is not None:
            # At once, not when the host is cleared away: its replacement may need the very place.
            allocation_id, held.allocation_id = held.allocation_id, None
            await self._release(allocation_id)
        await self._handle(module, hot_swap.HostDied(epoch))

    async def _release(self, allocation_id: str) -> None:
        try:
            await self._allocator.release(allocation_id)
        except NotFound:
            log.info("allocation_was_free", allocation=allocation_id)
        except Unavailable as error:
            # The next recovery releases what no host of ours holds.
            log.warning("allocation_not_released", allocation=allocation_id, error=str(error))

    # -- coming back, and going on

    async def recover(self) -> None:
        """Finds the hosts again that run, restarts those that should, and keeps warm ones in stock from then on."""
        living = await self._living_hosts()
        for load in self._core.loads():
            await self._recover_load(load, living)
        for host, module_name in living.values():
            if module_name:
                kill_host(host.handle)
            else:
                self._warm.adopt(host)
        self._spawn(self._release_orphans())
        self._spawn(self._restock_for_ever())

    async def _living_hosts(self) -> dict[str, tuple[Host, str]]:
        """The module hosts that answer, by the name of their actor, each with the module it has in it."""
        actors = await asyncio.to_thread(ray.util.list_named_actors, all_namespaces=True)
        names = [entry["name"] for entry in actors if entry["namespace"] == NAMESPACE]
        found = await asyncio.gather(*(self._find_host(name) for name in names if name.startswith(PREFIX)))
        return {entry[0].actor: entry for entry in found if entry is not None}

    async def _find_host(self, actor: str) -> tuple[Host, str] | None:
        try:
            handle = ray.get_actor(actor, NAMESPACE)
            async with asyncio.timeout(PING_TIMEOUT_S):
                answer = await await_ref(handle.ping.remote())
                return await reach_host(actor, handle, warm=True), answer["module"]
        except (ValueError, Unavailable, TimeoutError) as error:
            log.warning("host_does_not_answer", actor=actor, error=str(error))
            return None

    async def _recover_load(self, load: Load, living: dict[str, tuple[Host, str]]) -> None:
        """Routes to the host that serves, or has it restarted where it is gone; ends hosts that were on their way."""
        serving = load.serving
        machine = hot_swap.HotSwap(load.name, next_epoch=max(host.epoch for host in load.hosts()) + 1)
        module = self._modules[load.name] = Module(machine)
        for record in load.hosts():
            found = living.pop(record.actor, None)
            host = found[0] if found else None
            module.held[record.epoch] = Held(host, record.allocation_id, record.lock, recorded=True)
        for record in load.others:
            self._spawn(self._stop_host(module, record.epoch))
        if serving is None:
            return
        machine.serving = hot_swap.Hosted(serving.epoch, serving.version)
        host = module.held[serving.epoch].host
        if host is None:
            self._spawn(self._host_died(module, serving.epoch))
            return
        module.route = Route(load.name, serving.version, serving.epoch, host.handle)
        host.death.add_done_callback(lambda _: self._spawn(self._host_died(module, serving.epoch)))

    async def _release_orphans(self) -> None:
        """Frees what a registry before this one got for a host, and died before it could note that down."""
        try:
            allocations = await self._allocator.allocations()
        except Unavailable as error:
            log.warning("orphans_not_looked_for", error=str(error))
            return
        known = {host.allocation_id for load in self._core.loads() for host in load.hosts()}
        known |= {held.allocation_id for module in self._modules.values() for held in module.held.values()}
        for allocation in allocations:
            if allocation.owner.startswith(OWNER) and allocation.id not in known:
                await self._release(allocation.id)

    async def _restock_for_ever(self) -> None:
        while True:
            try:
                nodes = await self._allocator.nodes()
                await self._warm.restock(node.id for node in nodes if node.is_open)
            except Unavailable as error:
                log.warning("warm_hosts_not_restocked", error=str(error))
            await asyncio.sleep(RESTOCK_INTERVAL_S)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task_failed", error=repr(error), exc_info=error)
