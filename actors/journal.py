"""The journal: what is to be kept, written in the order of the decisions, as much at a time as has come up."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import structlog

from noodle_ray.store.changes import Change
from noodle_ray.store.database import Database
from noodle_ray.store.until_available import until_available

log = structlog.get_logger()

AT_LEISURE_S = 0.05
"""How long a change may stay unwritten that nobody waits for: it goes with one that somebody does, if one comes."""


class Journal:
    """Writes changes in one transaction for all that came up since the last: many decisions cost one write."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._changes: list[Change] = []
        self._kept = asyncio.get_running_loop().create_future()
        self._kept.set_result(None)
        self._writing: asyncio.Task[None] | None = None

    def add(self, change: Change) -> None:
        """Notes a change; `kept` has it written at once, else it is written soon."""
        if not self._changes:
            self._kept = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_later(AT_LEISURE_S, self._start)
        self._changes.append(change)

    async def kept(self) -> None:
        """Returns when all that was added so far is in the store. Waits for a store that is away."""
        self._start()
        if not self._kept.done():
            await asyncio.shield(self._kept)

    def _start(self) -> None:
        if self._changes and self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        while self._changes:
            batch, kept = self._changes, self._kept
            self._changes = []
            try:
                # Decided is decided: nothing is done in Ray before it is kept, and it is kept when the store is back.
                # What was written already, although no answer came, is written again: a change twice is as once.
                await until_available(partial(self._apply, batch))
            except Exception as error:  # nobody may wait for ever for what no store can keep
                log.error("changes_not_kept", keys=[change.key for change in batch], error=str(error))
                kept.set_exception(error)
                kept.exception()  # seen: it is no fault that nobody waits for this one
            else:
                kept.set_result(None)
        self._writing = None

    async def _apply(self, batch: list[Change]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._database.apply, batch)
