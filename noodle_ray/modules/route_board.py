"""The route board: the table of every loaded module, for those who ask once and those who wait for news of them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import replace

from noodle_ray.errors import NotFound
from noodle_ray.modules.call_route import Routes

DOUBT_S = 2.0
"""So long a caller's word that a host is gone stands against ours."""

NEWS_S = 30.0
"""How long one question for news waits: whoever asks is not known to be still there."""


class RouteBoard:
    """Tables by module. Each change of one gets a higher number than any before."""

    def __init__(self, first_number: int) -> None:
        """`first_number`: higher than any that a board before this one gave, such as the time in nanoseconds."""
        self._number = first_number
        self._tables: dict[str, Routes] = {}
        self._changed = asyncio.Event()

    def publish(self, routes: Routes) -> None:
        """Puts up a module's table, unless it is up already; its number is set here."""
        before = self._tables.get(routes.module)
        if before is not None and replace(routes, number=before.number) == before:
            return
        self._number += 1
        self._tables[routes.module] = replace(routes, number=self._number)
        self._announce()

    def withdraw(self, module: str) -> None:
        """Takes a module off the board: it is not loaded any more."""
        if self._tables.pop(module, None) is not None:
            self._announce()

    async def find(self, module: str, avoid: Collection[int] = ()) -> Routes:
        """A module's table, once it has a serving host beside those of these epochs. Raises NotFound.

        Where such a host still serves after a while, the same table comes with a new number.
        """
        try:
            async with asyncio.timeout(DOUBT_S):
                return await self._find(module, avoid)
        except TimeoutError:
            routes = await self._find(module, ())
            self._number += 1
            self._tables[module] = replace(routes, number=self._number)
            return self._tables[module]

    async def _find(self, module: str, avoid: Collection[int]) -> Routes:
        while True:
            routes = self._tables.get(module)
            if routes is None:
                raise NotFound("loaded module", module, sorted(self._tables)[:20])
            if any(host.epoch not in avoid for host in routes.serving):
                return routes
            await self._changed.wait()

    async def news(self, known: Mapping[str, int]) -> dict[str, Routes | None]:
        """The tables that have another number than the one known, None for a module that is gone.

        Waits for one to change, and gives nothing where none does for a while.
        """
        try:
            async with asyncio.timeout(NEWS_S):
                while not (found := self._differing(known)):
                    await self._changed.wait()
        except TimeoutError:
            return {}
        return found

    def _differing(self, known: Mapping[str, int]) -> dict[str, Routes | None]:
        tables = {module: self._tables.get(module) for module in known}
        return {module: table for module, table in tables.items() if table is None or table.number != known[module]}

    def _announce(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
