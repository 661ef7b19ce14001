"""The module registry: the actor that publishes, resolves, loads, swaps and unloads modules."""

from __future__ import annotations

import noodle_ray.goes_ahead  # noqa: F401  (what follows takes long to load, and others wait)

# isort: split

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import structlog

from noodle_ray.actors.allocator import NodeManagerAllocator
from noodle_ray.actors.artefact_store import ArtefactStore
from noodle_ray.actors.module_catalogue import entry_source, listed
from noodle_ray.actors.module_loader import ModuleLoader
from noodle_ray.actors.module_recovery import recover
from noodle_ray.actors.module_upkeep import ModuleUpkeep
from noodle_ray.actors.names import MODULE_REGISTRY
from noodle_ray.actors.registry_book import RegistryBook
from noodle_ray.errors import Conflict, Incompatible, Unavailable
from noodle_ray.fusion.catalogue import Listing
from noodle_ray.logs import configure_logs
from noodle_ray.modules.artefact import read_artefact
from noodle_ray.modules.call_route import Routes
from noodle_ray.modules.catalogue import Target
from noodle_ray.modules.graph import module_graph
from noodle_ray.modules.load import RevisionRecord
from noodle_ray.modules.manifest import normalise_name
from noodle_ray.modules.ports import Allocator
from noodle_ray.modules.registry import Publish, StateKept, Yank
from noodle_ray.modules.release import Lock, Release
from noodle_ray.modules.resolver import DependencyResolver
from noodle_ray.modules.swap_messages import LoadAsked, RollbackAsked, SwapAsked
from noodle_ray.settings import Settings
from noodle_ray.store.database import Database
from noodle_ray.store.until_available import until_available

log = structlog.get_logger()

ROUTE_TIMEOUTS = 2
"""So many loading timeouts a call waits for a host: for one that is tried in vain, and for its replacement."""


