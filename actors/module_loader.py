"""The module loader: performs what the hot-swap machines order, on hosts, and tells callers where calls go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Any, assert_never

import structlog

from noodle_ray.actors.artefact_store import ArtefactStore
from noodle_ray.actors.host_starter import HostStarter
from noodle_ray.actors.host_watch import calls_of, judge, until_idle
from noodle_ray.actors.loaded_module import Held, Module
from noodle_ray.actors.names import module_app
from noodle_ray.actors.ray_errors import await_ref, first_line
from noodle_ray.actors.registry_book import RegistryBook
from noodle_ray.actors.state_keeper import StateKeeper
from noodle_ray.actors.warm_hosts import Host, WarmHosts, kill_host
from noodle_ray.errors import Conflict, DeadlineExceeded, ModuleFailed, NoodleError, Unavailable
from noodle_ray.modules import swap_messages as orders
from noodle_ray.modules.canary import Trial
from noodle_ray.modules.load import ChangeKind, ModuleChange, RevisionRecord
from noodle_ray.modules.ports import Allocator
from noodle_ray.modules.registry import ChangeEnded, HostGone, RevisionRouted, Unrouted
from noodle_ray.modules.release import Lock
from noodle_ray.modules.route_board import RouteBoard
from noodle_ray.modules.scaling import Scaler
from noodle_ray.modules.start_order import StartOrder
from noodle_ray.modules.swap import HotSwap
from noodle_ray.settings import Settings

log = structlog.get_logger()

CLOSE_TIMEOUT_S = 5.0
RESUME_TIMEOUT_S = 5.0
STOP_WAIT_S = 5.0
"""How long an answer waits for hosts to be ended and what they held to be free."""


class ModuleLoader:
    """Loaded modules, and those on their way in or out. `board` has their routes."""

    def __init__(self, settings: Settings, allocator: Allocator, book: RegistryBook, artefacts: ArtefactStore) -> None:
        self._settings, self._book = settings, book
        self._core = book.core
        self.warm = WarmHosts(str(settings.cache_dir), settings.warm_hosts)
        self._starter = HostStarter(settings, allocator, book, artefacts, self.warm, self.spawn)
        self._states = StateKeeper(book)
        self._order = StartOrder()
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
        module = self._module(name)
        async with module.turn:
            record, change, instructions = self._begin(module, kind, event, lock, forced)
            done = module.expect(change.number)
            await self._perform(module, instructions)
        await done
        return _report(module.name, change, record, module.hosts_of(record.number), start)

    def _module(self, name: str) -> Module:
        if name not in self.modules:
            known = [load.next_number for load in self._core.loads() if load.name == name]
            machine = self.new_machine(name)
            machine.next_number = max([machine.next_number, *known])
            self.modules[name] = Module(machine)
        return self.modules[name]

    def _begin(
        self, module: Module, kind: ChangeKind, event: orders.Event, lock: Lock | None, forced: tuple[str, ...]
    ) -> tuple[RevisionRecord, ModuleChange, list[orders.Instruction]]:
        """Has the machine decide; gives the revision, the change that begins, and what to perform. Raises Conflict."""
        serving = module.machine.serving
        try:
            instructions = module.machine.handle(event)
        except Conflict:
            self._tidy(module)
            raise
        candidate = module.machine.candidate
        assert candidate is not None, "a change that is not refused has a candidate"
        number, version = candidate.revision.number, candidate.revision.version
        if lock is not None:
            module.revisions[number] = RevisionRecord(number=number, version=version, lock=lock)
        change = module.changes[candidate.answer] = ModuleChange(
            number=candidate.answer,
            kind=kind,
            version=version,
            before=serving.version if serving is not None else None,
            forced=forced,
            at=time.time(),
        )
        return module.revisions[number], change, instructions

    async def unload(self, name: str) -> None:
        """Ends a loaded module; returns when its last call has ended. Raises Conflict."""
        module = self.modules[name]
        async with module.turn:
            instructions = module.machine.handle(orders.UnloadAsked())
            [ticket] = [order.ticket for order in instructions if isinstance(order, orders.Unroute)]
            done = module.expect(ticket)
            await self._perform(module, instructions)
        await done

    # -- performing

    async def handle(self, module: Module, event: orders.Event) -> None:
        """The one door: the machine decides, then its instructions are performed, one event after the other."""
        async with module.turn:
            await self._perform(module, module.machine.handle(event))

    async def _perform(self, module: Module, instructions: Sequence[orders.Instruction]) -> None:
        """Begins what is ordered; only what must have happened before anything else does is awaited."""
        for order in instructions:
            match order:
                case orders.StartHost():
                    self._start(module, order)
                case orders.CheckHealth():
                    self.spawn(self._check(module, order.epoch, module.held[order.epoch]))
                case orders.MoveState():
                    self._publish(module)  # callers wait from now on
                    module.moving = self.spawn(self._move(module, order))
                case orders.Try():
                    self.spawn(self._try(module, order.revision))
                case orders.Route():
                    self.spawn(self._route(module, order))
                case orders.Unroute():
                    self.board.withdraw(module.name)
                    await self._book.keep_for_sure(Unrouted(module.name))
                    self._stop_lingering(module)
                case orders.Retire():
                    self.spawn(self._retire(module, order, module.held[order.epoch]))
                case orders.Resume():
                    await self._resume(module, module.held[order.epoch])
                case orders.KeepWarm():
                    self.spawn(self._keep_warm(module, order.revision))
                case orders.StopHost() if order.after_s:
                    module.lingering[order.epoch] = self.spawn(self._stop_later(module, order))
                case orders.StopHost():
                    self._stop(module, order.epoch)
                case orders.Finished():
                    self.spawn(self._finish(module, order.number))
                case orders.RolledBack():
                    self.spawn(self._rolled_back(module, order))
                case _:
                    assert_never(order)
        self._publish(module)
        self._tidy(module)

    def _publish(self, module: Module) -> None:
        """Tells callers where calls go now."""
        if module.machine.phase in ("empty", "unloading"):
            self.board.withdraw(module.name)
        else:
            self.board.publish(module.routes(self._settings.swap_canary_share))

    def _tidy(self, module: Module) -> None:
        """Forgets revisions that have no host, and a module that is not loaded any more once its last host is gone."""
        machine = module.machine
        known = {held.revision.number for held in module.held.values()}
        known |= {each.number for each in (machine.serving, machine.previous) if each is not None}
        known |= {machine.candidate.revision.number} if machine.candidate is not None else set()
        module.revisions = {number: record for number, record in module.revisions.items() if number in known}
        is_gone = machine.phase == "empty" and not module.held and not module.stopping
        if is_gone and self.modules.get(module.name) is module:
            del self.modules[module.name]

    async def _finish(self, module: Module, number: int) -> None:
        await self._until_stopped(module)
        module.finished(number)

    async def _rolled_back(self, module: Module, order: orders.RolledBack) -> None:
        log.warning("module_rolled_back", module=module.name, error=str(order.error))
        change = module.changes.get(order.number)
        if change is not None:
            ended = change.model_copy(update={"outcome": "rolled back", "why": str(order.error)})
            noting = self.spawn(self._book.keep_for_sure(ChangeEnded(module.name, ended)))
            await asyncio.wait([noting], timeout=STOP_WAIT_S)
        await self._until_stopped(module)
        module.given_up(order.number, order.error)

    async def _until_stopped(self, module: Module) -> None:
        """Whoever is told that a change has ended finds free what its hosts held, unless that takes too long."""
        if module.stopping:
            await asyncio.wait(set(module.stopping), timeout=STOP_WAIT_S)

    # -- hosts

    def _start(self, module: Module, order: orders.StartHost) -> None:
        revision = module.revisions[order.revision]
        manifest = self._core.release(module.name, order.version).manifest
        held = module.held[order.epoch] = Held(revision, manifest)
        held.starting = self.spawn(self._start_host(module, order, held))

    async def _start_host(self, module: Module, order: orders.StartHost, held: Held) -> None:
        await asyncio.sleep(order.after_s)
        beside = module.hosts_of(order.revision) if module.serves_beside(order) else []
        calls = (await calls_of(beside)).answered
        async with self._order.turn(lambda: module.serves_beside(order), calls):
            work = self._starter.prepare(
                order,
                held,
                module.changes.get(order.revision),
                beside=lambda: {node for key, node in module.nodes_of(order.revision).items() if key != order.epoch},
                on_death=lambda: self._heard_of_death(module, order.epoch),
            )
            error = await self._attempt(f"loading {module.name} {order.version}", work, held)
        event = orders.Failed(order.epoch, error) if error else orders.Loaded(order.epoch)
        # In a task of its own: this one is cancelled where the host is stopped, and what follows must not be.
        self.spawn(self.handle(module, event))

    async def _attempt(
        self, what: str, work: Coroutine[Any, Any, None], held: Held | None = None
    ) -> NoodleError | None:
        """Does one stage of a change within the loading timeout; gives what went wrong, with where the time went."""
        limit_ms = self._limit_ms(held)
        try:
            async with asyncio.timeout(limit_ms / 1000) as limit:
                if held is not None:
                    held.limit = limit
                return await _outcome(what, work)
        except TimeoutError:
            stages = held.milliseconds if held is not None else {}
            spent = ", ".join(f"{stage} {taken:g} ms" for stage, taken in stages.items())
            return DeadlineExceeded(f"{what} ({spent or 'no stage'} ended)", limit_ms)

    def _limit_ms(self, held: Held | None) -> float:
        own_s = held.manifest.loading_timeout_s if held is not None else None
        return self._settings.module_loading_timeout_ms if own_s is None else own_s * 1000

    async def _check(self, module: Module, epoch: int, held: Held) -> None:
        async def check() -> None:
            with held.stage("check"):
                if held.manifest.is_checked:
                    await await_ref(held.handle.check.remote())

        error = await self._attempt(f"the health check of {module.name}", check(), held)
        held.ready_at = time.monotonic()
        if not error:
            self.begin_keeping(module, epoch, held)
        await self.handle(module, orders.Failed(epoch, error) if error else orders.Healthy(epoch))

    async def _retire(self, module: Module, order: orders.Retire, held: Held) -> None:
        limit_s = self._settings.swap_drain_timeout_ms / 1000
        try:
            async with asyncio.timeout(limit_s):
                await await_ref(held.handle.retire.remote(order.whole))
                if order.keeps_state:
                    await self._states.keep_last(held)
        except TimeoutError:
            log.warning("calls_cut_off", module=module.name, after_s=limit_s)
        except Exception as error:
            # Whatever it is, the machine waits for the end of this.
            log.warning("host_not_emptied", module=module.name, error=str(error))
        await self.handle(module, orders.Drained(order.epoch, order.whole))

    async def _resume(self, module: Module, held: Held) -> None:
        if module.moving is not None:
            # It must not stop the host again that is resumed now.
            module.moving.cancel()
            await asyncio.wait([module.moving])
            module.moving = None
        try:
            async with asyncio.timeout(RESUME_TIMEOUT_S):
                await await_ref(held.handle.resume.remote())
        except (Unavailable, TimeoutError) as error:
            log.warning("host_not_resumed", module=module.name, error=str(error))  # its death is told apart

    def _stop(self, module: Module, epoch: int) -> None:
        """Ends a host at whatever stage it is, and frees what it holds: begun here, and waited for by who must."""
        held = module.held.pop(epoch, None)
        if held is not None:
            task = self.spawn(self._end(module, epoch, held))
            module.stopping.add(task)
            task.add_done_callback(lambda _: self._stopped(module, task))

    def _stopped(self, module: Module, task: asyncio.Task[None]) -> None:
        module.stopping.discard(task)
        self._tidy(module)

    async def _stop_later(self, module: Module, order: orders.StopHost) -> None:
        await asyncio.sleep(order.after_s)
        module.lingering.pop(order.epoch, None)
        self._stop(module, order.epoch)

    def _stop_lingering(self, module: Module) -> None:
        """A module that is unloaded has nowhere to send late calls on to: what waited for them ends now."""
        for epoch, task in module.lingering.items():
            task.cancel()
            self._stop(module, epoch)
        module.lingering.clear()

    async def _end(self, module: Module, epoch: int, held: Held) -> None:
        if held.starting is not None:
            held.starting.cancel()
            await asyncio.wait([held.starting, *([held.recording] if held.recording else [])])
        if held.host is not None:
            await self._close(held, held.host)
        if held.allocation_id is not None:
            await self._starter.release(held.allocation_id)
        if held.recorded:
            await self._book.keep_for_sure(HostGone(module.name, epoch))

    async def _close(self, held: Held, host: Host) -> None:
        """What runs beside the host's process is ended by it, and then the host."""
        if held.manifest.runner != "in-host" and not host.death.done():
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await await_ref(host.handle.close.remote())
            except (NoodleError, TimeoutError) as error:
                log.warning("runner_not_closed", module=held.manifest.name, error=str(error))
        kill_host(host.handle)

    def follow(self, module: Module, epoch: int, host: Host) -> None:
        """Hears of the death of a host that was found again."""
        host.death.add_done_callback(lambda _: self._heard_of_death(module, epoch))

    def begin_keeping(self, module: Module, epoch: int, held: Held) -> None:
        """From now on keeps what the module goes on from, if it has state and this host serves."""
        if held.manifest.state is not None:
            self.spawn(self._states.follow(module, epoch, held))

    async def hold_again(self, module: Module, epoch: int, held: Held) -> None:
        """Holds, on its node, what a host that lives has lost there. Raises DoesNotFit, Unavailable."""
        await self._starter.hold_again(epoch, held, lambda: module.held.get(epoch) is held)

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
        if held.manifest.runner == "serve" and held.host is not None:
            application = module_app(module.name, held.host.actor_id)
            self.spawn(asyncio.to_thread(_forget_application, application))
        if held.allocation_id is not None:
            # At once, not when the host is cleared away: its replacement may need the very place.
            allocation_id, held.allocation_id = held.allocation_id, None
            await asyncio.wait([self.spawn(self._starter.release(allocation_id))], timeout=STOP_WAIT_S)
        await self.handle(module, orders.HostDied(epoch, held.lived_s))

    # -- changing versions

    async def _route(self, module: Module, order: orders.Route) -> None:
        await asyncio.sleep(order.after_s)
        candidate, serving = module.machine.candidate, module.machine.serving
        if candidate is None:
            return
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
        # Without a limit of time: what is being written may be kept although nobody waits for it any more.
        if error := await _outcome(f"routing calls to {module.name}", self._book.keep(event)):
            await self.handle(module, orders.StageFailed(order.revision, error))
            return
        for held in module.hosts_of(order.revision):
            held.milliseconds["route"] = round((time.perf_counter() - start) * 1000, 3)
        module.moved, module.forgets_state = None, False
        module.scaler = Scaler(self._core.release(module.name, candidate.revision.version).manifest.replicas)
        await self.handle(module, orders.Routed(order.revision))

    async def _move(self, module: Module, order: orders.MoveState) -> None:
        module.moved, module.forgets_state = None, False
        error = await self._attempt(f"moving the state of {module.name}", self._states.move(module, order))
        module.moving = None
        # In a task of its own: this one is cancelled where a host is resumed, which what follows may order.
        event = orders.StageFailed(order.revision, error) if error else orders.Moved(order.revision)
        self.spawn(self.handle(module, event))

    async def _try(self, module: Module, revision: int) -> None:
        error = await _outcome(f"trying {module.name}", self._judge(module, revision))
        await self.handle(module, orders.StageFailed(revision, error) if error else orders.Judged(revision))

    async def _judge(self, module: Module, revision: int) -> None:
        """Raises ModuleFailed where the calls of this revision fare worse than those of the one beside or before it."""
        machine = module.machine
        is_canary = machine.candidate is not None
        other = machine.serving if is_canary else machine.previous
        version = module.revisions[revision].version
        trial = Trial(self._settings.swap_canary_calls, self._settings.swap_canary_timeout_ms / 1000)
        old = module.hosts_of(other.number) if other is not None else []
        judgement = await judge(trial, module.hosts_of(revision), old, side_by_side=is_canary)
        if judgement.problem:
            raise ModuleFailed(module.name, f"{version} does worse than the version before: {judgement.problem}")

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


