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
from noodle_ray.modules.call_route import Endpoint, Routes
from noodle_ray.modules.call_stats import CallStats
from noodle_ray.modules.load import KeptState, ModuleChange, RevisionRecord
from noodle_ray.modules.manifest import Manifest
from noodle_ray.modules.scaling import Scaler
from noodle_ray.modules.swap import HotSwap
from noodle_ray.modules.swap_messages import StartHost


@dataclass(slots=True)
class Held:
    """What one host of a module holds, filled while it is prepared, so that it can be freed at any moment."""

    revision: RevisionRecord
    manifest: Manifest
    node_id: str | None = None
    """Where it is, or is about to be."""
    host: Host | None = None
    allocation_id: str | None = None
    starting: asyncio.Task[None] | None = None
    recording: asyncio.Task[None] | None = None
    recorded: bool = False
    ready_at: float | None = None
    calls: CallStats = field(default_factory=CallStats)
    limit: asyncio.Timeout | None = None
    milliseconds: dict[str, float] = field(default_factory=dict)

    @property
    def handle(self) -> Any:
        """Its host's handle. Raises Unavailable where there is none any more."""
        if self.host is None:
            raise Unavailable("the host is gone")
        return self.host.handle

    @property
    def lived_s(self) -> float:
        """How long it has been ready."""
        return 0.0 if self.ready_at is None else time.monotonic() - self.ready_at

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

    machine: HotSwap
    revisions: dict[int, RevisionRecord] = field(default_factory=dict)
    held: dict[int, Held] = field(default_factory=dict)
    waiting: dict[int, asyncio.Future[None]] = field(default_factory=dict)
    changes: dict[int, ModuleChange] = field(default_factory=dict)
    """Those under way, by the number that somebody waits for."""
    moving: asyncio.Task[None] | None = None
    moved: KeptState | None = None
    """What the revision that is being switched to was given."""
    forgets_state: bool = False
    """That revision cannot go on from what is kept."""
    scaler: Scaler | None = None
    spread_at: float = float("-inf")
    """When a host was last sent to another node (monotonic)."""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while one event is decided on and its instructions are begun."""
    stopping: set[asyncio.Task[None]] = field(default_factory=set)
    lingering: dict[int, asyncio.Task[None]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.machine.module

    def expect(self, number: int) -> asyncio.Future[None]:
        """What ends when the load, swap, rollback or unload with this number is done or given up."""
        self.waiting[number] = asyncio.get_running_loop().create_future()
        return self.waiting[number]

    def finished(self, number: int) -> None:
        self.changes.pop(number, None)
        waiting = self.waiting.pop(number, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def given_up(self, number: int, error: NoodleError) -> None:
        self.changes.pop(number, None)
        waiting = self.waiting.pop(number, None)
        if waiting is not None and not waiting.done():
            waiting.set_exception(error)

    def hosts_of(self, revision: int) -> list[Held]:
        """What there is of a revision, the oldest first."""
        return [held for _, held in sorted(self.held.items()) if held.revision.number == revision]

    def nodes_of(self, revision: int) -> dict[int, str]:
        """The node of each host of a revision that has one and is not on its way out, by the host's epoch."""
        found = {epoch: self.held[epoch].node_id for epoch in self.machine.hosts_of(revision) if epoch in self.held}
        return {epoch: node_id for epoch, node_id in found.items() if node_id is not None}

    def holding(self) -> list[tuple[int, Held]]:
        """The hosts, by epoch, that are to hold something all the time: those that were noted down with it."""
        return [(epoch, held) for epoch, held in self.held.items() if held.recorded and held.allocation_id is not None]

    def serves_beside(self, order: StartHost) -> bool:
        """Whether another host of the revision takes calls, so that nobody waits for this one."""
        serving = self.machine.serving
        return serving is not None and serving.number == order.revision and bool(set(serving.ready) - {order.epoch})

    def routes(self, share: float) -> Routes:
        """The table that callers need now."""
        now = self.machine.endpoints
        return Routes(
            self.name,
            0,
            serving=self._endpoints(now.serving),
            canary=self._endpoints(now.canary),
            pinned=self._endpoints(now.pinned),
            share=share,
        )

    def _endpoints(self, epochs: tuple[int, ...]) -> tuple[Endpoint, ...]:
        found = [(epoch, self.held[epoch]) for epoch in epochs if epoch in self.held]
        return tuple(
            Endpoint(epoch, held.revision.version, held.host.handle, frozenset(held.manifest.idempotent))
            for epoch, held in found
            if held.host is not None
        )
