"""The keeper's parts and the engine's ports over them, without Ray: kept through restarts, damaged, and shared."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keeper_fakes import EAST, Compass, PlainDecoder, Registry
from ray.exceptions import ActorDiedError

from noodle_ray.errors import Conflict, CorruptData, InvalidInput, LimitReached, NotFound, Unavailable
from noodle_ray.fusion.candidate_cache import CandidateCache
from noodle_ray.fusion.catalogue import Listed
from noodle_ray.fusion.head import Head, HeadDescription, HeadSource, Layer
from noodle_ray.fusion.index_messages import KnownQuery, NewEntry
from noodle_ray.fusion.indexing import Indexer
from noodle_ray.fusion.inputs import MultimodalInput
from noodle_ray.fusion.reading import Reading
from noodle_ray.fusion.reading_cache import ReadingCache
from noodle_ray.fusion.remembered import Turn
from noodle_ray.fusion.rule import Rule
from noodle_ray.fusion.sensing import Senses
from noodle_ray.fusion_models.keeper import FusionKeeper
from noodle_ray.fusion_models.keeper_ports import (
    Keeper,
    KeptHeadsPort,
    KeptIndexesPort,
    KeptReadingsPort,
    KeptSessionsPort,
)
from noodle_ray.fusion_models.kept_heads import KeptHeads
from noodle_ray.fusion_models.kept_indexes import KeptIndexes
from noodle_ray.fusion_models.kept_sessions import KeptSessions
from noodle_ray.settings import Settings
from noodle_ray.store.backoff import Backoff
from noodle_ray.store.database import Database
from noodle_ray.store.files import Folder


class Handle:
    """A deployment's handle whose deployment is here."""

    def __init__(self, keeper: object) -> None:
        self._keeper, self.asked, self.hangs, self.is_away = keeper, [], False, False

    def __getattr__(self, method: str) -> Any:
        handle = self

        class Method:
            async def remote(self, *args: Any) -> Any:
                handle.asked.append(method)
                if handle.is_away:
                    raise ActorDiedError
                if handle.hangs:
                    await asyncio.Event().wait()
                return await getattr(handle._keeper, method)(*args)

        return Method()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path, fusion_indexes=3, fusion_index_entries=20, fusion_sessions=4)


class World:
    """A keeper, and one engine's ports over it."""

    def __init__(self, settings: Settings, keeper: Any, compass: Compass) -> None:
        self.handle, self.compass = Handle(keeper), compass
        asked = Keeper(self.handle)
        senses = Senses(compass, PlainDecoder(), ReadingCache(10**6), CandidateCache(100), None, lambda: 0.0)
        self.indexer = Indexer(compass, senses, lambda: 0.0)
        self.indexes = KeptIndexesPort(asked, lambda: self.indexer, settings.fusion_index_entries)
        self.heads, self.sessions = KeptHeadsPort(asked), KeptSessionsPort(asked)
        self.readings = KeptReadingsPort(asked)

    async def best(self, name: str, text: str) -> str:
        index = await self.indexes.index(name)
        reading = Reading("c", text, 1.0, self.compass.place_of(text), space=self.compass.space)
        scores = index.search(MultimodalInput(text=text), {"text": reading})
        return index.names[int(index.rule.posterior(scores).argmax())]


async def started(settings: Settings, registry: Registry | None = None) -> Any:
    keeper: Any = FusionKeeper.__new__(FusionKeeper)
    await keeper.__init__(settings, (lambda: registry) if registry else None)
    return keeper


@pytest.fixture
def compass() -> Compass:
    return Compass()


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(1000):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to hold")


ENTRIES = [NewEntry(name="pole", text="the north"), NewEntry(name="dawn", text="the sun", meta={"at": 6})]


