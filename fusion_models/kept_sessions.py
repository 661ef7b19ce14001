"""Sessions on the head: in memory, and behind it in the database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

import structlog

from noodle_ray.errors import NotFound
from noodle_ray.fusion.index_messages import OpenedSession
from noodle_ray.fusion.remembered import Remembered, Turn
from noodle_ray.fusion.session_book import SESSIONS, SessionBook, SessionLimits
from noodle_ray.settings import Settings
from noodle_ray.store.changes import Change, Delete
from noodle_ray.store.database import Database
from noodle_ray.store.until_available import until_available

log = structlog.get_logger("noodle.fusion")

EXPIRY_S = 30.0


class KeptSessions:
    """A session is open when its opening is written, and forgotten when that is; turns are written in the background,
    many at a time: a keeper that is killed forgets those of its last moment."""

    def __init__(self, settings: Settings, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._idle_ms, self._clock, self._database = settings.fusion_session_ttl_ms, clock, database
        self._book = SessionBook(SessionLimits.of(settings))
        self._pending: dict[str, Change] = {}
        self._writing = asyncio.Lock()
        self._written = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def recover(self) -> None:
        """Takes in what was kept, and begins to write and to expire. Raises Unavailable."""
        rows = await asyncio.to_thread(self._database.load, SESSIONS)
        for key, error in self._book.recover(rows).items():
            log.error("kept session dropped", key=key[:8], error=error.message)
            self._pending[key] = Delete(SESSIONS, key)
        self._note(self._book.expire(self._clock()))
        self._tasks = [asyncio.create_task(self._write_on()), asyncio.create_task(self._expire_on())]

    async def close(self) -> None:
        """Ends what goes on, and writes what is left."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._write()

    async def open(self) -> OpenedSession:
        """Raises LimitReached, Unavailable."""
        session, changes = self._book.open(self._clock())
        self._note(changes)
        await self._write()
        return OpenedSession(session=session, idle_ms=self._idle_ms)

    async def forget(self, session: str) -> None:
        """Raises NotFound, Unavailable."""
        self._note(self._book.forget(session, self._clock()))
        await self._write()

    def remembered(self, session: str) -> Remembered:
        """Raises NotFound."""
        return self._book.remembered(session, self._clock())

    def note(self, session: str, turn: Turn) -> None:
        """A session that has gone meanwhile is no error."""
        try:
            changes = self._book.note(session, turn, self._clock())
        except NotFound:
            return
        self._note(changes)

    def _note(self, changes: Iterable[Change]) -> None:
        for change in changes:
            self._pending[change.key] = change
            self._written.set()

    async def _write(self) -> None:
        async with self._writing:
            changes, self._pending = self._pending, {}
            if not changes:
                return
            try:
                await asyncio.to_thread(self._database.apply, list(changes.values()))
            except BaseException:
                self._pending = {**changes, **self._pending}  # what came meanwhile is newer
                raise

    async def _write_on(self) -> None:
        while True:
            await self._written.wait()
            self._written.clear()
            await until_available(self._write)

    async def _expire_on(self) -> None:
        while True:
            await asyncio.sleep(EXPIRY_S)
            self._note(self._book.expire(self._clock()))