def _forget_application(name: str) -> None:
    """Serve would start a replica again that died with its host."""
    from noodle_ray.actors.serve_runner import delete_application  # Serve takes half a second to import

    delete_application(name)


async def _outcome(what: str, work: Coroutine[Any, Any, None]) -> NoodleError | None:
    """Does it, and gives what went wrong: somebody waits for this, and the machine for its outcome."""
    try:
        await work
    except NoodleError as error:
        return error
    except Exception as error:
        log.exception("change_failed", what=what)
        return Unavailable(f"{what} failed: {first_line(error)}")
    return None


def _report(name: str, change: ModuleChange, record: RevisionRecord, hosts: list[Held], start: float) -> dict[str, Any]:
    """What whoever asked for a change is told. The stages are those of the host that took longest."""
    slowest = max(hosts, key=lambda held: sum(held.milliseconds.values()), default=None)
    stages = dict(slowest.milliseconds) if slowest is not None else {}
    return {
        "name": name,
        "version": record.version,
        "previous": change.before,
        "lock": record.lock.to_json(),
        "node_id": slowest.host.node_id if slowest is not None and slowest.host is not None else None,
        "hosts": len(hosts),
        "warm": all(held.host is not None and held.host.warm for held in hosts),
        "milliseconds": {**stages, "total": round((time.perf_counter() - start) * 1000, 3)},
    }
