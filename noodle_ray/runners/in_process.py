"""The runner that runs a module's code in this very process: nothing is between it and who calls."""

from __future__ import annotations

import asyncio
import importlib
import sys
import threading
import traceback
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any

from noodle_ray.errors import ModuleFailed, NotFound, Unavailable
from noodle_ray.runners import functions as entry_points
from noodle_ray.runners.functions import Function
from noodle_ray.runners.import_path import import_path, require_own_names
from noodle_ray.runners.output import limit_output, restore_output
from noodle_ray.runners.runner import Program
from noodle_ray.runners.state import pack_state, unpack_state

MAX_THREADS = 32
"""Synchronous functions that run side by side; more wait their turn."""

EXPORT_STATE = "export_state"
IMPORT_STATE = "import_state"
_END = object()


class InProcessRunner:
    """Runs one program in this process: synchronous functions in threads, asynchronous ones in the event loop.

    `plain_state`: state is packed as plain data, for a process whose bytes nobody else may have to trust.
    """

    def __init__(self, plain_state: bool = False) -> None:
        self._plain_state = plain_state
        self._threads = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="module")
        self._module = ""
        self._path: list[str] = []
        self._entry: object = None
        self._functions: dict[str, Function] = {}
        self._health_check: Function | None = None
        self._closed = False

    async def load(self, program: Program) -> None:
        """Imports it and makes the entry point ready. Raises ModuleFailed, InvalidInput (names that are taken)."""
        self._module = program.module
        require_own_names(program.folders)
        self._path = import_path(program)
        limit_output()
        await self._in_thread(self._import, program)
        if program.health_check is not None:
            self._health_check = await self._own(program.health_check, "which its manifest names as the health check")

    def _import(self, program: Program) -> None:
        sys.path[:0] = self._path
        importlib.invalidate_caches()
        file, _, class_name = program.entry_point.partition(":")
        module = importlib.import_module(file)
        reserved = {EXPORT_STATE, IMPORT_STATE, program.health_check or ""}
        if class_name:
            self._entry = getattr(module, class_name)()
            self._functions = entry_points.methods(self._entry, reserved)
        else:
            self._entry = module
            self._functions = entry_points.functions(module, reserved)

    async def _own(self, name: str, why: str) -> Function:
        """A function of the entry point that is for us and not for callers."""

        def find() -> Function | None:
            found = getattr(self._entry, name, None)
            return Function.of(name, found) if callable(found) else None

        found: Function | None = await self._in_thread(find)
        if found is None:
            raise ModuleFailed(self._module, f"it has no function {name!r}, {why}")
        return found

    # -- calling

    async def check(self) -> None:
        """Runs the health check, if there is one. Raises ModuleFailed where it raises, or answers False."""
        if self._health_check is not None and await self._run(self._health_check, (), {}) is False:
            raise ModuleFailed(self._module, "its health check answered False")

    async def call(self, function: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Runs one public function. Raises NotFound with the public names, InvalidInput (arguments), ModuleFailed."""
        result = await self._run(self._find(function, args, kwargs), args, kwargs)
        if isinstance(result, GeneratorType | AsyncGeneratorType):
            raise ModuleFailed(self._module, f"{function} gives a generator: stream it")
        return result

    async def stream(self, function: str, args: Sequence[Any], kwargs: dict[str, Any]) -> AsyncGenerator[Any, None]:
        """Runs one public generator, item by item; closing it early closes the generator. Raises as `call`."""
        made = await self._run(self._find(function, args, kwargs), args, kwargs)
        if isinstance(made, AsyncGeneratorType):
            items = self._items_async(made)
        elif isinstance(made, GeneratorType):
            items = self._items(made)
        else:
            raise ModuleFailed(self._module, f"{function} gives no generator: call it")
        async with aclosing(items):
            async for item in items:
                yield item

    async def _items(self, generator: Generator[Any, Any, Any]) -> AsyncGenerator[Any, None]:
        # Who is cancelled while the next item is made leaves it being made: it must end before it can be closed.
        busy = threading.Lock()

        def advance() -> Any:
            with busy:
                return next(generator, _END)

        def end() -> None:
            with busy:
                generator.close()

        try:
            while (item := await self._in_thread(advance)) is not _END:
                yield item
        finally:
            if not self._closed:
                await self._in_thread(end)

    async def _items_async(self, generator: AsyncGenerator[Any, Any]) -> AsyncGenerator[Any, None]:
        try:
            while (item := await self._guard_async(anext, generator, _END)) is not _END:
                yield item
        finally:
            await self._guard_async(generator.aclose)

    def _find(self, function: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Function:
        if self._closed:
            raise Unavailable(f"{self._module} was closed")
        found = self._functions.get(function)
        if found is None:
            raise NotFound("function", f"{self._module}.{function}", sorted(self._functions))
        found.require_fitting(args, kwargs)
        return found

    async def _run(self, function: Function, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        if function.is_async:
            return await self._guard_async(function.code, *args, **kwargs)
        result = await self._in_thread(function.code, *args, **kwargs)
        # A decorator may hide that a function is asynchronous.
        return await self._guard_async(lambda: result) if isinstance(result, CoroutineType) else result

    # -- state

    async def export_state(self) -> bytes:
        """What the entry point's `export_state` gives, packed. Raises ModuleFailed."""
        state = await self._run(await self._own(EXPORT_STATE, "which a module that has state needs"), (), {})
        packed: bytes = await self._in_thread(pack_state, state, self._plain_state)
        return packed

    async def import_state(self, state: bytes, from_version: int) -> None:
        """Has the entry point's `import_state` take what a version's runner exported. Raises ModuleFailed."""
        take = await self._own(IMPORT_STATE, "which a module that has state needs")
        await self._run(take, (await self._in_thread(unpack_state, state), from_version), {})

    # -- guarding

    async def _in_thread(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        def guarded() -> Any:
            """Whatever the module raises, an exit too, is its failure and not this process's."""
            try:
                return work(*args, **kwargs)
            except BaseException as error:
                raise self._failure(error) from None

        return await asyncio.get_running_loop().run_in_executor(self._threads, guarded)

    async def _guard_async(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        try:
            return await work(*args, **kwargs)
        except BaseException as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise  # who called has given up; a module that cancels itself has failed
            raise self._failure(error) from None

    def _failure(self, error: BaseException) -> ModuleFailed:
        problem = "".join(traceback.format_exception_only(error)).strip()
        return ModuleFailed(self._module, problem, "".join(traceback.format_exception(error)))

    async def ended(self) -> None:
        """Never returns: it ends with this process."""
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Takes no more calls. Threads that still run a function of the module cannot be ended: they run on."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        restore_output()
        sys.path[:] = [entry for entry in sys.path if entry not in self._path]
