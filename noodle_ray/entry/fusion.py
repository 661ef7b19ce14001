"""The fusion service for drivers: `cluster.fusion`, synchronous, and `cluster.aio.fusion`; indexes and sessions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from noodle_ray.actors.names import FUSION_APP
from noodle_ray.actors.ports import AppFusion
from noodle_ray.entry.loop_thread import LoopThread
from noodle_ray.fusion.index_messages import (
    HeadInfo,
    IndexInfo,
    KnownQueries,
    KnownQuery,
    NewEntries,
    NewEntry,
    NewIndex,
    OpenedSession,
)
from noodle_ray.fusion.inputs import MultimodalInput
from noodle_ray.fusion.result import FusionResult

Query = MultimodalInput | str
Entries = Iterable[NewEntry | Mapping[str, Any]]
Queries = Iterable[KnownQuery | Mapping[str, Any]]


class AsyncIndexes:
    """Named indexes. Raises NotFound for an unknown one; "modules" is the module registry's, and changed by it alone.

    Entries and queries may be given as dictionaries, with the fields of NewEntry and KnownQuery.
    """

    def __init__(self, app: AppFusion) -> None:
        self._app = app

    async def list(self) -> Sequence[IndexInfo]:
        return await self._app.indexes()

    async def describe(self, name: str) -> IndexInfo:
        return await self._app.index(name)

    async def entries(self, name: str) -> Sequence[str]:
        """The entries' names, in their order."""
        return await self._app.index_entries(name)

    async def create(self, name: str, kind: str = NewIndex().kind) -> IndexInfo:
        """Creates it, or leaves one of that kind as it is. Raises InvalidInput, Conflict, LimitReached."""
        return await self._app.create_index(name, kind)

    async def add(self, name: str, entries: Entries) -> IndexInfo:
        """Adds entries, all or none; one of a known name replaces that one.

        Raises InvalidInput and TooLarge for what cannot be read, Conflict, LimitReached.
        """
        wanted = NewEntries.parse({"entries": tuple(entries)})
        return await self._app.add_to_index(name, wanted.entries)

    async def remove(self, name: str, entries: Iterable[str]) -> IndexInfo:
        """Removes the entries of these names, as far as they are there."""
        return await self._app.remove_from_index(name, tuple(entries))

    async def fit(self, name: str, queries: Queries) -> IndexInfo:
        """Weighs the index's evidence, and calibrates it, by queries with known answers (at least six)."""
        wanted = KnownQueries.parse({"queries": tuple(queries)})
        return await self._app.fit_index(name, wanted.queries)

    async def drop(self, name: str) -> None:
        """Forgets the index and all that is in it."""
        await self._app.drop_index(name)

    async def find(self, name: str, query: Query, top: int | None = None) -> FusionResult:
        """What in the index matches a text, or whatever a request gives; best first."""
        return await self._app.process(_finding(name, query, top))


class AsyncFusion:
    """The fusion service. `indexes`: what can be found."""

    def __init__(self) -> None:
        self._app = AppFusion(FUSION_APP)
        self.indexes = AsyncIndexes(self._app)

    async def process_multimodal_input(self, request: MultimodalInput) -> FusionResult:
        """One answer from any subset of text, audio, image and code.

        Raises InvalidInput, TooLarge, NotFound (index, head, session), DeadlineExceeded, Overloaded, Unavailable.
        """
        return await self._app.process(request)

    async def open_session(self) -> OpenedSession:
        """A session that remembers what requests of it gave and how they were answered. Raises LimitReached.

        Its id (`.session`) is the right to use it, and goes into requests as `session`.
        """
        return await self._app.open_session()

    async def forget_session(self, session: str) -> None:
        """Ends a session, and all that it remembers with it. Raises NotFound."""
        await self._app.forget_session(session)

    async def heads(self) -> Sequence[HeadInfo]:
        """The trained heads that requests may name as `head`."""
        return await self._app.heads()


class Indexes:
    """Named indexes, synchronous. Raises NotFound for an unknown one; "modules" is the module registry's.

    Entries and queries may be given as dictionaries, with the fields of NewEntry and KnownQuery.
    """

    def __init__(self, loop: LoopThread, aio: AsyncIndexes) -> None:
        self._run, self._aio = loop.run, aio

    def list(self) -> Sequence[IndexInfo]:
        return self._run(self._aio.list())

    def describe(self, name: str) -> IndexInfo:
        return self._run(self._aio.describe(name))

    def entries(self, name: str) -> Sequence[str]:
        """The entries' names, in their order."""
        return self._run(self._aio.entries(name))

    def create(self, name: str, kind: str = NewIndex().kind) -> IndexInfo:
        """Creates it, or leaves one of that kind as it is. Raises InvalidInput, Conflict, LimitReached."""
        return self._run(self._aio.create(name, kind))

    def add(self, name: str, entries: Entries) -> IndexInfo:
        """Adds entries, all or none; one of a known name replaces that one.

        Raises InvalidInput and TooLarge for what cannot be read, Conflict, LimitReached.
        """
        return self._run(self._aio.add(name, entries))

    def remove(self, name: str, entries: Iterable[str]) -> IndexInfo:
        """Removes the entries of these names, as far as they are there."""
        return self._run(self._aio.remove(name, entries))

    def fit(self, name: str, queries: Queries) -> IndexInfo:
        """Weighs the index's evidence, and calibrates it, by queries with known answers (at least six)."""
        return self._run(self._aio.fit(name, queries))

    def drop(self, name: str) -> None:
        """Forgets the index and all that is in it."""
        self._run(self._aio.drop(name))

    def find(self, name: str, query: Query, top: int | None = None) -> FusionResult:
        """What in the index matches a text, or whatever a request gives; best first."""
        return self._run(self._aio.find(name, query, top))


class Fusion:
    """The fusion service, synchronous. `indexes`: what can be found."""

    def __init__(self, loop: LoopThread, aio: AsyncFusion) -> None:
        self._run, self._aio = loop.run, aio
        self.indexes = Indexes(loop, aio.indexes)

    def process_multimodal_input(self, request: MultimodalInput) -> FusionResult:
        """One answer from any subset of text, audio, image and code.

        Raises InvalidInput, TooLarge, NotFound (index, head, session), DeadlineExceeded, Overloaded, Unavailable.
        """
        return self._run(self._aio.process_multimodal_input(request))

    def open_session(self) -> OpenedSession:
        """A session that remembers what requests of it gave and how they were answered. Raises LimitReached.

        Its id (`.session`) is the right to use it, and goes into requests as `session`.
        """
        return self._run(self._aio.open_session())

    def forget_session(self, session: str) -> None:
        """Ends a session, and all that it remembers with it. Raises NotFound."""
        self._run(self._aio.forget_session(session))

    def heads(self) -> Sequence[HeadInfo]:
        """The trained heads that requests may name as `head`."""
        return self._run(self._aio.heads())


def _finding(index: str, query: Query, top: int | None) -> MultimodalInput:
    """The query, asking the index."""
    if isinstance(query, str):
        return MultimodalInput(text=query, index=index, top=top)
    fields = {name: getattr(query, name) for name in MultimodalInput.model_fields}
    return MultimodalInput(**{**fields, "index": index, "top": top or query.top})
