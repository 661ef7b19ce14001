"""Checkpoints: when the state of a module is exported and kept, so that little, or nothing, is lost with its host."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal

from noodle_ray.errors import CallInterrupted, Conflict, Unavailable

RETRY_S = 1.0
"""How long after a state could not be kept that is tried again."""

DURABLE_WAIT_S = 30.0
"""How long a durable call waits for its state to be kept."""

Export = Callable[[], Awaitable[bytes]]
Keep = Callable[[bytes], Awaitable[None]]


class Checkpointer:
    """Keeps one module's state as its calls end; one checkpoint at a time.

    Of a durable module, a call is answered when a checkpoint is kept that began after the call had ended: all calls
    that ended before it began share it (group commit, as databases do it: DeWitt et al. 1984, section 5). Of others,
    there is one checkpoint `checkpoint_s` after the first call that ended since the last.

    `export` gives the state; `keep` keeps it, and raises Unavailable where that should be tried again, or Conflict
    where another host has taken over: then this one is fenced, and keeps nothing any more.
    """

    def __init__(
        self,
        module: str,
        export: Export,
        keep: Keep,
        durable: bool,
        checkpoint_s: float,
        *,
        retry_s: float = RETRY_S,
        wait_s: float = DURABLE_WAIT_S,
        on_failure: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        """`on_failure` is told of each checkpoint that failed."""
        self._module, self._export, self._keep = module, export, keep
        self._durable, self._checkpoint_s = durable, checkpoint_s
        self._retry_s, self._wait_s, self._on_failure = retry_s, wait_s, on_failure
        self._fenced: Conflict | None = None
        self._stopped = False
        self._is_due = False
        self._waiting: list[asyncio.Future[None]] = []
        self._task: asyncio.Task[None] | None = None
        self._keeping: asyncio.Future[None] | None = None

    async def call_ended(self, function: str) -> None:
        """To be awaited after each call, before it is answered.

        Of a durable module it raises CallInterrupted where the state could not be kept, or what the export raised.
        """
        self._is_due = True
        if not self._durable:
            self._go_on()
            return
        self._require_unfenced(function)
        kept = asyncio.get_running_loop().create_future()
        self._waiting.append(kept)
        self._go_on()
        try:
            async with asyncio.timeout(self._wait_s):
                await kept
        except TimeoutError:
            raise self._interrupted(function) from None
        except Conflict as error:
            raise self._interrupted(function) from error
        finally:
            if kept in self._waiting:
                self._waiting.remove(kept)

    def _require_unfenced(self, function: str) -> None:
        if self._fenced is not None:
            raise self._interrupted(function) from self._fenced

    def _interrupted(self, function: str) -> CallInterrupted:
        return CallInterrupted(self._module, function, "its state could not be kept")

    async def stop(self) -> None:
        """From now on nothing is exported or kept, and durable calls wait; returns when what was being kept is."""
        self._stopped = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None  # one that had not begun yet could not do that itself
        if self._keeping is not None:
            await asyncio.wait([self._keeping])

    def start(self) -> None:
        """Goes on after a stop, also where another host had taken over: it has given back."""
        self._stopped, self._fenced = False, None
        self._go_on()

    def _go_on(self) -> None:
        if self._task is None and self._is_due and not self._stopped and self._fenced is None:
            self._task = asyncio.create_task(self._work())

    async def _work(self) -> None:
        """Makes checkpoints until none is due."""
        delay_s = 0.0 if self._durable else self._checkpoint_s
        try:
            while self._is_due and self._fenced is None:
                await asyncio.sleep(delay_s)
                outcome = await self._checkpoint()
                delay_s = self._retry_s if outcome == "again" else 0.0 if self._durable else self._checkpoint_s
        finally:
            self._task = None

    async def _checkpoint(self) -> Literal["kept", "failed", "again"]:
        """One checkpoint, for all calls that have ended by now."""
        self._is_due = False
        covered, self._waiting = self._waiting, []
        try:
            self._keeping = asyncio.ensure_future(self._keep(await self._export()))
            # What is on its way is not taken back: it is waited for, by whoever stops this, too.
            await asyncio.shield(self._keeping)
        except (Unavailable, asyncio.CancelledError) as error:
            self._is_due = True
            self._waiting = covered + self._waiting
            if isinstance(error, asyncio.CancelledError):
                raise
            self._on_failure(error)
            return "again"
        except Exception as error:
            # Whatever it is, calls wait for the outcome.
            self._on_failure(error)
            self._fail(covered, error)
            # Nobody was told, where nobody waits for it: then it is tried again.
            self._is_due = self._is_due or not self._durable
            return "again" if not self._durable else "failed"
        _finish(covered, None)
        return "kept"

    def _fail(self, covered: list[asyncio.Future[None]], error: Exception) -> None:
        if isinstance(error, Conflict):
            self._fenced = error
            covered, self._waiting = covered + self._waiting, []
        _finish(covered, error)


def _finish(waiting: list[asyncio.Future[None]], error: Exception | None) -> None:
    for kept in waiting:
        if kept.done():
            continue
        if error is None:
            kept.set_result(None)
        else:
            kept.set_exception(error)
