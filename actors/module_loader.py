"""The module loader: performs what the hot-swap machines order, on hosts, and tells callers where calls go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Any, assert_never

import structlog

from noodle_ray.actors.artefact_store import ArtefactStore
from noodle_ray.actors.host_starter import HostStarter
from noodle_ray.actors.host_watch import judge, until_idle
from noodle_ray.actors.loaded_module import Held, Module
from noodle_ray.actors.ray_errors import await_ref, first_line
from noodle_ray.actors.registry_book import RegistryBook
from noodle_ray.actors.state_keeper import StateKeeper
from noodle_ray.actors.warm_hosts import Host, WarmHosts, kill_host
from noodle_ray.errors import Conflict, DeadlineExceeded, ModuleFailed, NoodleError, NotFound, Unavailable
from noodle_ray.modules import swap_messages as orders
from noodle_ray.modules.canary import Trial
from noodle_ray.modules.load import ChangeKind, ModuleChange, RevisionRecord
from noodle_ray.modules.ports import Allocator
from noodle_ray.modules.registry import ChangeEnded, HostGone, RevisionRouted, Unrouted
from noodle_ray.modules.release import Lock
from noodle_ray.modules.route_board import RouteBoard
from noodle_ray.modules.scaling import Scaler
from noodle_ray.modules.swap import Candidate, HotSwap
from noodle_ray.settings import Settings

log = structlog.get_logger()

CLOSE_TIMEOUT_S = 5.0


class ModuleLoader:
    """Loaded modules, and those on their way in or out. `board` has their routes."""

    def __init__(self, settings: Settings, allocator: Allocator, book: RegistryBook, artefacts: ArtefactStore) -> None:
        self._settings, self._allocator, self._book = settings, allocator, book
        self._core = book.core
        self.warm = WarmHosts(str(settings.cache_dir), settings.warm_hosts)
        self._starter = HostStarter(settings, allocator, book, artefacts, self.warm, self.spawn)
        self._states = StateKeeper(book)
        self.board = RouteBoard(time.time_ns())
        self.modules: dict[str, Module] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # -- what the registry asks of it

    def phase(self, name: str) -> str:
        module = self.modules.get(name)
        return module.machine.phase if module else "empty"

    def is_warm(self, name: str) -> bool:
        """Whether the version before the last swap could take calls at once."""
        if name not in self.modules:
            return False
        machine = self.modules[name].machine
        return machine.phase == "serving" and machine.previous is not None and bool(machine.previous.ready)

    def new_machine(self, name: str) -> HotSwap:
        return HotSwap(name, tries=self._settings.swap_canary_calls > 0)

    async def change(
        self,
        name: str,
        kind: ChangeKind,
        event: orders.Event,
        lock: Lock | None,
        start: float,
        forced: tuple[str, ...] = (),
    ) -> dict[str, Any]:
        """Loads, swaps or rolls back, by this lock where it is not to what is still warm.

        Returns when calls go there and no call runs elsewhere. `start`: when it was asked for (perf_counter). `forced`:
        what it breaks. Raises Conflict, and whatever went wrong.
        """
        module = self.modules.setdefault(name, Module(self.new_machine(name)))
        serving = module.machine.serving
        try:
            todo = module.machine.handle(event)
        except Conflict:
            self._tidy(module)
            raise
        candidate = _candidate(module)
        number = candidate.revision.number
        if lock is not None:
            module.revisions[number] = RevisionRecord(number=number, version=candidate.revision.version, lock=lock)
        record = module.revisions[number]
        module.changes[candidate.answer] = ModuleChange(
            number=candidate.answer,
            kind=kind,
            version=record.version,
            before=serving.version if serving is not None else None,
            forced=forced,
            at=time.time(),
        )
        done = module.expect(candidate.answer)
        await self._perform(module, todo)
        await done
        return _report(name, record, serving.version if serving is not None else None, module.hosts_of(number), start)

    async def unload(self, name: str) -> None:
        """Ends a loaded module; returns when its last call has ended. Raises Conflict."""
        module = self.modules[name]
        todo = module.machine.handle(orders.UnloadAsked())
        [ticket] = [order.ticket for order in todo if isinstance(order, orders.Unroute)]
        done = module.expect(ticket)
        await self._perform(module, todo)
        await done

    # -- performing

    async def handle(self, module: Module, event: orders.Event) -> None:
        """The one door: the machine decides, then its instructions are performed."""
        await self._perform(module, module.machine.handle(event))

    async def _perform(self, module: Module, todo: Sequence[orders.Instruction]) -> None:
        resumed = sum(isinstance(order, orders.Resume) for order in todo)
        module.resuming += resumed
        for order in todo:
            match order:
                case orders.StartHost():
                    self._start(module, order)
                case orders.CheckHealth():
                    self.spawn(self._check(module, order.epoch, module.held[order.epoch]))
                case orders.MoveState():
                    module.moving = self.spawn(self._move(module, order))
                case orders.Try():
                    self.spawn(self._try(module, order.revision))
                case orders.Route():
                    self.spawn(self._route(module, order))
                case orders.Unroute():
                    self.board.withdraw(module.name)
                    await self._book.keep_for_sure(Unrouted(module.name))
                    await self._stop_lingering(module)
                case orders.Retire():
                    self.spawn(self._retire(module, order, module.held[order.epoch]))
                case orders.Resume():
                    await self._resume(module, module.held[order.epoch])
                case orders.KeepWarm():
                    self.spawn(self._keep_warm(module, order.revision))
                case orders.StopHost() if order.after_s:
                    module.held[order.epoch].lingers = True
                    self.spawn(self.stop_host(module, order.epoch, order.after_s))
                case orders.StopHost():
                    await self.stop_host(module, order.epoch)
                case orders.Finished():
                    module.finished(order.number)
                case orders.RolledBack():
                    self._rolled_back(module, order)
                case _:
                    assert_never(order)
        module.resuming -= resumed
        self._publish(module)
        self._tidy(module)

    def _publish(self, module: Module) -> None:
        """Tells callers where calls go now."""
        if module.machine.phase in ("empty", "unloading"):
            self.board.withdraw(module.name)
        elif not module.resuming:
            self.board.publish(module.routes(self._settings.swap_canary_share))

    def _tidy(self, module: Module) -> None:
        """Forgets revisions that have no host, and a module that is not loaded any more once its last host is gone."""
        machine = module.machine
        known = {held.revision.number for held in module.held.values()}
        known |= {each.number for each in (machine.serving, machine.previous) if each is not None}
        known |= {machine.candidate.revision.number} if machine.candidate is not None else set()
        module.revisions = {number: record for number, record in module.revisions.items() if number in known}
        if machine.phase == "empty" and not module.held and self.modules.get(module.name) is module:
            del self.modules[module.name]

    def _rolled_back(self, module: Module, order: orders.RolledBack) -> None:
        log.warning("module_rolled_back", module=module.name, error=str(order.error))
        change = module.changes.get(order.number)
        if change is not None:
            update = {"outcome": "rolled back", "why": str(order.error)}
            self.spawn(self._book.keep_for_sure(ChangeEnded(module.name, change.model_copy(update=update))))
        module.given_up(order.number, order.error)

    # -- hosts

    def _start(self, module: Module, order: orders.StartHost) -> None:
        revision = module.revisions[order.revision]
        manifest = self._core.release(module.name, order.version).manifest
        held = module.held[order.epoch] = Held(revision, manifest)
        held.starting = self.spawn(self._start_host(module, order, held))

    async def _start_host(self, module: Module, order: orders.StartHost, held: Held) -> None:
        await asyncio.sleep(order.after_s)
        change = module.changes.get(order.revision)
        work = self._starter.prepare(order, held, change, lambda: self._heard_of_death(module, order.epoch))
        error = await self._attempt(f"loading {module.name} {order.version}", work, held)
        event = orders.Failed(order.epoch, error) if error else orders.Loaded(order.epoch)
        # In a task of its own: this one is cancelled where the host is stopped, and what follows must not be.
        self.spawn(self.handle(module, event))

    async def _attempt(
        self, what: str, work: Coroutine[Any, Any, None], held: Held | None = None
    ) -> NoodleError | None:
        """Does one stage of a change within the loading timeout; gives what went wrong, with where the time went."""
        limit_ms = self._settings.module_loading_timeout_ms
        try:
            async with asyncio.timeout(limit_ms / 1000) as limit:
                if held is not None:
                    held.limit = limit
                await work
        except TimeoutError:
            stages = held.milliseconds if held is not None else {}
            spent = ", ".join(f"{stage} {taken:g} ms" for stage, taken in stages.items())
            return DeadlineExceeded(f"{what} ({spent or 'no stage'} ended)", limit_ms)
        except NoodleError as error:
            return error
        except Exception as error:
            # Whatever it is, somebody waits for this change, and the machine for its outcome.
            log.exception("change_failed", what=what)
            return Unavailable(f"{what} failed: {first_line(error)}")
        return None

    async def _check(self, module: Module, epoch: int, held: Held) -> None:
        async def check() -> None:
            with held.stage("check"):
                await await_ref(held.handle.check.remote())

        error = await self._attempt(f"the health check of {module.name}", check(), held)
        held.ready_at = time.monotonic()
        if not error:
            self._begin_keeping(module, epoch, held)
        await self.handle(module, orders.Failed(epoch, error) if error else orders.Healthy(epoch))

    async def _retire(self, module: Module, order: orders.Retire, held: Held) -> None:
        limit_s = self._settings.swap_drain_timeout_ms / 1000
        try:
            async with asyncio.timeout(limit_s):
                await await_ref(held.handle.retire.remote(order.whole))
                if order.whole and held.manifest.state is not None and module.machine.serving is None:
                    await self._states.keep_last(held)
        except TimeoutError:
            log.warning("calls_cut_off", module=module.name, after_s=limit_s)
        except NoodleError as error:
            log.warning("host_not_emptied", module=module.name, error=str(error))
        await self.handle(module, orders.Drained(order.epoch))

    async def _resume(self, module: Module, held: Held) -> None:
        if module.moving is not None:
            # It must not stop the host again that is resumed now.
            module.moving.cancel()
            await asyncio.wait([module.moving])
            module.moving = None
        try:
            await await_ref(held.handle.resume.remote())
        except Unavailable as error:
            log.warning("host_not_resumed", module=module.name, error=str(error))  # its death is told apart

    async def stop_host(self, module: Module, epoch: int, after_s: float = 0.0) -> None:
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
            await self._end(held)
        if held.allocation_id is not None:
            await self._starter.release(held.allocation_id)
        if held.recorded:
            await self._book.keep_for_sure(HostGone(module.name, epoch))
        self._tidy(module)

    async def _end(self, held: Held) -> None:
        if held.manifest.runner == "serve":
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await await_ref(held.handle.close.remote())
            except (NoodleError, TimeoutError) as error:
                log.warning("application_not_closed", module=held.manifest.name, error=str(error))
        kill_host(held.handle)

    async def _stop_lingering(self, module: Module) -> None:
        """A module that is unloaded has nowhere to send late calls on to: what waited for them ends now."""
        for epoch in [epoch for epoch, held in module.held.items() if held.lingers]:
            await self.stop_host(module, epoch)

    def follow(self, module: Module, epoch: int, host: Host) -> None:
        """Hears of the death of a host that was found again, and goes on keeping its state."""
        host.death.add_done_callback(lambda _: self._heard_of_death(module, epoch))
        self._begin_keeping(module, epoch, module.held[epoch])

    def _begin_keeping(self, module: Module, epoch: int, held: Held) -> None:
        if held.manifest.state is not None:
            self.spawn(self._states.follow(module, epoch, held))

    async def release(self, allocation_id: str) -> None:
        """Frees what no host has."""
        await self._starter.release(allocation_id)

    def _heard_of_death(self, module: Module, epoch: int) -> None:
        self.spawn(self._host_died(module, epoch))

    async def _host_died(self, module: Module, epoch: int) -> None:
        held = module.held.get(epoch)
        if held is None:
            return
        log.warning("module_host_died", module=module.name, epoch=epoch)
        if held.allocation_id is not None:
            # At once, not when the host is cleared away: its replacement may need the very place.
            allocation_id, held.allocation_id = held.allocation_id, None
            await self._starter.release(allocation_id)
        await self.handle(module, orders.HostDied(epoch, held.lived_s))

    # -- changing versions

    async def _route(self, module: Module, order: orders.Route) -> None:
        await asyncio.sleep(order.after_s)
        candidate, serving = _candidate(module), module.machine.serving
        change = module.changes.get(candidate.answer)
        if change is not None:
            why = str(candidate.error or "")
            change = change.model_copy(update={"outcome": "rolled back" if why else "done", "why": why})
        keeps = serving is not None and candidate.error is None
        event = RevisionRouted(
            module.name,
            module.revisions[order.revision],
            module.revisions[serving.number] if serving is not None and keeps else None,
            change,
            module.moved,
            module.forgets_state,
        )
        start = time.perf_counter()
        try:
            await self._book.keep(event)
        except NoodleError as error:
            await self.handle(module, orders.StageFailed(order.revision, error))
            return
        for held in module.hosts_of(order.revision):
            held.milliseconds["route"] = round((time.perf_counter() - start) * 1000, 3)
        module.moved, module.forgets_state = None, False
        module.scaler = Scaler(self._core.release(module.name, candidate.revision.version).manifest.replicas)
        await self.handle(module, orders.Routed(order.revision))

    async def _move(self, module: Module, order: orders.MoveState) -> None:
        self._publish(module)  # callers wait from now on
        module.moved, module.forgets_state = None, False
        error = await self._attempt(f"moving the state of {module.name}", self._states.move(module, order))
        module.moving = None
        # In a task of its own: this one is cancelled where a host is resumed, which what follows may order.
        event = orders.StageFailed(order.revision, error) if error else orders.Moved(order.revision)
        self.spawn(self.handle(module, event))

    async def _try(self, module: Module, revision: int) -> None:
        machine = module.machine
        is_canary = machine.candidate is not None
        other = machine.serving if is_canary else machine.previous
        old = module.hosts_of(other.number) if other is not None else []
        trial = Trial(self._settings.swap_canary_calls, self._settings.swap_canary_timeout_ms / 1000)
        judgement = await judge(trial, module.hosts_of(revision), old)
        if judgement.problem:
            version = module.revisions[revision].version if revision in module.revisions else ""
            error = ModuleFailed(module.name, f"{version} does worse than the version before: {judgement.problem}")
            await self.handle(module, orders.StageFailed(revision, error))
        else:
            await self.handle(module, orders.Judged(revision))

    async def _keep_warm(self, module: Module, revision: int) -> None:
        await until_idle(module.hosts_of(revision), self._settings.module_keep_warm_ms / 1000)
        await self.handle(module, orders.Expired(revision))

    # -- tasks

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task_failed", error=repr(error), exc_info=error)


def _candidate(module: Module) -> Candidate:
    """Raises Conflict where there is none: what was asked came to nothing at once."""
    candidate = module.machine.candidate
    if candidate is None:
        raise NotFound("change", module.name)
    return candidate


def _report(name: str, record: RevisionRecord, before: str | None, hosts: list[Held], start: float) -> dict[str, Any]:
    """What whoever asked for a change is told. The stages are those of the host that took longest."""
    slowest = max(hosts, key=lambda held: sum(held.milliseconds.values()), default=None)
    stages = dict(slowest.milliseconds) if slowest is not None else {}
    return {
        "name": name,
        "version": record.version,
        "previous": before,
        "lock": record.lock.to_json(),
        "node_id": slowest.host.node_id if slowest is not None and slowest.host is not None else None,
        "hosts": len(hosts),
        "warm": all(held.host is not None and held.host.warm for held in hosts),
        "milliseconds": {**stages, "total": round((time.perf_counter() - start) * 1000, 3)},
    }
