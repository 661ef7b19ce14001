"""The service directory: the actor around the core's Directory, which keeps who offers what."""

from __future__ import annotations

import noodle_ray.goes_ahead  # noqa: F401  (what follows takes long to load, and others wait)

# isort: split

import asyncio
import time
from functools import partial

from noodle_ray.actors.journal import Journal
from noodle_ray.actors.names import SERVICE_DIRECTORY
from noodle_ray.logs import configure_logs
from noodle_ray.services.directory import (
    TABLE,
    Directory,
    Event,
    Recovered,
    Register,
    Registration,
    Renew,
    Service,
    Tick,
    Unregister,
)
from noodle_ray.settings import Settings
from noodle_ray.store.database import Database
from noodle_ray.store.until_available import until_available

EXPIRY_INTERVAL_S = 1.0


class ServiceDirectory:
    """One of it runs, on the head; killed, it comes back with every entry."""

    async def __init__(self, settings: Settings) -> None:  # type: ignore[misc]  # Ray awaits it
        configure_logs(settings.log_level)
        self._core = Directory()
        opening = partial(asyncio.to_thread, Database.open, settings.database, SERVICE_DIRECTORY)
        database = await until_available(opening)
        self._journal = Journal(database)
        rows = await until_available(partial(asyncio.to_thread, database.load, TABLE))
        self._decide(Recovered(rows, at=time.time()))
        self._expiry = asyncio.get_running_loop().create_task(self._expire_for_ever())

    def _decide(self, event: Event) -> bool:
        """Whether there is anything to keep: it is written in the order of the decisions, also after an outage."""
        changes = self._core.handle(event)
        for change in changes:
            self._journal.add(change)
        return bool(changes)

    async def _handle(self, event: Event) -> None:
        """Returns when it is kept: waits for a store that is away."""
        if self._decide(event):
            await self._journal.kept()

    async def _expire_for_ever(self) -> None:
        while True:
            await asyncio.sleep(EXPIRY_INTERVAL_S)
            self._decide(Tick(at=time.time()))

    async def services(self, capability: str | None = None) -> list[Service]:
        return self._core.find(capability) if capability else self._core.services()

    async def register(self, service: Registration) -> Service:
        """Lists the service, or what it now says of itself. Raises Conflict, LimitReached."""
        await self._handle(Register(service, at=time.time()))
        return self._core.service(service.name)

    async def renew(self, name: str) -> Service:
        """Starts its lease anew. Raises NotFound."""
        await self._handle(Renew(name, at=time.time()))
        return self._core.service(name)

    async def unregister(self, name: str) -> None:
        """Raises NotFound."""
        await self._handle(Unregister(name))

    async def ping(self) -> str:
        return SERVICE_DIRECTORY
