"""A loaded module as its loader sees it: its machine, what each of its hosts holds, and who waits for what."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from noodle_ray.actors.warm_hosts import Host
from noodle_ray.errors import NoodleError, Unavailable
from noodle_ray.modules import swap as hot_swap
from noodle_ray.modules.call_route import Route
from noodle_ray.modules.release import Lock


@dataclass(slots=True)
class Held:
    """What one host of a module holds, filled while it is prepared, so that it can be freed at any moment."""

    host: Host | None = None
    allocation_id: str | None = None
    lock: Lock | None = None
    starting: asyncio.Task[None] | None = None
    recording: asyncio.Task[None] | None = None
    recorded: bool = False
    lingers: bool = False
    limit: asyncio.Timeout | None = None
    milliseconds: dict[str, float] = field(default_factory=dict)

    @property
    def handle(self) -> Any:
        """Its host's handle. Raises Unavailable where there is none any more."""
        if self.host is None:
            raise Unavailable("the host is gone")
        return self.host.handle

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.milliseconds[name] = round((time.perf_counter() - start) * 1000, 3)


@dataclass(slots=True)
class Module:
    """A module that is loaded, or being loaded: its machine, its hosts, and who waits for what."""

    machine: hot_swap.HotSwap
    route: Route | None = None
    held: dict[int, Held] = field(default_factory=dict)
    waiting: dict[int, asyncio.Future[None]] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def name(self) -> str:
        return self.machine.module

    def expect(self, epoch: int) -> asyncio.Future[None]:
        """What ends when the host's load or swap, or the unload with this number, is done or given up."""
        self.waiting[epoch] = asyncio.get_running_loop().create_future()
        return self.waiting[epoch]

    def finished(self, epoch: int) -> None:
        waiting = self.waiting.pop(epoch, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def given_up(self, epoch: int, error: NoodleError) -> None:
        waiting = self.waiting.pop(epoch, None)
        if waiting is not None and not waiting.done():
            waiting.set_exception(error)

    def announce(self) -> None:
        """Wakes those who wait for a route."""
        self.changed.set()
        self.changed = asyncio.Event()
