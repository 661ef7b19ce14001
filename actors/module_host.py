"""The module host: one interpreter that runs one version of one module, with what it depends on."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import os
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import ray

from noodle_ray.errors import Conflict, InvalidInput, ModuleFailed, NotFound, Unavailable
from noodle_ray.modules import artefact
from noodle_ray.modules.call_route import Retired

MAX_THREADS = 32
"""Synchronous functions that run side by side; more wait their turn."""

MAX_CALLS = 10_000
"""Calls that a host accepts at once."""


class ModuleHost:
    """An actor that is started empty, is given one module, runs its functions, and ends with it."""

    def __init__(self, cache_dir: str) -> None:
        self._cache = Path(cache_dir)
        self._threads = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="module")
        self._name = ""
        self._entry: object = None
        self._functions: dict[str, Callable[..., Any]] = {}
        self._health_check: Callable[..., Any] | None = None
        self._retired = False
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    # -- loading

    async def missing(self, hashes: Sequence[str]) -> list[str]:
        """Those artefacts that this machine's cache has not, or not whole: `load` needs their bytes."""
        return await asyncio.to_thread(lambda: [sha for sha in hashes if not artefact.is_cached(self._cache, sha)])

    async def load(
        self, artefacts: Sequence[tuple[str, str, bytes | None]], entry_point: str, health_check: str | None
    ) -> dict[str, float]:
        """Loads a module. `artefacts` are (name, sha256, packed bytes, or None where they are cached), in the order of
        the lock: the module itself is the last. Gives the milliseconds of each stage.

        Raises CorruptData, Conflict (a host takes one module), or ModuleFailed with the module's traceback.
        """
        if self._name:
            raise Conflict(f"this host has {self._name} already")
        self._name = artefacts[-1][0]
        start = time.perf_counter()
        folders = await asyncio.to_thread(self._unpack_all, artefacts)
        _require_own_names(folders)
        unpacked = time.perf_counter()
        await asyncio.get_running_loop().run_in_executor(
            self._threads, self._guard, partial(self._import, folders, entry_point)
        )
        self._health_check = self._find_health_check(health_check)
        return {"unpack": _ms(unpacked - start), "import": _ms(time.perf_counter() - unpacked)}

    def _unpack_all(self, artefacts: Sequence[tuple[str, str, bytes | None]]) -> list[Path]:
        return [
            artefact.verified(self._cache, sha) if content is None else artefact.unpack(content, sha, self._cache)
            for _, sha, content in artefacts
        ]

    def _import(self, folders: Sequence[Path], entry_point: str) -> None:
        for folder in folders:
            sys.path.insert(0, str(folder))
        importlib.invalidate_caches()
        file, _, class_name = entry_point.partition(":")
        module = importlib.import_module(file)
        self._entry = getattr(module, class_name)() if class_name else module
        self._functions = _methods(self._entry) if class_name else _functions(module)

    def _find_health_check(self, name: str | None) -> Callable[..., Any] | None:
        if name is None:
            return None
        found = getattr(self._entry, name, None)
        if not callable(found):
            raise ModuleFailed(self._name, f"it has no function {name!r}, which its manifest names as the health check")
        return found  # type: ignore[no-any-return]

    # -- calling

    async def check(self) -> None:
        """Runs the module's health check, if it has one. Raises ModuleFailed where it raises, or answers False."""
        if self._health_check is not None and await self._run(self._health_check, (), {}) is False:
            raise ModuleFailed(self._name, "its health check answered False")

    async def call(self, function: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Runs one public function: in a thread, or awaited where it is asynchronous. Retired where it was replaced.

        Raises NotFound with the public names, InvalidInput where the arguments do not fit the function, or
        ModuleFailed with the traceback of what the module raised.
        """
        if self._retired:
            return Retired()
        self._in_flight += 1
        self._idle.clear()
        try:
            return await self._run(self._find(function), args, kwargs)
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()

    def _find(self, function: str) -> Callable[..., Any]:
        if not self._name:
            raise Unavailable("this host has no module yet")
        if function not in self._functions:
            raise NotFound("function", f"{self._name}.{function}", sorted(self._functions))
        return self._functions[function]

    async def _run(self, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        _require_fitting(function, args, kwargs)
        if inspect.iscoroutinefunction(function):
            result = await self._guard_async(function(*args, **kwargs))
        else:
            work = partial(function, *args, **kwargs)
            result = await asyncio.get_running_loop().run_in_executor(self._threads, self._guard, work)
        if inspect.isgenerator(result) or inspect.isasyncgen(result):
            raise ModuleFailed(self._name, "it gave a generator; give a list instead")
        return result

    def _guard(self, work: Callable[[], Any]) -> Any:
        """Runs the module's code: whatever it raises, an exit too, is its failure and not this host's."""
        try:
            return work()
        except BaseException as error:
            raise self._failure(error) from None

    async def _guard_async(self, work: Awaitable[Any]) -> Any:
        try:
            return await work
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            raise self._failure(error) from None

    def _failure(self, error: BaseException) -> ModuleFailed:
        problem = "".join(traceback.format_exception_only(error)).strip()
        return ModuleFailed(self._name, problem, "".join(traceback.format_exception(error)))

    # -- living and ending

    async def retire(self) -> None:
        """From now on answers calls with Retired; returns when those that run have ended."""
        self._retired = True
        await self._idle.wait()

    async def ping(self) -> dict[str, Any]:
        """Who this is: the module it has ("" while it is empty), its node and its process."""
        return {"module": self._name, "node_id": ray.get_runtime_context().get_node_id(), "pid": os.getpid()}

    async def outlive(self) -> None:
        """Never returns: awaiting it raises when the host has ended, which tells of its death at once."""
        await asyncio.Event().wait()


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _require_own_names(folders: Sequence[Path]) -> None:
    """A package that could be another's would be imported from the wrong place, or break what runs here."""
    owners: dict[str, Path] = {}
    for folder in folders:
        for name in sorted(artefact.top_level_names(folder)):
            if name in owners:
                raise InvalidInput.of("module", f"two modules of the lock have a package {name!r}")
            if name in sys.modules or importlib.util.find_spec(name) is not None:
                raise InvalidInput.of("module", f"its package {name!r} has the name of one that is installed here")
            owners[name] = folder


def _methods(instance: object) -> dict[str, Callable[..., Any]]:
    """The public methods of the entry point's class, bound."""
    names = [name for name in dir(type(instance)) if not name.startswith("_")]
    return {name: getattr(instance, name) for name in names if callable(getattr(type(instance), name))}


def _functions(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """The public functions of the entry point's file: those in __all__, or else those that it defines itself."""
    listed = getattr(module, "__all__", None)
    names = [name for name in vars(module) if not name.startswith("_")] if listed is None else list(listed)
    found = {name: getattr(module, name) for name in names}
    return {
        name: value
        for name, value in found.items()
        if inspect.isroutine(value) and (listed is not None or value.__module__ == module.__name__)
    }


@lru_cache(maxsize=1000)
def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (ValueError, TypeError):  # some functions in C have none: they check for themselves
        return None


def _require_fitting(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    signature = _signature(function)
    if signature is None:
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise InvalidInput.of("arguments", f"{error}; the function is {function.__name__}{signature}") from None
