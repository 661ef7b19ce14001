"""The keeper: the one replica, on the head, that owns what fusion remembers: sessions, indexes, heads and readings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from ray import serve

from noodle_ray.fusion.catalogue import Catalogue
from noodle_ray.fusion.index_messages import HeadInfo, IndexInfo, OpenedSession
from noodle_ray.fusion.reading import Reading
from noodle_ray.fusion.reading_cache import ReadingCache
from noodle_ray.fusion.remembered import Remembered, Turn
from noodle_ray.fusion.rule import Rule
from noodle_ray.fusion.stored_index import ReadEntry
from noodle_ray.fusion_models.kept_heads import KeptHeads, SentHead
from noodle_ray.fusion_models.kept_indexes import KeptIndexes, Sent, Unread
from noodle_ray.fusion_models.kept_sessions import KeptSessions
from noodle_ray.logs import configure_logs
from noodle_ray.precedence import go_ahead
from noodle_ray.settings import Settings
from noodle_ray.store.database import Database
from noodle_ray.store.until_available import until_available

KEEPER = "FusionKeeper"
CPUS = 0.1
ONGOING = 1000


class FusionKeeper:
    """Engine replicas ask it through `keeper_ports`; doors ask it directly. Errors are those of the parts."""

    async def __init__(self, settings: Settings, catalogue: Callable[[], Catalogue] | None = None) -> None:  # type: ignore[misc]
        go_ahead()
        configure_logs(settings.log_level)
        database = await until_available(partial(asyncio.to_thread, Database.open, settings.database, "fusion-keeper"))
        self._sessions = KeptSessions(settings, database)
        self._indexes = KeptIndexes(settings, catalogue() if catalogue is not None else None)
        self._heads = KeptHeads(settings)
        self._readings = ReadingCache(settings.fusion_cache_bytes)
        await until_available(self._sessions.recover)

    # -- sessions

    async def open_session(self) -> OpenedSession:
        return await self._sessions.open()

    async def forget_session(self, session: str) -> None:
        await self._sessions.forget(session)

    async def remembered(self, session: str) -> Remembered:
        return self._sessions.remembered(session)

    async def note(self, session: str, turn: Turn) -> None:
        self._sessions.note(session, turn)

    # -- readings

    async def recall(self, keys: Sequence[bytes]) -> dict[bytes, Reading]:
        return {key: reading for key in keys if (reading := self._readings.get(key)) is not None}

    async def remember(self, readings: Mapping[bytes, Reading]) -> None:
        for key, reading in readings.items():
            self._readings.put(key, reading)

    # -- indexes

    async def indexes(self) -> list[IndexInfo]:
        return await self._indexes.all()

    async def index(self, name: str) -> IndexInfo:
        return await self._indexes.info(name)

    async def index_entries(self, name: str) -> list[str]:
        return await self._indexes.names(name)

    async def index_version(self, name: str) -> str:
        return await self._indexes.version(name)

    async def index_content(self, name: str) -> Sent:
        return await self._indexes.content(name)

    async def create_index(self, name: str, kind: str) -> IndexInfo:
        return await self._indexes.create(name, kind)

    async def put_entries(self, name: str, entries: Sequence[ReadEntry]) -> IndexInfo:
        return await self._indexes.put(name, entries)

    async def remove_from_index(self, name: str, names: Sequence[str]) -> IndexInfo:
        return await self._indexes.remove(name, names)

    async def weigh_index(self, name: str, rule: Rule) -> IndexInfo:
        return await self._indexes.weigh(name, rule)

    async def drop_index(self, name: str) -> None:
        await self._indexes.drop(name)

    async def unread_modules(self, space: str) -> Unread | None:
        return await self._indexes.unread_modules(space)

    async def put_modules(self, entries: Sequence[ReadEntry], space: str, revision: int) -> IndexInfo:
        return await self._indexes.put_modules(entries, space, revision)

    # -- heads

    async def heads(self) -> list[HeadInfo]:
        return await asyncio.to_thread(self._heads.all)

    async def head_since(self, name: str, version: str) -> SentHead | None:
        return await asyncio.to_thread(self._heads.since, name, version)


def keeper_deployment(settings: Settings, catalogue: Callable[[], Catalogue] | None) -> serve.Application:
    """The keeper, bound: one replica on the head, where its files and its database are."""
    options = serve.deployment(
        name=KEEPER,
        num_replicas=1,
        max_ongoing_requests=ONGOING,
        ray_actor_options={"num_cpus": CPUS, "resources": {"node:__internal_head__": 0.001}},
        graceful_shutdown_timeout_s=5,
    )
    return options(FusionKeeper).bind(settings, catalogue)
