"""The module host: an actor that runs one version of one module, with what it depends on, behind a runner."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Literal

import ray
import structlog

from noodle_ray.errors import Conflict, InvalidInput, ModuleFailed, NoodleError, NotFound, Unavailable
from noodle_ray.logs import configure_logs
from noodle_ray.modules import artefact
from noodle_ray.modules.call_route import Retired
from noodle_ray.modules.call_stats import CallCounter, CallStats
from noodle_ray.modules.manifest import Manifest, RunnerKind
from noodle_ray.runners.checkpoints import Checkpointer
from noodle_ray.runners.in_process import InProcessRunner
from noodle_ray.runners.runner import Program, Runner
from noodle_ray.runners.sandboxed import SandboxedRunner
from noodle_ray.runners.state_offer import StateOffer
from noodle_ray.settings import read_settings

log = structlog.get_logger()

MAX_CALLS = 10_000
"""Calls that a host accepts at once."""

LAST_ANSWERS_S = 0.5
"""How long a host lives on when its sandboxed process has ended, so that those who wait hear of it."""


class ModuleHost:
    """An actor that is started empty, is given one module, runs its functions, and ends with it."""

    def __init__(self, cache_dir: str) -> None:
        configure_logs(read_settings().log_level)
        self._cache = Path(cache_dir)
        self._name = ""
        self._runner: Runner | None = None
        self._checkpoints: Checkpointer | None = None
        self._offer = StateOffer()
        self._counter = CallCounter()
        self._was_well = False
        self._takes: Literal["all", "pinned", "none"] = "all"
        self._running = {False: 0, True: 0}  # calls, by whether they are pinned
        self._idle = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    # -- loading

    async def load(
        self, artefacts: Sequence[tuple[str, str, bytes | None]], manifest: Manifest
    ) -> dict[str, float] | artefact.Missing:
        """Loads a module. `artefacts` are (name, sha256, packed bytes, or None where they may be cached), in the order
        of the lock: the module itself is the last. Gives the milliseconds of each stage, or says what is missing: then
        nothing has happened.

        Raises CorruptData, Conflict (a host takes one module), InvalidInput, or ModuleFailed with the traceback.
        """
        if self._name:
            raise Conflict(f"this host has {self._name} already")
        start = time.perf_counter()
        folders = await asyncio.to_thread(self._unpack_all, artefacts)
        if isinstance(folders, artefact.Missing):
            return folders
        self._name = artefacts[-1][0]
        unpacked = time.perf_counter()
        runner = _runner(manifest.runner)
        self._runner = runner
        await runner.load(
            Program(self._name, tuple(folders), manifest.entry_point, manifest.health_check, manifest.vendor)
        )
        self._checkpoints = self._checkpointer(manifest, runner)
        self._was_well = not manifest.is_checked
        self._watching = asyncio.create_task(self._end_with(runner))
        return {"unpack": _ms(unpacked - start), "import": _ms(time.perf_counter() - unpacked)}

    def _unpack_all(self, artefacts: Sequence[tuple[str, str, bytes | None]]) -> list[Path] | artefact.Missing:
        asked = [sha for _, sha, content in artefacts if content is None]
        missing = tuple(sha for sha in asked if not artefact.is_cached(self._cache, sha))
        if missing:
            return artefact.Missing(missing)
        return [
            artefact.cached(self._cache, sha) if content is None else artefact.unpack(content, sha, self._cache)
            for _, sha, content in artefacts
        ]

    def _checkpointer(self, manifest: Manifest, runner: Runner) -> Checkpointer | None:
        spec = manifest.state
        if spec is None:
            return None
        return Checkpointer(
            manifest.name,
            runner.export_state,
            self._offer.keep,
            spec.durable,
            spec.checkpoint_s,
            on_failure=lambda error: log.warning("state_not_kept", module=manifest.name, error=str(error)),
        )

    async def _end_with(self, runner: Runner) -> None:
        """A host whose runner's process has ended is of no use: its own end has it replaced like any other."""
        await runner.ended()
        log.warning("runner_ended", module=self._name)
        await asyncio.sleep(LAST_ANSWERS_S)
        os._exit(1)

    # -- calling

    async def check(self) -> None:
        """Runs the module's health check, if it has one. Raises ModuleFailed where it raises, or answers False."""
        await self._loaded().check()
        self._was_well = True

    async def call(self, function: str, args: Sequence[Any], kwargs: dict[str, Any], pinned: bool = False) -> Any:
        """Runs one public function. Retired where this host was replaced, unless the call is `pinned` to it.

        Raises NotFound with the public names, InvalidInput where the arguments do not fit the function, ModuleFailed
        with the traceback of what the module raised, or CallInterrupted where its state could not be kept.
        """
        if not self._takes_call(pinned):
            return Retired()
        runner, start, failed = self._loaded(), time.perf_counter(), None
        self._began(pinned)
        try:
            result = await self._answer(runner, function, args, kwargs)
            failed = False
            return result
        except ModuleFailed:
            failed = True
            raise
        finally:
            self._ended(pinned, time.perf_counter() - start, failed)

    async def _answer(self, runner: Runner, function: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        ran = True
        try:
            return await runner.call(function, args, kwargs)
        except (NotFound, InvalidInput):
            ran = False
            raise
        finally:
            if ran:  # and if it failed: it may have changed its state before that
                await self._call_ended(function)

    async def stream(
        self, function: str, args: Sequence[Any], kwargs: dict[str, Any], pinned: bool = False
    ) -> AsyncGenerator[Any, None]:
        """Runs one public generator, item by item. One Retired where this host was replaced. Raises as `call`."""
        if not self._takes_call(pinned):
            yield Retired()
            return
        runner, start, failed = self._loaded(), time.perf_counter(), None
        self._began(pinned)
        try:
            async with aclosing(self._items(runner, function, args, kwargs)) as items:
                async for item in items:
                    failed = False
                    yield item
            failed = False
        except ModuleFailed:
            failed = True
            raise
        finally:
            self._ended(pinned, time.perf_counter() - start, failed)

    async def _items(
        self, runner: Runner, function: str, args: Sequence[Any], kwargs: dict[str, Any]
    ) -> AsyncGenerator[Any, None]:
        ran = True
        try:
            async with aclosing(runner.stream(function, args, kwargs)) as items:
                async for item in items:
                    yield item
        except (NotFound, InvalidInput):
            ran = False
            raise
        finally:
            if ran:
                await self._call_ended(function)

    def _loaded(self) -> Runner:
        if self._runner is None:
            raise Unavailable("this host has no module yet")
        return self._runner

    async def _call_ended(self, function: str) -> None:
        if self._checkpoints is not None:
            await self._checkpoints.call_ended(function)

    def _takes_call(self, pinned: bool) -> bool:
        return self._takes == "all" or (pinned and self._takes == "pinned")

    def _began(self, pinned: bool) -> None:
        self._counter.began()
        self._running[pinned] += 1

    def _ended(self, pinned: bool, seconds: float, failed: bool | None) -> None:
        self._counter.ended(seconds, failed)
        self._running[pinned] -= 1
        if not self._running[pinned]:
            self._idle.set()

    # -- state

    async def export_state(self) -> bytes:
        """The module's state, for its next host. From now on this one keeps no state any more, until it resumes.

        Raises ModuleFailed.
        """
        if self._checkpoints is not None:
            await self._checkpoints.stop()
        try:
            return await self._loaded().export_state()
        except NoodleError:
            self._start_checkpoints()
            raise

    async def next_state(self, fetched: int = 0, problem: NoodleError | None = None) -> tuple[int, bytes]:
        """The next state to be kept, and its number; waits for one. `fetched`: the last is kept, but for a `problem`.

        The registry fetches it: for a host to look the registry up would import all of its code, which takes a second.
        """
        return await self._offer.next(fetched, problem)

    async def import_state(self, state: bytes, from_version: int) -> None:
        """Has the module take what another version of it exported. Raises ModuleFailed."""
        await self._loaded().import_state(state, from_version)

    def _start_checkpoints(self) -> None:
        if self._checkpoints is not None:
            self._checkpoints.start()

    # -- living and ending

    async def retire(self, whole: bool = False) -> None:
        """From now on answers calls with Retired, and returns when those that run have ended.

        Unless `whole`, calls that are pinned to its version are still taken, and not waited for.
        """
        self._takes = "none" if whole else "pinned"
        while self._running[False] or (whole and self._running[True]):
            self._idle.clear()
            await self._idle.wait()

    async def resume(self) -> None:
        """Takes calls again, and keeps the state again: calls come back to a host that was to be replaced."""
        self._takes = "all"
        self._start_checkpoints()

    async def stats(self) -> CallStats:
        """The calls that it has had so far."""
        return self._counter.stats()

    async def ping(self) -> dict[str, Any]:
        """Who this is: its module ("" while it is empty), whether that was found well, its node, actor and process."""
        context = ray.get_runtime_context()
        where = {"node_id": context.get_node_id(), "actor_id": context.get_actor_id(), "pid": os.getpid()}
        return {"module": self._name, "ready": self._was_well, **where}

    async def outlive(self) -> None:
        """Never returns: awaiting it raises when the host has ended, which tells of its death at once."""
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Ends what runs the module's code: what still runs is cut off. To be followed by the end of this host."""
        self._takes = "none"
        if self._watching is not None:
            self._watching.cancel()
        if self._checkpoints is not None:
            await self._checkpoints.stop()
        if self._runner is not None:
            await self._runner.close()


def _runner(kind: RunnerKind) -> Runner:
    return _RUNNERS[kind]()


def _serve_runner() -> Runner:
    from noodle_ray.actors.serve_runner import ServeRunner  # Serve takes a second to import

    return ServeRunner()


_RUNNERS: dict[RunnerKind, Callable[[], Runner]] = {
    "in-host": InProcessRunner,
    "sandboxed": SandboxedRunner,
    "serve": _serve_runner,
}


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
