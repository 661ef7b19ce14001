"""The state keeper: fetches the state of modules from their hosts to be kept, and moves it from host to host."""

from __future__ import annotations

import asyncio
import time

import structlog

from noodle_ray.actors.loaded_module import Held, Module
from noodle_ray.actors.ray_errors import await_ref
from noodle_ray.actors.registry_book import RegistryBook
from noodle_ray.errors import Conflict, NoodleError, TooLarge, Unavailable
from noodle_ray.modules.load import MAX_STATE_BYTES, KeptState
from noodle_ray.modules.registry import StateKept
from noodle_ray.modules.swap_messages import MoveState

log = structlog.get_logger()

AGAIN_S = 0.2
"""How long after a host was not reached it is asked again."""


class StateKeeper:
    """Keeps states in the registry's book."""

    def __init__(self, book: RegistryBook) -> None:
        self._book = book

    async def follow(self, module: Module, epoch: int, held: Held) -> None:
        """Fetches what a host has to be kept, again and again, as long as it lives."""
        number, problem = 0, None
        while held.host is not None and not held.host.death.done():
            try:
                number, state = await await_ref(held.host.handle.next_state.remote(number, problem))
            except Unavailable:
                await asyncio.sleep(AGAIN_S)  # it has died, or is only not reached for a moment
            else:
                problem = await self._keep(module, epoch, held, state)

    async def _keep(self, module: Module, epoch: int, held: Held, state: bytes) -> NoodleError | None:
        """Keeps it; gives why it did not."""
        serving = module.machine.serving
        # Also while its calls are finished for a move: they are answered when their state is kept.
        if serving is None or epoch not in serving.ready:
            return Conflict(f"host {epoch} of {module.name} does not serve")
        if len(state) > MAX_STATE_BYTES:
            return TooLarge("state", len(state), MAX_STATE_BYTES, "bytes")
        try:
            await self._book.keep(StateKept(module.name, _kept(held, held.revision.version, state)))
        except NoodleError as error:
            return error
        return None

    async def keep_last(self, held: Held) -> None:
        """A module that is unloaded leaves its state to the next load."""
        state = await _export(held)
        await self._book.keep(StateKept(held.manifest.name, _kept(held, held.revision.version, state)))

    async def move(self, module: Module, order: MoveState) -> None:
        """Empties the source of calls and has the target go on from its state, or from what was kept last."""
        if order.source is not None:
            source = module.held[order.source]
            await await_ref(source.handle.retire.remote(True))
            kept: KeptState | None = _kept(source, source.revision.version, await _export(source))
        else:
            kept = await self._book.state(module.name)
        target = module.held[order.target]
        spec = target.manifest.state
        if kept is None or spec is None:
            return
        if not spec.can_read(kept.schema_version):
            # It was forced: the new version starts without, and is not to be restarted from it either.
            log.warning("state_left_behind", module=module.name, version=target.revision.version)
            module.forgets_state = True
            return
        await await_ref(target.handle.import_state.remote(kept.state, kept.schema_version))
        module.moved = kept


async def _export(held: Held) -> bytes:
    state: bytes = await await_ref(held.handle.export_state.remote())
    if len(state) > MAX_STATE_BYTES:
        raise TooLarge("state", len(state), MAX_STATE_BYTES, "bytes")
    return state


def _kept(held: Held, version: str, state: bytes) -> KeptState:
    schema = held.manifest.state.schema_version if held.manifest.state is not None else 1
    return KeptState(version=version, schema_version=schema, state=state, at=time.time())