class TestIndexes:
    async def test_are_made_found_and_outlive_the_keeper(self, settings: Settings, compass: Compass) -> None:
        world = World(settings, await started(settings), compass)
        keeper = world.handle._keeper
        assert (await keeper.create_index("sky", "code")).entries == 0
        assert (await keeper.create_index("sky", "code")).entries == 0
        with pytest.raises(Conflict, match="kind code"):
            await keeper.create_index("sky", "dense")
        assert (await world.indexes.add("sky", ENTRIES)).entries == 2
        assert await world.best("sky", "to the north") == "pole"
        assert await keeper.index_entries("sky") == ["pole", "dawn"]
        again = World(settings, await started(settings), compass)
        assert await again.best("sky", "a sun") == "dawn"
        assert (await again.handle._keeper.indexes())[0] == await keeper.index("sky")

    async def test_a_copy_is_sent_once_a_version(self, settings: Settings, compass: Compass) -> None:
        world = World(settings, await started(settings), compass)
        await world.handle._keeper.create_index("sky", "code")
        await world.indexes.add("sky", ENTRIES)
        for _ in range(3):
            await world.best("sky", "north")
        assert world.handle.asked.count("index_content") == 1
        await asyncio.gather(*(world.indexes.add("sky", [ENTRIES[0]]) for _ in range(3)))
        await asyncio.gather(*(world.best("sky", "north") for _ in range(5)))
        assert world.handle.asked.count("index_content") == 2

    async def test_while_the_keeper_is_away_copies_answer(self, settings: Settings, compass: Compass) -> None:
        world = World(settings, await started(settings, Registry()), compass)
        await world.handle._keeper.create_index("sky", "code")
        await world.indexes.add("sky", ENTRIES)
        for name in ("sky", "modules"):
            await world.best(name, "north")
        world.handle.is_away = True
        assert (await world.best("sky", "north"), await world.best("modules", "north")) == ("pole", "compass")
        with pytest.raises(Unavailable, match="keeper"):
            await world.indexes.index("other")
        with pytest.raises(Unavailable, match="keeper"):
            await world.indexes.add("sky", ENTRIES)

    async def test_removed_and_dropped(self, settings: Settings, compass: Compass) -> None:
        world = World(settings, await started(settings), compass)
        keeper = world.handle._keeper
        await keeper.create_index("sky", "dense")
        await world.indexes.add("sky", ENTRIES)
        assert (await keeper.remove_from_index("sky", ["pole", "ghost"])).entries == 1
        assert await world.best("sky", "north") == "dawn"
        await keeper.drop_index("sky")
        with pytest.raises(NotFound):
            await world.indexes.index("sky")
        with pytest.raises(NotFound):
            await world.indexes.add("sky", ENTRIES)
        with pytest.raises(NotFound):
            await keeper.drop_index("sky")

    async def test_bounds(self, settings: Settings, compass: Compass) -> None:
        world = World(settings, await started(settings), compass)
        for name in ("a", "b", "c"):
            await world.handle._keeper.create_index(name, "dense")
        with pytest.raises(LimitReached, match="NOODLE_FUSION_INDEXES"):
            await world.handle._keeper.create_index("d", "dense")
        many = [NewEntry(name=f"n{number}", text="x") for number in range(21)]
        with pytest.raises(LimitReached, match="NOODLE_FUSION_INDEX_ENTRIES"):
            await world.indexes.add("a", many)
        assert (await world.handle._keeper.index("a")).entries == 0
        with pytest.raises(InvalidInput):
            await world.handle._keeper.create_index("../a", "dense")

    async def test_damage_names_the_file_and_is_dropped(self, settings: Settings, compass: Compass) -> None:
        world = World(settings, await started(settings), compass)
        await world.handle._keeper.create_index("sky", "dense")
        await world.indexes.add("sky", ENTRIES)
        path = settings.state_dir / "fusion" / "indexes" / "sky.index"
        content = path.read_bytes()
        path.write_bytes(content[:-5] + b"wrong")
        again = World(settings, await started(settings), compass)
        with pytest.raises(CorruptData, match=r"sky\.index"):
            await again.indexes.index("sky")
        with pytest.raises(CorruptData, match=r"sky\.index"):
            await again.indexes.add("sky", ENTRIES)
        path.write_bytes(b"nonsense")
        third = await started(settings)
        assert "sky.index: the index is damaged" in (await third.indexes())[0].damage
        await third.drop_index("sky")
        assert await third.indexes() == []

    async def test_what_cannot_be_read_adds_nothing(self, settings: Settings, compass: Compass) -> None:
        world = World(settings, await started(settings), compass)
        await world.handle._keeper.create_index("sky", "dense")
        compass.error = InvalidInput.of("image", "is no picture")
        with pytest.raises(InvalidInput, match=r"pole.*is no picture"):
            await world.indexes.add("sky", ENTRIES)
        assert (await world.handle._keeper.index("sky")).entries == 0

    async def test_a_disk_that_refuses_changes_nothing(
        self, settings: Settings, compass: Compass, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world = World(settings, await started(settings), compass)
        await world.handle._keeper.create_index("sky", "dense")
        await world.indexes.add("sky", ENTRIES)

        def refuse(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched, pytest.raises(Unavailable, match="No space"):
            patched.setattr("pathlib.Path.replace", refuse)
            await world.handle._keeper.remove_from_index("sky", ["pole"])
        assert await world.handle._keeper.index_entries("sky") == ["pole", "dawn"]
        assert [path.name for path in (settings.state_dir / "fusion" / "indexes").iterdir()] == ["sky.index"]

    async def test_fit(self, settings: Settings, compass: Compass) -> None:
        world = World(settings, await started(settings), compass)
        await world.handle._keeper.create_index("sky", "dense")
        await world.indexes.add("sky", ENTRIES)
        queries = [KnownQuery(text=f"north {n}", answer="pole") for n in range(6)]
        queries += [KnownQuery(text=f"sun {n}", answer="dawn") for n in range(6)]
        info = await world.indexes.fit("sky", queries)
        assert info.fitted["validated_on"] == 4 and info.fitted["accuracy_percent"] == 100.0
        with pytest.raises(InvalidInput, match="ghost"):
            await world.indexes.fit("sky", [*queries, KnownQuery(text="a", answer="ghost")])


class TestModules:
    async def test_are_found_as_soon_as_they_are_published(self, settings: Settings, compass: Compass) -> None:
        registry = Registry()
        world = World(settings, await started(settings, registry), compass)
        assert await world.best("modules", "where is the north?") == "compass"
        read = compass.read_items
        assert await world.best("modules", "sun") == "sun"
        assert compass.read_items == read
        registry.publish(Listed("polaris", "2.0", "the star of the north"))
        registry.yank("compass")
        assert await world.best("modules", "the star north") == "polaris"
        assert (await world.indexes.index("modules")).names == ["sun", "polaris"]
        assert compass.read_items == read + 2  # a text and a code

    async def test_are_read_anew_where_the_anchor_changes(self, settings: Settings, compass: Compass) -> None:
        world = World(settings, await started(settings, Registry()), compass)
        await world.best("modules", "north")
        compass.space = "b"
        assert await world.best("modules", "north") == "compass"
        assert (await world.indexes.index("modules")).space == "b"

    async def test_belong_to_the_registry(self, settings: Settings, compass: Compass) -> None:
        world = World(settings, await started(settings, Registry()), compass)
        await world.best("modules", "north")
        with pytest.raises(Conflict, match="registry's"):
            await world.indexes.add("modules", ENTRIES)
        with pytest.raises(Conflict, match="registry's"):
            await world.handle._keeper.remove_from_index("modules", ["sun"])
        with pytest.raises(Conflict, match="registry's"):
            await world.handle._keeper.drop_index("modules")

    async def test_what_takes_long_to_read_is_found_later(
        self, settings: Settings, compass: Compass, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("noodle_ray.fusion_models.keeper_ports.REFRESH_S", 0.01)
        registry = Registry()
        world = World(settings, await started(settings, registry), compass)
        world.indexes.begin()
        await world.best("modules", "north")  # the first time, it is waited for
        goes_on = asyncio.Event()
        real = compass.read

        async def slow(*args: Any) -> Any:
            await goes_on.wait()
            return await real(*args)

        monkeypatch.setattr(compass, "read", slow)
        registry.publish(Listed("polaris", "2.0", "north"))
        assert "polaris" not in (await world.indexes.index("modules")).names
        goes_on.set()
        await until(lambda: not world.indexes._under_way)
        assert "polaris" in (await world.indexes.index("modules")).names


class TestSessions:
    TURN = Turn("a", EAST, "dawn")

    async def test_outlive_the_keeper(self, settings: Settings, compass: Compass) -> None:
        keeper = await started(settings)
        world = World(settings, keeper, compass)
        session = (await keeper.open_session()).session
        await world.sessions.note(session, self.TURN)
        await world.sessions.note("nobody's", self.TURN)
        assert (await world.sessions.remembered(session)).turns == 1
        await keeper._sessions.close()
        again = await started(settings)
        assert (await again.remembered(session)).turns == 1
        await again.forget_session(session)
        third = await started(settings)
        with pytest.raises(NotFound):
            await third.remembered(session)

    async def test_expire_and_damaged_rows_go(self, settings: Settings) -> None:
        from noodle_ray.store.changes import Put

        database = Database.open(settings.database)
        database.apply([Put("sessions", "k", {"turns": 7})])
        now = [1000.0]
        sessions = KeptSessions(settings, database, lambda: now[0])
        await sessions.recover()
        opened = await sessions.open()
        assert list(database.load("sessions")) != ["k"] and len(database.load("sessions")) == 1
        now[0] += settings.fusion_session_ttl_ms / 1000
        with pytest.raises(NotFound):
            sessions.remembered(opened.session)
        await sessions.close()
        fresh = KeptSessions(settings, database, lambda: now[0])
        await fresh.recover()
        await fresh.close()
        assert database.load("sessions") == {}

    async def test_turns_wait_for_a_store_that_is_away(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("noodle_ray.store.until_available.BACKOFF", Backoff(0.01, 0.01))
        database = Database.open(settings.database)
        sessions = KeptSessions(settings, database)
        await sessions.recover()
        session = (await sessions.open()).session
        apply, fails = database.apply, [True]

        def unsteady(changes: Any) -> None:
            if fails[0]:
                raise Unavailable("away")
            apply(changes)

        monkeypatch.setattr(database, "apply", unsteady)
        sessions.note(session, self.TURN)
        with pytest.raises(Unavailable):
            await sessions.open()
        await asyncio.sleep(0.03)
        fails[0] = False
        await until(lambda: any(row["turns"] for row in database.load("sessions").values()))
        await sessions.close()


def a_head(name: str, bias: float = 0.0) -> Head:
    description = HeadDescription(
        name=name,
        labels=("no", "yes"),
        sources={"text": HeadSource(encoder="c", parts=("embedding",), width=2)},
        rule=Rule(),
        trained={"data": "a test"},
    )
    return Head(description, {"text": (Layer(np.eye(2, dtype=np.float32), np.full(2, bias, np.float32)),)})


class TestHeads:
    async def test_are_copied_once_a_version(self, settings: Settings, compass: Compass) -> None:
        world = World(settings, await started(settings), compass)
        with pytest.raises(NotFound):
            await world.heads.head("tickets")
        a_head("tickets").save(settings.state_dir / "heads")
        head = await world.heads.head("tickets")
        assert head.labels == ("no", "yes") and await world.heads.head("tickets") is head
        world.handle.is_away = True
        assert await world.heads.head("tickets") is head
        world.handle.is_away = False
        a_head("tickets", 1.0).save(settings.state_dir / "heads")
        assert await world.heads.head("tickets") is not head
        (info,) = [one for one in await world.handle._keeper.heads() if one.name == "tickets"]
        assert (info.labels, info.modalities, info.card) == (("no", "yes"), ("text",), {"data": "a test"})

    def test_the_users_come_before_shipped_ones_and_damage_is_told(self, settings: Settings, tmp_path: Path) -> None:
        shipped, own = tmp_path / "shipped", settings.state_dir / "heads"
        a_head("a").save(shipped)
        a_head("b").save(shipped)
        a_head("b", 1.0).save(own)
        heads = KeptHeads(settings, shipped)
        sent = heads.since("b", "")
        assert sent is not None and sent.head.layers["text"][0].bias[0] == 1.0
        (own / "b.safetensors").write_bytes(b"x")
        told = {one.name: one.damage for one in heads.all()}
        assert told["a"] == "" and "b.safetensors" in told["b"]


class TestReadings:
    KEY = b"k" * 20

    async def test_are_shared(self, settings: Settings, compass: Compass) -> None:
        keeper = await started(settings)
        one, other = World(settings, keeper, compass), World(settings, keeper, compass)
        reading = Reading("c", "x", 1.0, EAST, sources={"words": EAST})
        await one.readings.remember({self.KEY: reading})
        await asyncio.sleep(0.01)
        found = await other.readings.recall([self.KEY, b"other"])
        assert list(found) == [self.KEY] and found[self.KEY] is reading

    async def test_a_keeper_that_hangs_costs_a_moment(
        self, settings: Settings, compass: Compass, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("noodle_ray.fusion_models.keeper_ports.RECALL_S", 0.01)
        world = World(settings, await started(settings), compass)
        world.handle.hangs = True
        assert await world.readings.recall([self.KEY]) == {}
        await world.readings.remember({self.KEY: Reading("c", "x", 1.0, EAST)})


class TestFolder:
    def test_names_cannot_lead_elsewhere(self, tmp_path: Path) -> None:
        folder = Folder(tmp_path, "index", ".index")
        for name in ("../a", "a/b", "", ".a", "A", "a" * 64, "a\n"):
            with pytest.raises(InvalidInput):
                folder.write(name, b"")
        assert list(tmp_path.iterdir()) == []

    def test_replaced_and_deleted(self, tmp_path: Path) -> None:
        folder = Folder(tmp_path / "deep", "index", ".index")
        assert folder.names() == []
        folder.write("a", b"one")
        folder.write("a", b"two")
        assert (folder.read("a"), folder.head("a", 2), folder.names()) == (b"two", b"tw", ["a"])
        folder.delete("a")
        for work in (folder.read, folder.delete, lambda name: folder.head(name, 1)):
            with pytest.raises(NotFound):
                work("a")


def test_messages_are_plain_json() -> None:
    entry = NewEntry(name="a", text="b", image=b"c", meta={"d": [1]})
    assert NewEntry.parse(json.loads(json.dumps(entry.to_json()))) == entry
    assert isinstance(KeptIndexes, type) and isinstance(entry.meta, Mapping)
