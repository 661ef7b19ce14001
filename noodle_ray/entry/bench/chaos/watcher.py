"""The watcher: looks once a second whether the system is whole, and notes what is missing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol

from noodle_ray.entry.bench.chaos.records import Seen
from noodle_ray.errors import DeadlineExceeded, NoodleError

LOOK_S = 1.0
ANSWER_S = 2.0
"""What has not answered within this is missing. Looks overlap, so that one that waits does not hold up the next."""


class Wholeness(Protocol):
    """What can be asked of a system. What raises a NoodleError, or does not answer, is missing."""

    async def alive_nodes(self) -> int:
        """How many nodes are alive."""
        ...

    async def unready_encoders(self) -> Sequence[str]:
        """The encoders that cannot be used now."""
        ...

    async def is_healthy(self, address: str) -> bool:
        """Whether the gateway at the address says that it is well."""
        ...

    async def module_answers(self) -> bool:
        """Whether a loaded module does what it is called for."""
        ...


class Watcher:
    """Looks at a system of so many nodes with gateways at these addresses. `seen` grows in the order of time.

    start: from when times count, on the monotonic clock.
    """

    def __init__(self, system: Wholeness, nodes: int, addresses: Sequence[str], start: float) -> None:
        self._system = system
        self._nodes = nodes
        self._addresses = tuple(addresses)
        self._start = start
        self._looks: list[Seen] = []

    @property
    def seen(self) -> tuple[Seen, ...]:
        return tuple(sorted(self._looks, key=lambda one: one.at_s))

    async def watch(self, over: asyncio.Event) -> None:
        """Looks until it is over."""
        async with asyncio.TaskGroup() as looks:
            while not over.is_set():
                looks.create_task(self.look())
                await _wait(over, LOOK_S)

    async def until_whole(self, timeout_s: float) -> None:
        """Returns at the first look that finds nothing missing. Raises DeadlineExceeded with what is."""
        end = time.monotonic() + timeout_s
        while not (seen := await self.look()).is_whole:
            if time.monotonic() > end:
                raise DeadlineExceeded(f"having the system whole ({', '.join(seen.missing)})", timeout_s * 1000)
            await asyncio.sleep(LOOK_S)

    async def look(self) -> Seen:
        """One look. Its time is when it began."""
        at_s = time.monotonic() - self._start
        checks: list[tuple[str, Awaitable[str]]] = [
            ("nodes", self._missing_nodes()),
            ("encoders", self._missing_encoders()),
            ("module", _unless(self._system.module_answers, "module")),
        ]
        for address in self._addresses:
            checks.append((address, _unless(partial(self._system.is_healthy, address), address)))
        found = await asyncio.gather(*(_in_time(name, check) for name, check in checks))
        seen = Seen(at_s, tuple(missing for missing in found if missing))
        self._looks.append(seen)
        return seen

    async def _missing_nodes(self) -> str:
        alive = await self._system.alive_nodes()
        return "" if alive == self._nodes else f"nodes: {alive} of {self._nodes}"

    async def _missing_encoders(self) -> str:
        unready = await self._system.unready_encoders()
        return f"encoders: {', '.join(unready)}" if unready else ""


async def _unless(check: Callable[[], Awaitable[bool]], name: str) -> str:
    return "" if await check() else name


async def _in_time(name: str, check: Awaitable[str]) -> str:
    """What the check finds missing; its own name where it finds out nothing."""
    try:
        async with asyncio.timeout(ANSWER_S):
            return await check
    except (NoodleError, TimeoutError):
        return name


async def _wait(over: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await over.wait()
    except TimeoutError:
        return
