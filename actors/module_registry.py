"""The module registry: the actor around the core's registry and hot-swap machines, which loads and ends hosts."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, assert_never

import ray
import structlog
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from noodle_ray.actors import ray_state
from noodle_ray.actors.names import MODULE_REGISTRY, NAMESPACE, NODE_MANAGER
from noodle_ray.actors.ray_errors import await_ref, first_line
from noodle_ray.actors.warm_hosts import PREFIX, Host, WarmHosts, kill_host, reach_host, start_host
from noodle_ray.errors import (
    Conflict,
    CorruptData,
    DeadlineExceeded,
    Incompatible,
    NoodleError,
    NotFound,
    Unavailable,
)
from noodle_ray.modules import swap as hot_swap
from noodle_ray.modules.artefact import Artefact, content_hash, read_artefact
from noodle_ray.modules.call_route import Route
from noodle_ray.modules.catalogue import Target
from noodle_ray.modules.graph import module_graph
from noodle_ray.modules.manifest import Manifest, normalise_name
from noodle_ray.modules.ports import Allocator
from noodle_ray.modules.registry import (
    Event,
    HostGone,
    HostRecord,
    HostRouted,
    HostTaken,
    Load,
    Publish,
    Recovered,
    Registry,
    Unrouted,
    Yank,
)
from noodle_ray.modules.release import Lock, Release
from noodle_ray.modules.resolver import DependencyResolver
from noodle_ray.nodes.membership import Node
from noodle_ray.placement.allocation import Allocation
from noodle_ray.placement.claim import Claim, new_claim_id
from noodle_ray.placement.request import Request
from noodle_ray.resources import Demand
from noodle_ray.settings import Settings
from noodle_ray.store.database import Database

log = structlog.get_logger()

RESTOCK_INTERVAL_S = 1.0
DRAIN_TIMEOUT_S = 30.0
"""How long calls may go on running on a host that was replaced; then they are cut off."""

PING_TIMEOUT_S = 5.0
OWNER = "module:"


class NodeManagerAllocator:
    """The port `Allocator` over the node manager, looked up when it is needed: it may start after the registry."""

    async def _ask(self, method: str, *args: Any) -> Any:
        try:
            manager = ray.get_actor(NODE_MANAGER, NAMESPACE)
        except ValueError:
            raise Unavailable("no node manager runs on this cluster") from None
        return await await_ref(getattr(manager, method).remote(*args))

    async def allocate(self, demand: Demand, policy: str | None, owner: str, lease_s: float | None) -> Allocation:
        request = Request.of(demand)
        # It does not wait for room: a load has a deadline, and its caller is to hear why it does not fit.
        claim = Claim(id=new_claim_id(), request=request, policy=policy, owner=owner, lease_s=lease_s, wait_s=0)
        allocation: Allocation = await self._ask("allocate", claim)
        return allocation

    async def release(self, allocation_id: str) -> None:
        await self._ask("release", allocation_id)

    async def allocations(self) -> list[Allocation]:
        return list(await self._ask("allocations"))

    async def nodes(self) -> list[Node]:
        return list(await self._ask("nodes"))


@dataclass(slots=True)
class Held:
    """What one host of a module holds, filled while it is prepared, so that it can be freed at any moment."""

    host: Host | None = None
    allocation_id: str | None = None
    lock: Lock | None = None
    starting: asyncio.Task[None] | None = None
    recording: asyncio.Task[None] | None = None
    recorded: bool = False
    lingers: bool = False
    milliseconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.milliseconds[name] = round((time.perf_counter() - start) * 1000, 3)


@dataclass(slots=True)
class Module:
    """A module that is loaded, or being loaded: its machine, its hosts, and who waits for what."""

    machine: hot_swap.HotSwap
    route: Route | None = None
    held: dict[int, Held] = field(default_factory=dict)
    waiting: dict[int, asyncio.Future[None]] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def name(self) -> str:
        return self.machine.module

    def announce(self) -> None:
        """Wakes those who wait for a route."""
        self.changed.set()
        self.changed = asyncio.Event()


class ModuleRegistry:
    """Publishes, resolves, loads, swaps and unloads modules. One of it runs; killed, it comes back with all it knew."""

    async def __init__(  # type: ignore[misc]  # Ray awaits it
        self, settings: Settings, allocator: Callable[[], Allocator] = NodeManagerAllocator
    ) -> None:
        self._settings = settings
        self._allocator = allocator()
        self._core = Registry(settings)
        self._database = await asyncio.to_thread(Database.open, settings.database)
        self._writing = asyncio.Lock()
        self._warm = WarmHosts(str(settings.cache_dir))
        self._modules: dict[str, Module] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        await self._recover()
        self._spawn(self._restock_for_ever())

    # -- publishing

    async def publish(self, archive: bytes) -> dict[str, Any]:
        """Publishes a packed module. The same content again changes nothing.

        Raises InvalidInput, TooLarge, Conflict (other content under a published version), LimitReached.
        """
        artefact = await asyncio.to_thread(read_artefact, archive)
        event = Publish(
            artefact.manifest, artefact.sha256, len(artefact.archive), time.time(), functions=artefact.functions
        )
        self._core.decide(event)  # refuses before anything is written
        await asyncio.to_thread(self._store_artefact, artefact)
        await self._keep(event)
        return self._core.release(artefact.manifest.name, artefact.manifest.version).summary()

    async def yank(self, name: str, version: str) -> dict[str, Any]:
        """Keeps a version out of future locks; what runs goes on. Raises NotFound."""
        await self._keep(Yank(name, version))
        return self._core.release(name, version).summary()

    async def modules(self) -> list[dict[str, Any]]:
        """Every published module: its versions, newest first, and the one that is loaded."""
        names = dict.fromkeys(release.name for release in self._core.releases())
        return [self._summary(name) for name in names]

    async def describe(self, name: str) -> dict[str, Any]:
        """One module: its releases, newest first, and what is loaded, where. Raises NotFound."""
        releases = [release.summary() for release in self._core.releases(name)]
        return {**self._summary(releases[0]["name"]), "releases": releases}

    async def graph(self) -> dict[str, Any]:
        """Who needs whom, of the loaded versions and else the newest: a `ModuleGraph`."""
        return module_graph(self._core.releases(), self._core.loaded_versions()).to_json()

    def _summary(self, name: str) -> dict[str, Any]:
        releases = self._core.releases(name)
        module = self._modules.get(name)
        serving = self._serving(name)
        return {
            "name": name,
            "versions": [release.manifest.version for release in releases],
            "description": releases[0].manifest.description,
            "loaded": serving.version if serving else None,
            "phase": module.machine.phase if module else "empty",
            "node_id": serving.node_id if serving else None,
            "lock": serving.lock.versions() if serving else None,
        }

    async def resolve(self, requirements: dict[str, str], minimal_change: bool = False) -> dict[str, Any]:
        """Exact versions for {name or name[feature]: constraint}, in the order of loading.

        `minimal_change`: versions that are loaded already come before newer ones, where they will do.
        Raises InvalidInput, Unresolvable.
        """
        return (await self._resolve(requirements, self._kept(minimal_change))).to_json()

    def _kept(self, minimal_change: bool, but: str = "") -> dict[str, str]:
        """The versions that a resolution is to keep to, of all modules but one."""
        loaded = self._core.loaded_versions() if minimal_change else {}
        return {name: version for name, version in loaded.items() if name != but}

    async def _resolve(self, requirements: dict[str, str], prefer: dict[str, str]) -> Lock:
        releases = self._core.releases()
        resolver = DependencyResolver(Target(accelerators=await self._accelerators(releases)))
        return await asyncio.to_thread(resolver.resolve, requirements, releases, prefer)

    async def _accelerators(self, releases: Sequence[Release]) -> frozenset[str] | None:
        """The types of GPUs that nodes have, where any release asks for one; None where nobody knows."""
        if not any(release.manifest.accelerator_type for release in releases):
            return None
        try:
            nodes = await self._allocator.nodes()
        except Unavailable:
            return None
        return frozenset(node.resources.accelerator_type for node in nodes if node.resources.accelerator_type)

    # -- loading

    async def load(self, name: str, constraint: str = "", minimal_change: bool = False) -> dict[str, Any]:
        """Loads the newest version that satisfies the constraint, with what it needs, and routes calls to it.

        `minimal_change`: as for `resolve`.

        Raises NotFound, Unresolvable, Conflict (it is loaded), DoesNotFit, DeadlineExceeded, ModuleFailed.
        """
        start = time.perf_counter()
        name = self._core.releases(name)[0].name
        lock = await self._resolve({name: constraint}, self._kept(minimal_change))
        module = self._modules.setdefault(name, Module(hot_swap.HotSwap(name)))
        return await self._change(module, hot_swap.LoadAsked(lock.module(name).version), lock, start)

    async def swap(
        self, name: str, constraint: str = "", minimal_change: bool = False, force: bool = False
    ) -> dict[str, Any]:
        """Replaces what is loaded by the newest version that satisfies the constraint, while calls run.

        `minimal_change`: as for `resolve`, but for the module itself. `force`: also where callers will stumble over it.

        Raises as `load`, Conflict where that is what runs, Incompatible; then the old version goes on.
        """
        start = time.perf_counter()
        serving, module = self._loaded(name)
        lock = await self._resolve({module.name: constraint}, self._kept(minimal_change, module.name))
        if lock.modules == serving.lock.modules:
            raise Conflict(f"{module.name} {serving.version} runs already, with the same dependencies")
        self._check_swap(module.name, lock.module(module.name).version, force)
        return await self._change(module, hot_swap.SwapAsked(lock.module(module.name).version), lock, start)

    def _check_swap(self, name: str, version: str, force: bool) -> None:
        try:
            self._core.check_swap(name, version)
        except Incompatible as error:
            if not force:
                raise
            log.warning("module_swap_forced", module=name, version=version, changes=error.changes)

    async def unload(self, name: str) -> None:
        """Ends a loaded module, when its calls have. Raises NotFound, Conflict naming those loaded that need it."""
        module = self._loaded(name)[1]
        self._core.check_unload(module.name)
        todo = module.machine.handle(hot_swap.UnloadAsked())
        [ticket] = [order.ticket for order in todo if isinstance(order, hot_swap.Unroute)]
        done = self._expect(module, ticket)
        await self._perform(module, todo)
        await done

    async def route(self, name: str) -> Route:
        """Where calls of a loaded module go; waits for it while it is being loaded or restarted.

        Raises NotFound where it is not loaded, Unavailable where it does not come (back) in time.
        """
        name = normalise_name(name)
        try:
            async with asyncio.timeout(self._settings.module_loading_timeout_ms / 1000):
                return await self._wait_for_route(name)
        except TimeoutError:
            raise Unavailable(f"{name} is being loaded or restarted and not ready for calls yet") from None

    async def _wait_for_route(self, name: str) -> Route:
        while (module := self._modules.get(name)) is not None:
            if module.route is not None and not module.machine.serving_died:
                return module.route
            if module.machine.phase in ("empty", "unloading"):
                break
            await module.changed.wait()
        raise NotFound("loaded module", name, sorted(self._modules)[:20])

    async def ping(self) -> str:
        return MODULE_REGISTRY

    def _serving(self, name: str) -> HostRecord | None:
        loads = {load.name: load for load in self._core.loads()}
        return loads[name].serving if name in loads else None

    def _loaded(self, name: str) -> tuple[HostRecord, Module]:
        load = self._core.load(name)
        if load.serving is None or load.name not in self._modules:
            raise Conflict(f"{load.name} is being loaded or unloaded")
        return load.serving, self._modules[load.name]

    async def _change(self, module: Module, event: hot_swap.Event, lock: Lock, start: float) -> dict[str, Any]:
        previous = self._serving(module.name)
        todo = module.machine.handle(event)
        [epoch] = [order.epoch for order in todo if isinstance(order, hot_swap.StartHost)]
        held = module.held[epoch] = Held(lock=lock)
        done = self._expect(module, epoch)
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

    def _expect(self, module: Module, epoch: int) -> asyncio.Future[None]:
        module.waiting[epoch] = asyncio.get_running_loop().create_future()
        return module.waiting[epoch]

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
                    await self._keep_for_sure(Unrouted(module.name))
                    await self._stop_lingering(module)
                case hot_swap.Retire():
                    self._spawn(self._retire(module, order.epoch, module.held[order.epoch]))
                case hot_swap.StopHost() if order.after_s:
                    module.held[order.epoch].lingers = True
                    self._spawn(self._stop_host(module, order.epoch, order.after_s))
                case hot_swap.StopHost():
                    await self._stop_host(module, order.epoch)
                case hot_swap.Finished():
                    _resolve(module.waiting.pop(order.epoch, None))
                case hot_swap.RolledBack():
                    log.warning("module_rolled_back", module=module.name, error=str(order.error))
                    _reject(module.waiting.pop(order.epoch, None), order.error)
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
            async with asyncio.timeout(limit_ms / 1000):
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
        with held.stage("host"):
            host = held.host = await self._take_host(manifest, node_id, group)
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
        await self._keep(HostTaken(module.name, record))
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

    async def _take_host(self, manifest: Manifest, node_id: str, group: str | None) -> Host:
        demand = manifest.resources
        if demand is None or group is None or not demand.gpu_count:
            return await self._warm.take(node_id)
        # Ray gives a process its GPUs when it starts it, so this one starts within the group.
        found = await asyncio.to_thread(ray_state.find_group, group)
        options = {
            "num_cpus": demand.cpus,
            "num_gpus": demand.gpu_share or demand.gpus,
            "memory": demand.memory or None,
            "resources": dict(demand.custom) or None,
            "scheduling_strategy": PlacementGroupSchedulingStrategy(found, placement_group_bundle_index=0),
        }
        return await start_host(str(self._settings.cache_dir), False, options)

    async def _artefacts_for(self, host: Host, lock: Lock) -> list[tuple[str, str, bytes | None]]:
        """What the host must load, in order, with bytes for those that its machine has not."""
        missing = set(await await_ref(host.handle.missing.remote([module.sha256 for module in lock.modules])))
        return [
            (
                module.name,
                module.sha256,
                await asyncio.to_thread(self._read_artefact, module.sha256) if module.sha256 in missing else None,
            )
            for module in lock.modules
        ]

    async def _check(self, module: Module, epoch: int, held: Held) -> None:
        async def check() -> None:
            with held.stage("check"):
                await await_ref(_handle_of(held).check.remote())

        error = await self._attempt(f"the health check of {module.name}", check(), held)
        await self._handle(module, hot_swap.Failed(epoch, error) if error else hot_swap.Healthy(epoch))

    async def _route(self, module: Module, order: hot_swap.Route, held: Held) -> None:
        await asyncio.sleep(order.after_s)
        try:
            with held.stage("route"):
                await self._keep(HostRouted(module.name, order.epoch))
        except NoodleError as error:
            await self._handle(module, hot_swap.Failed(order.epoch, error))
            return
        record = self._core.load(module.name).host(order.epoch)
        module.route = Route(module.name, record.version, order.epoch, _handle_of(held))
        await self._handle(module, hot_swap.Routed(order.epoch))

    async def _retire(self, module: Module, epoch: int, held: Held) -> None:
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                await await_ref(_handle_of(held).retire.remote())
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
            await self._keep_for_sure(HostGone(module.name, epoch))
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

    # -- keeping

    async def _keep(self, event: Event) -> None:
        """Decides, writes, and only then changes what is known; one at a time, in that order."""
        async with self._writing:
            changes = self._core.decide(event)
            if changes:
                await asyncio.to_thread(self._database.apply, changes)
            self._core.commit(changes)

    async def _keep_for_sure(self, event: Event) -> None:
        """The same for what has happened already: tried again until the store takes it."""
        while True:
            try:
                return await self._keep(event)
            except Unavailable as error:
                log.warning("store_away", error=str(error))
                await asyncio.sleep(1.0)

    def _artefact_path(self, sha256: str) -> Path:
        return self._settings.state_dir / "artefacts" / f"{sha256}.zip"

    def _store_artefact(self, artefact: Artefact) -> None:
        path = self._artefact_path(artefact.sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(artefact.archive)
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).replace(path)

    def _read_artefact(self, sha256: str) -> bytes:
        path = self._artefact_path(sha256)
        try:
            archive = path.read_bytes()
        except OSError as error:
            raise CorruptData(f"the artefact {path.name} cannot be read: {error.strerror}") from None
        if content_hash(archive) != sha256:
            raise CorruptData(f"the artefact {path.name} was altered")
        return archive

    # -- coming back, and going on

    async def _recover(self) -> None:
        rows = await asyncio.gather(
            asyncio.to_thread(self._database.load, "modules"), asyncio.to_thread(self._database.load, "loads")
        )
        self._core.handle(Recovered(*rows))
        living = await self._living_hosts()
        for load in self._core.loads():
            await self._recover_load(load, living)
        for host, module_name in living.values():
            if module_name:
                kill_host(host.handle)
            else:
                self._warm.adopt(host)
        self._spawn(self._release_orphans())

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


def _handle_of(held: Held) -> Any:
    if held.host is None:
        raise Unavailable("the host is gone")
    return held.host.handle


def _resolve(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)


def _reject(waiting: asyncio.Future[None] | None, error: NoodleError) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_exception(error)
