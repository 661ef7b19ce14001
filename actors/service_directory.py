"""The service directory: the actor around the core's Directory, which keeps who offers what."""

from __future__ import annotations

import asyncio
import time

import structlog

from noodle_ray.actors.names import SERVICE_DIRECTORY
from noodle_ray.errors import Unavailable
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

log = structlog.get_logger()

EXPIRY_INTERVAL_S = 1.0


class ServiceDirectory:
    """One of it runs, on the head; killed, it comes back with every entry."""

    async def __init__(self, settings: Settings) -> None:  # type: ignore[misc]  # Ray awaits it
        configure_logs(settings.log_level)
        self._core = Directory()
        self._writing = asyncio.Lock()
        self._database = await asyncio.to_thread(Database.open, settings.database)
        rows = await asyncio.to_thread(self._database.load, TABLE)
        await self._handle(Recovered(rows, at=time.time()))
        self._expiry = asyncio.get_running_loop().create_task(self._expire_for_ever())

    async def _handle(self, event: Event) -> None:
        changes = self._core.handle(event)
        if changes:
            async with self._writing:  # in the order in which the core decided
                await asyncio.to_thread(self._database.apply, changes)

    async def _expire_for_ever(self) -> None:
        while True:
            await asyncio.sleep(EXPIRY_INTERVAL_S)
            try:
                await self._handle(Tick(at=time.time()))
            except Unavailable as error:
                # An entry that could not be deleted expires again after the next start.
                log.warning("expiry_not_kept", error=str(error))

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
