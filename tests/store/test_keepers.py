"""Who keeps records, without Ray: the journal and the service directory, over a store that comes and goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from noodle_ray.actors import service_directory
from noodle_ray.actors.journal import Journal
from noodle_ray.actors.service_directory import ServiceDirectory
from noodle_ray.errors import InvalidInput, Unavailable
from noodle_ray.services.directory import Registration
from noodle_ray.settings import Settings
from noodle_ray.store import until_available
from noodle_ray.store.backoff import Backoff
from noodle_ray.store.changes import Change, Put
from noodle_ray.store.database import Database


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(until_available, "BACKOFF", Backoff(0.005, 0.01))
    monkeypatch.setattr(service_directory, "EXPIRY_INTERVAL_S", 0.01)


class Store:
    """Whether the store of all databases is away; it notes what was tried meanwhile."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_away, self.tried = False, list[Change]()
        apply, open_ = Database.apply, Database.open

        def unsteady(database: Database, changes: Sequence[Change]) -> None:
            if self.is_away:
                self.tried.extend(changes)
                raise Unavailable("away")
            apply(database, changes)

        def opened(*args: Any) -> Database:
            if self.is_away:
                raise Unavailable("away")
            return open_(*args)

        monkeypatch.setattr(Database, "apply", unsteady)
        monkeypatch.setattr(Database, "open", opened)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    return Store(monkeypatch)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110  (what is waited for sets no event)
            await asyncio.sleep(0.005)


async def directory(settings: Settings) -> ServiceDirectory:
    made = ServiceDirectory.__new__(ServiceDirectory)
    await made.__init__(settings)  # type: ignore[misc]  # as Ray does
    return made


async def test_the_directory_loses_nothing_that_it_decided_while_the_store_was_away(
    settings: Settings, store: Store
) -> None:
    here = await directory(settings)
    await here.register(Registration(name="old", address="a"))
    await here.register(Registration(name="lease", address="a", ttl_s=1))
    store.is_away = True
    calls = [
        asyncio.create_task(here.register(Registration(name="new", address="a"))),
        asyncio.create_task(here.register(Registration(name="new", address="b"))),
        asyncio.create_task(here.unregister("old")),
    ]
    await until(lambda: len(store.tried) > 5)
    assert not any(call.done() for call in calls)
    await until(lambda: "lease" not in here._core._services)  # it ends although nobody can write that down
    store.is_away = False
    await asyncio.gather(*calls)
    await here._journal.kept()
    again = await directory(settings)
    assert [(service.name, service.address) for service in await again.services()] == [("new", "b")]
    for one in (here, again):
        one._expiry.cancel()


async def test_the_directory_waits_for_an_absent_store(settings: Settings, store: Store) -> None:
    store.is_away = True
    starting = asyncio.create_task(directory(settings))
    await asyncio.sleep(0.05)
    assert not starting.done()
    store.is_away = False
    started = await asyncio.wait_for(starting, 30)
    assert await started.services() == []
    started._expiry.cancel()


async def test_the_journal_tells_of_what_no_store_can_keep_and_goes_on(settings: Settings) -> None:
    database = Database.open(settings.database)
    journal = Journal(database)
    journal.add(Put("nodes", "a\x00b", {}))
    with capture_logs() as logs, pytest.raises(InvalidInput, match="NUL"):
        await journal.kept()
    assert [log["keys"] for log in logs if log["event"] == "changes_not_kept"] == [["a\x00b"]]
    journal.add(Put("nodes", "a", {"x": 1}))
    await journal.kept()
    assert database.load("nodes") == {"a": {"x": 1}}
    database.close()


async def test_the_journal_keeps_the_order_of_the_decisions(settings: Settings, store: Store) -> None:
    database = Database.open(settings.database)
    journal = Journal(database)
    store.is_away = True
    journal.add(Put("nodes", "a", {"x": 1}))
    waiting = asyncio.create_task(journal.kept())
    await until(lambda: store.tried)
    journal.add(Put("nodes", "a", {"x": 2}))
    later = asyncio.create_task(journal.kept())
    await asyncio.sleep(0.02)
    assert not waiting.done() and not later.done()
    store.is_away = False
    await asyncio.gather(waiting, later)
    assert database.load("nodes") == {"a": {"x": 2}}
    database.close()
