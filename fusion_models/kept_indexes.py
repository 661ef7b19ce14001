"""Indexes on the head: a file each, changed one at a time, and handed out whole to who has another version."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from noodle_ray.errors import Conflict, CorruptData, LimitReached, NotFound
from noodle_ray.fusion.catalogue import Catalogue, Listed, outdated
from noodle_ray.fusion.index_messages import MODULES, IndexInfo
from noodle_ray.fusion.rule import Rule
from noodle_ray.fusion.stored_index import ReadEntry, StoredIndex, checked, info_of, version_of
from noodle_ray.settings import Settings
from noodle_ray.store.files import Folder

LOADED = 8
"""Indexes that are held ready to be changed; the others are read from their files when that is asked."""
HEADER_BYTES = 2**20
MODULES_KIND = "code"


@dataclass(frozen=True, slots=True)
class Sent:
    """An index as bytes, and which version that is."""

    version: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Unread:
    """Modules that the index of modules has yet to read, with the source of their entry points."""

    modules: tuple[Listed, ...]
    codes: dict[str, str]
    revision: int


class KeptIndexes:
    """All named indexes. Raises NotFound for an unknown name, CorruptData that names a damaged file, Unavailable."""

    def __init__(self, settings: Settings, catalogue: Catalogue | None) -> None:
        self._limit, self._most = settings.fusion_indexes, settings.fusion_index_entries
        self._files = Folder(settings.state_dir / "fusion" / "indexes", "index", ".index")
        self._catalogue = catalogue
        self._loaded: OrderedDict[str, StoredIndex] = OrderedDict()
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._versions: dict[str, str] = {}
        self._revision, self._space = -1, ""

    async def all(self) -> list[IndexInfo]:
        """What there is; a damaged one is said to be so."""
        return await asyncio.to_thread(lambda: [self._told(name) for name in self._files.names()])

    def _told(self, name: str) -> IndexInfo:
        try:
            return self._info(name)
        except CorruptData as error:
            return IndexInfo(name=name, kind="", entries=0, damage=error.message)

    async def info(self, name: str) -> IndexInfo:
        return await asyncio.to_thread(self._info, name)

    def _info(self, name: str) -> IndexInfo:
        with self._naming(name):
            return info_of(self._files.head(name, HEADER_BYTES))

    async def names(self, name: str) -> list[str]:
        """The entries' names."""
        async with self._turns[name]:
            return (await self._load(name)).names

    async def create(self, name: str, kind: str) -> IndexInfo:
        """Raises InvalidInput for an unknown kind, Conflict for one of another kind, LimitReached."""
        async with self._turns[name]:
            with suppress(NotFound):
                info = await self.info(name)
                if info.kind != kind:
                    raise Conflict(f"there is an index {name} of the kind {info.kind}")
                return info
            fresh = StoredIndex(name, kind, self._most)
            if len(await asyncio.to_thread(self._files.names)) >= self._limit:
                raise LimitReached("indexes", self._limit, "NOODLE_FUSION_INDEXES")
            return await self._keep(fresh)

    async def put(self, name: str, entries: Sequence[ReadEntry]) -> IndexInfo:
        """All or none. Raises as StoredIndex.put."""
        self._refuse_modules(name)
        return await self._change(name, lambda index: index.put(entries))

    async def remove(self, name: str, names: Sequence[str]) -> IndexInfo:
        self._refuse_modules(name)
        return await self._change(name, lambda index: index.remove(names))

    async def weigh(self, name: str, rule: Rule) -> IndexInfo:
        """Has the index weigh its evidence by this rule."""
        return await self._change(name, lambda index: index.with_rule(rule))

    async def drop(self, name: str) -> None:
        """Also a damaged one."""
        self._refuse_modules(name)
        async with self._turns[name]:
            self._forget(name)
            await asyncio.to_thread(self._files.delete, name)

    async def version(self, name: str) -> str:
        """Which version of the index there is: asked for every request that names it."""
        if name not in self._versions:
            self._versions[name] = (await self.info(name)).version
        return self._versions[name]

    async def content(self, name: str) -> Sent:
        content = await asyncio.to_thread(self._files.read, name)
        with self._naming(name):
            await asyncio.to_thread(checked, content)
            return Sent(version_of(content), content)

    # -- the index of modules

    async def unread_modules(self, space: str) -> Unread | None:
        """Which modules are to be read, in a world that places texts into `space`; None where nothing has changed."""
        if self._catalogue is None:  # then it is an index like any other
            return None
        known = self._revision if space == self._space else -1
        listing = await self._catalogue.listed(known)
        if listing is None:
            return None
        async with self._turns[MODULES]:
            index = await self._modules()
            change = outdated(index, listing, space)
        if not change.gone and not change.fresh and MODULES in self._files.names():
            self._revision, self._space = listing.revision, space
            return None
        codes = await asyncio.gather(*(self._catalogue.code(module.name, module.version) for module in change.fresh))
        return Unread(change.fresh, dict(zip((one.name for one in change.fresh), codes, strict=True)), listing.revision)

    async def put_modules(self, entries: Sequence[ReadEntry], space: str, revision: int) -> IndexInfo:
        """The modules that were read; those that are gone leave."""
        assert self._catalogue is not None
        listing = await self._catalogue.listed(-1)
        async with self._turns[MODULES]:
            index = await self._modules()
            gone = outdated(index, listing, space).gone if listing is not None else ()

            def change(to: StoredIndex) -> None:
                to.remove(gone)
                to.put(entries)

            info = await self._changed(index, change)
        if listing is not None and listing.revision == revision:
            self._revision, self._space = revision, space
        return info

    async def _modules(self) -> StoredIndex:
        try:
            return await self._load(MODULES)
        except (NotFound, CorruptData):  # it is made from the registry, at any time
            return StoredIndex(MODULES, MODULES_KIND, self._most)

    # -- files

    def _refuse_modules(self, name: str) -> None:
        if name == MODULES and self._catalogue is not None:
            raise Conflict(f"the index {MODULES} is the module registry's: publish or yank modules")

    async def _change(self, name: str, change: Callable[[StoredIndex], None]) -> IndexInfo:
        async with self._turns[name]:
            return await self._changed(await self._load(name), change)

    async def _changed(self, index: StoredIndex, change: Callable[[StoredIndex], None]) -> IndexInfo:
        try:
            await asyncio.to_thread(change, index)
            return await self._keep(index)
        except BaseException:
            self._forget(index.name)  # the file is what counts
            raise

    async def _load(self, name: str) -> StoredIndex:
        if name not in self._loaded:
            content = await asyncio.to_thread(self._files.read, name)
            with self._naming(name):
                self._hold(await asyncio.to_thread(StoredIndex.from_bytes, content, self._most))
        self._loaded.move_to_end(name)
        return self._loaded[name]

    async def _keep(self, index: StoredIndex) -> IndexInfo:
        content = await asyncio.to_thread(index.to_bytes)
        await asyncio.to_thread(self._files.write, index.name, content)
        self._hold(index)
        self._versions[index.name] = version_of(content)
        return index.info(self._versions[index.name])

    def _forget(self, name: str) -> None:
        self._loaded.pop(name, None)
        self._versions.pop(name, None)

    def _hold(self, index: StoredIndex) -> None:
        self._loaded[index.name] = index
        while len(self._loaded) > LOADED:
            self._loaded.popitem(last=False)

    def _naming(self, name: str) -> _Naming:
        return _Naming(str(self._files.path(name)))


class _Naming:
    """Adds to CorruptData which file it was."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, CorruptData):
            raise CorruptData(f"{self._path}: {error.message}") from error
