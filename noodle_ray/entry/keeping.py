"""Keeping work alive: an allocation that is followed from home to home, with the holder's work started in each."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Generic, Protocol, TypeVar

import structlog

from noodle_ray.errors import NotFound
from noodle_ray.nodes.following import Confirm, End, Start, Step, next_step
from noodle_ray.placement.allocation import Allocation

log = structlog.get_logger()
T = TypeVar("T")
Home = TypeVar("Home")

POLL_S = 30.0
"""How long the manager is asked to wait for a change before it answers that there is none."""

PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""The pauses after a failure, and after each that follows it; the last one from then on."""


class Follows(Protocol):
    """What the one who follows asks of the manager."""

    async def changed(self, allocation_id: str, mark: str, wait_s: float) -> Allocation:
        """Raises NotFound."""
        ...

    async def move_confirmed(self, allocation_id: str, epoch: int) -> None: ...

    async def release(self, allocation_id: str) -> None:
        """Raises NotFound."""
        ...


class Kept(Generic[Home, T]):
    """Work that is started anew in every home that its allocation gets. Use it in a `with` block, or call `close`.

    `result`: what the last start gave; `held`: where that was; `lost`: why there will be no other home, None while
    there may be. `on_change` is called, in a thread of this object, after each start but the first and when it is lost.
    A start that raises is tried again, after a pause; what was started before is the holder's to end.
    """

    def __init__(
        self, allocation: Allocation, manager: Follows, home: Callable[[Allocation], Home], start: Callable[[Home], T]
    ) -> None:
        """Starts the work for the first time, here and now; raises what that raises."""
        self.held = home(allocation)
        self.result = start(self.held)
        self.lost: str | None = None
        self.on_change: Callable[[Kept[Home, T]], object] | None = None
        self._home, self._start, self._manager = home, start, manager
        self._known, self._is_there = allocation, True
        self._started, self._failures = allocation.epoch, 0
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._stop = asyncio.Event()
        self._release = False
        self._release_error: Exception | None = None
        self._loop = self._runner.get_loop()
        self._thread = threading.Thread(target=self._follow, name=f"keep-{allocation.id}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Kept[Home, T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Follows it no more, and releases it. Waits for a start that is under way. Raises Unavailable."""
        self._release = True
        self.stop()
        if self._release_error is not None:
            raise self._release_error

    def stop(self) -> None:
        """Follows it no more, but releases nothing."""
        with suppress(RuntimeError):  # its loop is closed: it has ended already
            self._loop.call_soon_threadsafe(self._stop.set)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # -- in its thread; the holder's own code runs between the turns of the loop, so that it may have loops of its own

    def _follow(self) -> None:
        with self._runner:
            while not self._stop.is_set() and self.lost is None:
                self._perform(next_step(self._known if self._is_there else None, self._started))
            if self._release or self.lost is not None:  # of one that is lost, the row
                self._runner.run(self._give_back())

    def _perform(self, step: Step) -> None:
        try:
            match step:
                case Start(home):
                    self._start_in(home)
                case Confirm(epoch):
                    self._runner.run(self._confirm(epoch))
                case End(reason):
                    self.lost = reason
                    self._tell()
                case _:
                    self._runner.run(self._look(POLL_S))
            self._failures = 0
        except Exception as error:  # the holder's own, or Ray's where the cluster is away: neither ends the keeping
            self._failed(error)

    def _start_in(self, home: Allocation) -> None:
        held = self._home(home)
        self.result = self._start(held)
        self.held, self._started = held, home.epoch
        log.info("started_again", allocation=home.id, epoch=home.epoch, node=home.node_id)
        self._tell()

    def _tell(self) -> None:
        if self.on_change is None:
            return
        try:
            self.on_change(self)
        except Exception as error:  # it is told of the change, it does not decide about it
            log.exception("on_change_failed", error=repr(error))

    def _failed(self, error: Exception) -> None:
        pause_s = PAUSES_S[min(self._failures, len(PAUSES_S) - 1)]
        self._failures += 1
        log.warning("keeping_failed", error=repr(error), again_in_s=pause_s, exc_info=error)
        self._runner.run(self._pause(pause_s))

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)
        if not self._stop.is_set():
            with suppress(Exception):  # what it fails of now it fails of again, where that is counted
                await self._look(0.0)

    async def _confirm(self, epoch: int) -> None:
        await self._manager.move_confirmed(self._known.id, epoch)
        await self._look(0.0)

    async def _look(self, wait_s: float) -> None:
        """Sees what it is now, as soon as that is something else; gives up looking when told to stop."""
        looking = asyncio.ensure_future(self._manager.changed(self._known.id, self._known.mark, wait_s))
        stopped = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait((looking, stopped), return_when=asyncio.FIRST_COMPLETED)
            if looking.done():
                self._known = await looking
        except NotFound:
            self._is_there = False
        finally:
            looking.cancel()
            stopped.cancel()

    async def _give_back(self) -> None:
        try:
            with suppress(NotFound):
                await self._manager.release(self._known.id)
            self.lost = self.lost or "it was released"
        except Exception as error:  # raised where close is called
            log.warning("release_failed", allocation=self._known.id, error=repr(error))
            self._release_error = error
