"""What goes on for all modules as long as the registry lives.

Warm hosts are restocked, hosts follow the calls, those of one module go to nodes of their own, and those that outlived
the death of their node, since it was none, hold again what they hold.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from noodle_ray.actors.host_watch import LOOK_S, calls_of
from noodle_ray.actors.loaded_module import Module
from noodle_ray.actors.module_loader import ModuleLoader
from noodle_ray.actors.warm_hosts import kill_host
from noodle_ray.errors import DoesNotFit, Unavailable
from noodle_ray.modules.ports import Allocator
from noodle_ray.modules.spreading import crowded
from noodle_ray.modules.swap_messages import RelocationAsked, ReplicasAsked

log = structlog.get_logger()

RESTOCK_INTERVAL_S = 1.0
SCALE_INTERVAL_S = 1.0
SPREAD_INTERVAL_S = 2.0
SPREAD_AGAIN_S = 60.0
"""How long a module whose host was sent to another node is left as it is: there may be no room for it there."""

HOLD_INTERVAL_S = 2.0
CALM_WAIT_S = 5.0
"""How long hosts are not restocked for the sake of a change that is under way."""


class ModuleUpkeep:
    """Looks after what a loader has."""

    def __init__(self, loader: ModuleLoader, allocator: Allocator) -> None:
        self._loader, self._allocator = loader, allocator

    def begin(self) -> None:
        self._loader.spawn(self._restock_for_ever())
        self._loader.spawn(self._scale_for_ever())
        self._loader.spawn(self._every(SPREAD_INTERVAL_S, self._spread, "modules_not_spread"))
        self._loader.spawn(self._every(HOLD_INTERVAL_S, self._hold_again, "lost_places_not_held"))

    async def _every(self, interval_s: float, work: Callable[[], Awaitable[None]], warning: str) -> None:
        while True:
            await asyncio.sleep(interval_s)
            try:
                await work()
            except Unavailable as error:
                log.warning(warning, error=str(error))

    async def _restock_for_ever(self) -> None:
        while True:
            await self._until_calm()
            try:
                nodes = await self._allocator.nodes()
                await self._loader.warm.restock(node.id for node in nodes if node.is_open)
            except Unavailable as error:
                log.warning("warm_hosts_not_restocked", error=str(error))
            await self._loader.warm.wanted(RESTOCK_INTERVAL_S)

    async def _until_calm(self) -> None:
        """Starting a process takes most of a core for a second: loads and swaps go first, for a while."""
        end = time.monotonic() + CALM_WAIT_S
        while any(module.changes for module in self._loader.modules.values()) and time.monotonic() < end:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)

    async def _scale_for_ever(self) -> None:
        while True:
            await asyncio.sleep(SCALE_INTERVAL_S)
            for module in list(self._loader.modules.values()):
                await self._scale(module)

    async def _scale(self, module: Module) -> None:
        serving, scaler = module.machine.serving, module.scaler
        if serving is None or scaler is None or scaler.limits.min == scaler.limits.max:
            return
        stats = await calls_of(module.hosts_of(serving.number))
        wanted = scaler.wanted(stats.in_flight, serving.wanted, time.monotonic())
        if wanted != serving.wanted and serving is module.machine.serving:
            log.info("module_scaled", module=module.name, hosts=wanted, before=serving.wanted)
            await self._loader.handle(module, ReplicasAsked(wanted))

    async def _spread(self) -> None:
        """Sends one host to another node, where a module is to have several and they are not on nodes of their own.

        One at a time: to load several at once makes none of them sooner ready.
        """
        modules = list(self._loader.modules.values())
        serving = [module.machine.serving for module in modules]
        if any(revision is not None and revision.is_relocating for revision in serving):
            return
        now = time.monotonic()
        due = [module for module in modules if _may_spread(module) and now - module.spread_at > SPREAD_AGAIN_S]
        nodes = {node.id for node in await self._allocator.nodes() if node.is_open} if due else set()
        for module in due:
            revision = module.machine.serving
            epoch = crowded(module.nodes_of(revision.number), nodes) if revision is not None else None
            if epoch is not None:
                module.spread_at = now
                log.info("module_host_goes_elsewhere", module=module.name, epoch=epoch)
                await self._loader.handle(module, RelocationAsked(epoch))
                return

    async def _hold_again(self) -> None:
        """Has hosts hold anew what was lost with a node that was held for dead and is back: cut off for a moment.

        One whose place has gone to somebody else meanwhile is ended: it is replaced where there is room.
        """
        holding = [(module, *each) for module in self._loader.modules.values() for each in module.holding()]
        ids = [held.allocation_id for _, _, held in holding if held.allocation_id is not None]
        lost = set(await self._allocator.missing(ids)) if ids else set()
        open_nodes = {node.id for node in await self._allocator.nodes() if node.is_open} if lost else set()
        for module, epoch, held in holding:
            is_there = held.host is not None and module.held.get(epoch) is held
            if held.allocation_id not in lost or held.node_id not in open_nodes or not is_there:
                continue
            try:
                await self._loader.hold_again(module, epoch, held)
                log.info("module_host_holds_again", module=module.name, epoch=epoch)
            except DoesNotFit as error:
                log.warning("module_host_lost_its_place", module=module.name, epoch=epoch, error=str(error))
                if held.host is not None:
                    kill_host(held.host.handle)


def _may_spread(module: Module) -> bool:
    """Whether a module that is to have several hosts all the time has two on one node, and nothing else goes on."""
    serving = module.machine.serving
    if serving is None or module.scaler is None or module.scaler.limits.min == 1:
        return False
    if module.machine.phase != "serving" or serving.unready:
        return False
    nodes = module.nodes_of(serving.number).values()
    return len(set(nodes)) < len(nodes)