class ModuleRegistry:
    """One of it runs; killed, it comes back with all it knew."""

    async def __init__(  # type: ignore[misc]  # Ray awaits it
        self, settings: Settings, allocator: Callable[[], Allocator] = NodeManagerAllocator
    ) -> None:
        configure_logs(settings.log_level)
        self._settings = settings
        self._revision = time.time_ns()  # another one than those before a restart
        self._allocator = allocator()
        opening = partial(asyncio.to_thread, Database.open, settings.database, MODULE_REGISTRY)
        database = await until_available(opening)
        self._book = RegistryBook(settings, database)
        self._core = self._book.core
        self._artefacts = ArtefactStore(settings.artefacts)
        self._loader = ModuleLoader(settings, self._allocator, self._book, self._artefacts)
        await until_available(self._book.recover)
        await recover(self._loader, self._book, self._allocator)
        ModuleUpkeep(self._loader, self._allocator).begin()

    # -- publishing

    async def publish(self, archive: bytes) -> dict[str, Any]:
        """Publishes a packed module. The same content again changes nothing.

        Raises InvalidInput, TooLarge, Conflict (other content under a published version), LimitReached.
        """
        artefact = await asyncio.to_thread(read_artefact, archive)
        event = Publish(
            artefact.manifest, artefact.sha256, len(artefact.archive), time.time(), functions=artefact.functions
        )
        self._core.decide(event)  # refuses before anything is written
        await asyncio.to_thread(self._artefacts.put, artefact)
        await self._book.keep(event)
        self._revision += 1
        return self._core.release(artefact.manifest.name, artefact.manifest.version).summary()

    async def yank(self, name: str, version: str) -> dict[str, Any]:
        """Keeps a version out of future locks; what runs goes on. Raises NotFound."""
        await self._book.keep(Yank(name, version))
        self._revision += 1
        return self._core.release(name, version).summary()

    async def modules(self) -> list[dict[str, Any]]:
        """Every published module: its versions, newest first, and the one that is loaded."""
        names = dict.fromkeys(release.name for release in self._core.releases())
        return [self._summary(name) for name in names]

    async def describe(self, name: str) -> dict[str, Any]:
        """One module: its releases, newest first, and what is loaded, where. Raises NotFound."""
        releases = [release.summary() for release in self._core.releases(name)]
        return {**self._summary(releases[0]["name"]), "releases": releases}

    async def listing(self, known: int) -> Listing | None:
        """Every module's newest version that is not yanked; None where nothing was published or yanked since."""
        if known == self._revision:
            return None
        newest: dict[str, Release] = {}
        for release in self._core.releases():
            if not release.yanked:
                newest.setdefault(release.name, release)
        return Listing(self._revision, tuple(map(listed, newest.values())))

    async def source(self, name: str, version: str) -> str:
        """The source of a version's entry point, "" where it has none of its own. Raises NotFound, CorruptData."""
        release = self._core.release(name, version)
        archive = await asyncio.to_thread(self._artefacts.get, release.sha256)
        return await asyncio.to_thread(entry_source, archive, release.manifest.entry_point)

    async def graph(self) -> dict[str, Any]:
        """Who needs whom, of the loaded versions and else the newest: a `ModuleGraph`."""
        return module_graph(self._core.releases(), self._core.loaded_versions()).to_json()

    def _summary(self, name: str) -> dict[str, Any]:
        releases = self._core.releases(name)
        load = next((load for load in self._core.loads() if load.name == name), None)
        serving = load.serving if load is not None else None
        hosts = load.serving_hosts() if load is not None and serving is not None else []
        return {
            "name": name,
            "versions": [release.manifest.version for release in releases],
            "description": releases[0].manifest.description,
            "loaded": serving.version if serving else None,
            "previous": load.previous.version if load is not None and load.previous is not None else None,
            "phase": self._loader.phase(name),
            "node_id": hosts[0].node_id if hosts else None,
            "nodes": [host.node_id for host in hosts],
            "lock": serving.lock.versions() if serving else None,
            "changes": [change.to_json() for change in load.changes] if load is not None else [],
        }

    async def resolve(self, requirements: dict[str, str], minimal_change: bool = False) -> dict[str, Any]:
        """Exact versions for {name or name[feature]: constraint}, in the order of loading.

        `minimal_change`: versions that are loaded already come before newer ones, where they will do.
        Raises InvalidInput, Unresolvable.
        """
        return (await self._resolve(requirements, self._kept(minimal_change))).to_json()

    def _kept(self, minimal_change: bool, but: str = "") -> dict[str, str]:
        """The versions that a resolution is to keep to, of all modules but one."""
        loaded = self._core.loaded_versions() if minimal_change else {}
        return {name: version for name, version in loaded.items() if name != but}

    async def _resolve(self, requirements: dict[str, str], prefer: dict[str, str]) -> Lock:
        releases = self._core.releases()
        resolver = DependencyResolver(Target(accelerators=await self._accelerators(releases)))
        return await asyncio.to_thread(resolver.resolve, requirements, releases, prefer)

    async def _accelerators(self, releases: Sequence[Release]) -> frozenset[str] | None:
        """The types of GPUs that nodes have, where any release asks for one; None where nobody knows."""
        if not any(release.manifest.accelerator_type for release in releases):
            return None
        try:
            nodes = await self._allocator.nodes()
        except Unavailable:
            return None
        return frozenset(node.resources.accelerator_type for node in nodes if node.resources.accelerator_type)

    # -- loading

    async def load(
        self, name: str, constraint: str = "", minimal_change: bool = False, fresh: bool = False
    ) -> dict[str, Any]:
        """Loads the newest version that satisfies the constraint, with what it needs, and routes calls to it.

        `minimal_change`: as for `resolve`. `fresh`: a state that was left by an unload is forgotten.

        Raises NotFound, Unresolvable, Conflict (it is loaded), DoesNotFit, DeadlineExceeded, ModuleFailed.
        """
        start = time.perf_counter()
        name = self._core.releases(name)[0].name
        lock = await self._resolve({name: constraint}, self._kept(minimal_change))
        resolved = time.perf_counter()
        manifest = self._core.release(name, lock.module(name).version).manifest
        if fresh and self._loader.phase(name) == "empty":
            await self._book.keep(StateKept(name, None))
        event = LoadAsked(manifest.version, manifest.replicas.min, manifest.state is not None)
        return _resolved_in(resolved - start, await self._loader.change(name, "load", event, lock, start))

    async def swap(
        self, name: str, constraint: str = "", minimal_change: bool = False, force: bool = False
    ) -> dict[str, Any]:
        """Replaces what is loaded by the newest version that satisfies the constraint, while calls run.

        `minimal_change`: as for `resolve`, but for the module itself. `force`: also where callers will stumble over it.

        Raises as `load`, Conflict where that is what runs, Incompatible; then the old version goes on.
        """
        start = time.perf_counter()
        name, serving = self._loaded(name)
        lock = await self._resolve({name: constraint}, self._kept(minimal_change, name))
        resolved = time.perf_counter()
        if lock.modules == serving.lock.modules:
            raise Conflict(f"{name} {serving.version} runs already, with the same dependencies")
        forced = self._check_swap(name, lock.module(name).version, force)
        event = self._swap_to(name, serving, lock)
        swapped = await self._loader.change(name, "swap", event, lock, start, forced)
        return _resolved_in(resolved - start, swapped)

    async def rollback(self, name: str) -> dict[str, Any]:
        """Goes back to the version that ran before the last swap, at once where it is still warm.

        Raises Conflict where there is none, or it cannot read the state of what runs; then that goes on.
        """
        start = time.perf_counter()
        name, serving = self._loaded(name)
        previous = self._core.load(name).previous
        if previous is None:
            raise Conflict(f"{name} {serving.version} has no version before it to go back to")
        if self._loader.is_warm(name):
            return await self._loader.change(name, "rollback", RollbackAsked(), None, start)
        event = self._swap_to(name, serving, previous.lock)
        if event.stateful and not self._reads(name, previous.version, serving.version):
            raise Conflict(f"{name} {previous.version} cannot read the state of {serving.version}")
        return await self._loader.change(name, "rollback", event, previous.lock, start)

    def _swap_to(self, name: str, serving: RevisionRecord, lock: Lock) -> SwapAsked:
        manifest = self._core.release(name, lock.module(name).version).manifest
        reversible = self._reads(name, serving.version, manifest.version)
        return SwapAsked(manifest.version, manifest.replicas.min, manifest.state is not None, reversible)

    def _reads(self, name: str, version: str, other: str) -> bool:
        """Whether a version could go on from the state of another."""
        spec = self._core.release(name, version).manifest.state
        theirs = self._core.release(name, other).manifest.state
        return spec is None or theirs is None or spec.can_read(theirs.schema_version)

    def _check_swap(self, name: str, version: str, force: bool) -> tuple[str, ...]:
        """What the version would break, where it is forced; Incompatible where it is not."""
        try:
            self._core.check_swap(name, version)
        except Incompatible as error:
            if not force:
                raise
            log.warning("module_swap_forced", module=name, version=version, changes=error.changes)
            return error.changes
        return ()

    async def unload(self, name: str) -> None:
        """Ends a loaded module, when its calls have. Raises NotFound, Conflict naming those loaded that need it."""
        name, _ = self._loaded(name)
        self._core.check_unload(name)
        await self._loader.unload(name)

    # -- calls

    async def routes(self, name: str, avoid: Sequence[int] = ()) -> Routes:
        """Where calls of a loaded module go, once it has a host beside those of these epochs.

        Waits while it is being loaded, moved or restarted. Raises NotFound where it is not loaded, Unavailable where
        it does not come (back) in time.
        """
        name = normalise_name(name)
        try:
            async with asyncio.timeout(ROUTE_TIMEOUTS * self._settings.module_loading_timeout_ms / 1000):
                return await self._loader.board.find(name, avoid)
        except TimeoutError:
            raise Unavailable(f"{name} is being loaded or restarted and not ready for calls yet") from None

    async def news(self, known: dict[str, int]) -> dict[str, Routes | None]:
        """The routes that changed since those with these numbers; waits a while for some to change."""
        return await self._loader.board.news(known)

    async def ping(self) -> str:
        return MODULE_REGISTRY

    def _loaded(self, name: str) -> tuple[str, RevisionRecord]:
        """The module's name as it is spelt, and its serving revision. Raises NotFound, Conflict."""
        load = self._core.load(name)
        if load.serving is None or self._loader.phase(load.name) == "empty":
            raise Conflict(f"{load.name} is being loaded or unloaded")
        return load.name, load.serving


def _resolved_in(seconds: float, report: dict[str, Any]) -> dict[str, Any]:
    """The report of a change, with what finding the versions took before it."""
    return {**report, "milliseconds": {"resolve": round(seconds * 1000, 3), **report["milliseconds"]}}
