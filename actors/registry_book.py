"""The registry's book: what the core knows of releases and loaded modules, changed only once the store has it."""

from __future__ import annotations

import asyncio
from functools import partial

from noodle_ray.errors import CorruptData, InvalidInput
from noodle_ray.modules.load import KeptState
from noodle_ray.modules.registry import STATES, Event, Recovered, Registry
from noodle_ray.settings import Settings
from noodle_ray.store.database import Database
from noodle_ray.store.until_available import until_available


class RegistryBook:
    """`core` is there to be read; it changes through `keep` alone."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.core = Registry(settings)
        self._database = database
        self._writing = asyncio.Lock()

    async def recover(self) -> None:
        """Takes in what was kept. Raises CorruptData, Unavailable."""
        rows = await asyncio.gather(
            asyncio.to_thread(self._database.load, "modules"), asyncio.to_thread(self._database.load, "loads")
        )
        self.core.handle(Recovered(*rows))

    async def state(self, name: str) -> KeptState | None:
        """What a module goes on from. Raises CorruptData, Unavailable."""
        row = await asyncio.to_thread(self._database.find, STATES, name)
        if row is None:
            return None
        try:
            return KeptState.parse(dict(row))
        except InvalidInput as error:
            raise CorruptData(f"the kept row {name!r} of {STATES} cannot be read: {error}") from error

    async def keep(self, event: Event) -> None:
        """Decides, writes, and only then changes what is known; one at a time, in that order.

        Where no answer comes it may be written all the same: the next write of the same keys puts that right, and so
        does whoever asks again, for a change made twice is as one.
        """
        async with self._writing:
            changes = self.core.decide(event)
            if changes:
                await asyncio.to_thread(self._database.apply, changes)
            self.core.commit(changes)

    async def keep_for_sure(self, event: Event) -> None:
        """The same for what has happened already: tried again until the store takes it."""
        await until_available(partial(self.keep, event))
