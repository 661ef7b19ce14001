"""The module registry for drivers: `cluster.modules`, synchronous, and `cluster.aio.modules`; handles of modules."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from noodle_ray.actors.ports import ActorModules
from noodle_ray.entry.loop_thread import LoopThread
from noodle_ray.modules.artefact import pack_module
from noodle_ray.modules.call_route import CallTarget
from noodle_ray.modules.graph import ModuleGraph


class AsyncModule:
    """A module to be called, whatever hosts it has at the time; see `AsyncModules.get`."""

    def __init__(self, registry: ActorModules, name: str, session: str | None, version: str | None) -> None:
        self._registry, self.name, self._session, self._version = registry, name, session, version

    async def call(self, function: str, *args: Any, **kwargs: Any) -> Any:
        """What the function gives.

        Raises ModuleFailed with the module's own traceback, CallInterrupted where its host ended meanwhile.
        """
        return await self._registry.call(self._target(function), args, kwargs)

    def stream(self, function: str, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """What a generator of the module yields, item by item. Raises as `call`."""
        return self._registry.stream(self._target(function), args, kwargs)

    def _target(self, function: str) -> CallTarget:
        return CallTarget(self.name, function, self._session, self._version)


class AsyncModules:
    """The module registry."""

    def __init__(self) -> None:
        self._registry = ActorModules()

    async def publish(self, module: Path | str | bytes) -> dict[str, Any]:
        """Publishes a module's directory, wheel, or packed archive. The same content twice is no error."""
        archive = module if isinstance(module, bytes) else pack_module(Path(module))
        return await self._registry.publish(archive)

    async def list(self) -> Sequence[dict[str, Any]]:
        return await self._registry.modules()

    async def describe(self, name: str) -> dict[str, Any]:
        return await self._registry.describe(name)

    async def graph(self) -> ModuleGraph:
        """Who needs whom: of each module the loaded version, else the newest."""
        return ModuleGraph.parse(await self._registry.graph())

    async def resolve(self, requirements: Mapping[str, str], minimal_change: bool = False) -> dict[str, Any]:
        """The lock that satisfies them: exact versions in the order of loading. Raises Unresolvable, which explains.

        `minimal_change`: what is loaded already comes before newer versions, where it will do; so for `load`, `swap`.
        """
        return await self._registry.resolve(dict(requirements), minimal_change)

    async def load(
        self, name: str, constraint: str = "", minimal_change: bool = False, fresh: bool = False
    ) -> dict[str, Any]:
        """Loads a module. `fresh`: a state that was left by an unload is forgotten."""
        return await self._registry.load(name, constraint, minimal_change, fresh)

    def get(self, name: str, session: str | None = None, version: str | None = None) -> AsyncModule:
        """A handle for calls.

        Calls of one `session` run one after the other, in the order in which they are made here, and on one host as
        long as that is there. `version` is a constraint: only running versions that satisfy it are called.
        """
        return AsyncModule(self._registry, name, session, version)

    async def call(self, name: str, function: str, *args: Any, **kwargs: Any) -> Any:
        """Calls a function of a loaded module. Raises as `AsyncModule.call`."""
        return await self.get(name).call(function, *args, **kwargs)

    def stream(self, name: str, function: str, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """What a generator of a loaded module yields, item by item. Raises as `AsyncModule.call`."""
        return self.get(name).stream(function, *args, **kwargs)

    async def swap(
        self, name: str, constraint: str = "", minimal_change: bool = False, force: bool = False
    ) -> dict[str, Any]:
        """Replaces the running version; calls in flight end on the old one.

        Raises Incompatible where callers of the running version would stumble over the new one, unless `force`, and
        ModuleFailed where it did worse than the old one, which then goes on.
        """
        return await self._registry.swap(name, constraint, minimal_change, force)

    async def rollback(self, name: str) -> dict[str, Any]:
        """Goes back to the version before the last swap. Raises Conflict where there is none."""
        return await self._registry.rollback(name)

    async def unload(self, name: str) -> None:
        """Ends a loaded module when its calls have ended; its state is kept for the next load."""
        await self._registry.unload(name)

    async def yank(self, name: str, version: str) -> dict[str, Any]:
        """Takes a version out of future resolutions; what runs goes on."""
        return await self._registry.yank(name, version)


class Module:
    """A module to be called, whatever hosts it has at the time; see `Modules.get`."""

    def __init__(self, loop: LoopThread, module: AsyncModule) -> None:
        self._loop, self._aio, self.name = loop, module, module.name

    def call(self, function: str, *args: Any, **kwargs: Any) -> Any:
        """What the function gives.

        Raises ModuleFailed with the module's own traceback, CallInterrupted where its host ended meanwhile.
        """
        return self._loop.run(self._aio.call(function, *args, **kwargs))

    def stream(self, function: str, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """What a generator of the module yields, item by item. Raises as `call`."""
        return self._loop.iterate(self._aio.stream(function, *args, **kwargs))


class Modules:
    """The module registry, synchronous."""

    def __init__(self, loop: LoopThread, aio: AsyncModules) -> None:
        self._loop, self._run, self._aio = loop, loop.run, aio

    def publish(self, module: Path | str | bytes) -> dict[str, Any]:
        """Publishes a module's directory, wheel, or packed archive. The same content twice is no error."""
        return self._run(self._aio.publish(module))

    def list(self) -> Sequence[dict[str, Any]]:
        return self._run(self._aio.list())

    def describe(self, name: str) -> dict[str, Any]:
        return self._run(self._aio.describe(name))

    def graph(self) -> ModuleGraph:
        """Who needs whom: of each module the loaded version, else the newest."""
        return self._run(self._aio.graph())

    def resolve(self, requirements: Mapping[str, str], minimal_change: bool = False) -> dict[str, Any]:
        """The lock that satisfies them: exact versions in the order of loading. Raises Unresolvable, which explains.

        `minimal_change`: what is loaded already comes before newer versions, where it will do; so for `load`, `swap`.
        """
        return self._run(self._aio.resolve(requirements, minimal_change))

    def load(
        self, name: str, constraint: str = "", minimal_change: bool = False, fresh: bool = False
    ) -> dict[str, Any]:
        """Loads a module. `fresh`: a state that was left by an unload is forgotten."""
        return self._run(self._aio.load(name, constraint, minimal_change, fresh))

    def get(self, name: str, session: str | None = None, version: str | None = None) -> Module:
        """A handle for calls.

        Calls of one `session` run one after the other, in the order in which they are made here, and on one host as
        long as that is there. `version` is a constraint: only running versions that satisfy it are called.
        """
        return Module(self._loop, self._aio.get(name, session, version))

    def call(self, name: str, function: str, *args: Any, **kwargs: Any) -> Any:
        """Calls a function of a loaded module. Raises as `Module.call`."""
        return self.get(name).call(function, *args, **kwargs)

    def stream(self, name: str, function: str, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """What a generator of a loaded module yields, item by item. Raises as `Module.call`."""
        return self.get(name).stream(function, *args, **kwargs)

    def swap(
        self, name: str, constraint: str = "", minimal_change: bool = False, force: bool = False
    ) -> dict[str, Any]:
        """Replaces the running version; calls in flight end on the old one.

        Raises Incompatible where callers of the running version would stumble over the new one, unless `force`, and
        ModuleFailed where it did worse than the old one, which then goes on.
        """
        return self._run(self._aio.swap(name, constraint, minimal_change, force))

    def rollback(self, name: str) -> dict[str, Any]:
        """Goes back to the version before the last swap. Raises Conflict where there is none."""
        return self._run(self._aio.rollback(name))

    def unload(self, name: str) -> None:
        """Ends a loaded module when its calls have ended; its state is kept for the next load."""
        self._run(self._aio.unload(name))

    def yank(self, name: str, version: str) -> dict[str, Any]:
        """Takes a version out of future resolutions; what runs goes on."""
        return self._run(self._aio.yank(name, version))
