"""The engine's ports over the keeper: indexes and heads as local copies, sessions and shared readings by asking."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import structlog
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException

from noodle_ray.errors import NoodleError, Unavailable
from noodle_ray.fusion.catalogue import entries_of
from noodle_ray.fusion.head import Head
from noodle_ray.fusion.index_messages import MODULES, IndexInfo, KnownQuery, NewEntry
from noodle_ray.fusion.indexing import Indexer
from noodle_ray.fusion.reading import Reading
from noodle_ray.fusion.remembered import Remembered, Turn
from noodle_ray.fusion.stored_index import StoredIndex
from noodle_ray.fusion_models.kept_heads import SentHead
from noodle_ray.fusion_models.kept_indexes import Sent, Unread

T = TypeVar("T")
log = structlog.get_logger("noodle.fusion")

RECALL_S = 0.02
"""How long a request waits for what other replicas may have read: reading it takes not much longer."""
REFRESH_S = 0.1
"""How long a request waits for new modules to be read; then they are found a little later."""


class Keeper:
    """Calls of the keeper. Raises the NoodleError that it raises, and Unavailable where it does not answer."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def ask(self, method: str, *args: Any) -> Any:
        try:
            return await getattr(self._handle, method).remote(*args)
        except RayTaskError as error:
            cause = error.cause
            raise (cause if isinstance(cause, NoodleError) else error) from error
        except (RayError, RayServeException) as error:
            raise Unavailable(f"the fusion keeper does not answer ({type(error).__name__})") from error


class KeptSessionsPort:
    """The port `Sessions`."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    async def remembered(self, session: str) -> Remembered:
        remembered: Remembered = await self._keeper.ask("remembered", session)
        return remembered

    async def note(self, session: str, turn: Turn) -> None:
        await self._keeper.ask("note", session, turn)


class KeptReadingsPort:
    """The port `SharedReadings`: a keeper that is slow or away costs a request next to nothing."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._telling: set[asyncio.Task[Any]] = set()

    async def recall(self, keys: Sequence[bytes]) -> Mapping[bytes, Reading]:
        try:
            async with asyncio.timeout(RECALL_S):
                found: Mapping[bytes, Reading] = await self._keeper.ask("recall", list(keys))
                return found
        except (Unavailable, TimeoutError):
            return {}

    async def remember(self, readings: Mapping[bytes, Reading]) -> None:
        task = asyncio.ensure_future(self._tell(dict(readings)))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self, readings: Mapping[bytes, Reading]) -> None:
        try:
            await self._keeper.ask("remember", readings)
        except Unavailable as error:
            log.warning("readings not shared", error=error.message)


class KeptHeadsPort:
    """The port `Heads`, with a copy of each head that was asked for."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._copies: dict[str, SentHead] = {}

    async def head(self, name: str) -> Head:
        """Raises NotFound, CorruptData."""
        known = self._copies.get(name)
        try:
            sent: SentHead | None = await self._keeper.ask("head_since", name, known.version if known else "")
        except Unavailable:
            if known is None:
                raise
            return known.head
        if sent is None and known is not None:
            return known.head
        assert sent is not None
        self._copies[name] = sent
        return sent.head


class KeptIndexesPort:
    """The port `Indexes`, with a copy of each index that was asked for, and what changes them."""

    def __init__(self, keeper: Keeper, indexer: Callable[[], Indexer], most: int) -> None:
        """`indexer`: made by the engine that has this as its port, and so known later. `most` entries in one index."""
        self._keeper, self._indexer, self._most = keeper, indexer, most
        self._copies: dict[str, tuple[str, StoredIndex]] = {}
        self._under_way: dict[str, asyncio.Task[Any]] = {}

    async def index(self, name: str) -> StoredIndex:
        """The index as it is now; that of modules as the registry is, as far as there is time. Raises NotFound."""
        if name == MODULES:
            await self._refresh()
        known, copy = self._copies.get(name, ("", None))
        try:
            version: str = await self._keeper.ask("index_version", name)
        except Unavailable:
            if copy is None:
                raise
            return copy  # as it was when the keeper was last heard: better than no answer
        except NoodleError:
            self._copies.pop(name, None)
            raise
        if copy is not None and known == version:
            return copy
        return await self._once(f"{name} {version}", lambda: self._fetch(name))

    async def _fetch(self, name: str) -> StoredIndex:
        sent: Sent = await self._keeper.ask("index_content", name)
        copy = await asyncio.to_thread(StoredIndex.from_bytes, sent.content, self._most)
        self._copies[name] = (sent.version, copy)
        return copy

    async def add(self, name: str, entries: Sequence[NewEntry]) -> IndexInfo:
        """Has the entries read, and kept. Raises what the encoders and StoredIndex.put raise."""
        await self._keeper.ask("index", name)  # an unknown one is no reason to read anything
        read = await self._indexer().read_entries(entries)
        info: IndexInfo = await self._keeper.ask("put_entries", name, read)
        return info

    async def fit(self, name: str, queries: Sequence[KnownQuery]) -> IndexInfo:
        """Has the queries read, and the index weighed by them. Raises InvalidInput, Conflict."""
        rule = await self._indexer().fit(await self.index(name), queries)
        info: IndexInfo = await self._keeper.ask("weigh_index", name, rule)
        return info

    def begin(self) -> None:
        """Has the modules read, before anybody asks for one; what goes wrong is told to who asks."""
        self._start("modules", self._read_modules)

    async def _refresh(self) -> None:
        """Waits a moment for what is new among modules; what is not read by then goes on being read.

        Where none was read yet, it takes as long as the request has. Raises Unavailable, but only then.
        """
        is_first = MODULES not in self._copies
        try:
            async with asyncio.timeout(None if is_first else REFRESH_S):
                await self._once("modules", self._read_modules)
        except TimeoutError:
            log.info("modules are still being read")
        except Unavailable as error:  # of the registry, the keeper or an encoder: what was read before can be found
            log.warning("modules not read", error=error.message)
            if is_first:
                raise

    async def _read_modules(self) -> None:
        indexer = self._indexer()
        space = await indexer.space()
        unread: Unread | None = await self._keeper.ask("unread_modules", space)
        if unread is not None:
            read = await indexer.read_entries(entries_of(unread.modules, unread.codes))
            await self._keeper.ask("put_modules", read, space, unread.revision)

    async def _once(self, what: str, work: Callable[[], Awaitable[T]]) -> T:
        """Several that ask for the same at a time wait for the same work, which goes on when they give up."""
        result: T = await asyncio.shield(self._start(what, work))
        return result

    def _start(self, what: str, work: Callable[[], Awaitable[T]]) -> asyncio.Task[T]:
        task = self._under_way.get(what)
        if task is None:
            task = self._under_way[what] = asyncio.ensure_future(work())
            task.add_done_callback(lambda done: self._ended(what, done))
        return task

    def _ended(self, what: str, task: asyncio.Task[Any]) -> None:
        self._under_way.pop(what, None)
        if not task.cancelled() and task.exception() is not None:
            log.info("not done", what=what, error=str(task.exception()))
