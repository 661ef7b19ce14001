"""A PostgreSQL server that crashes, stands still or cannot be reached: calls say so, and go on afterwards."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import psycopg
import pytest
from sqlalchemy import event

from noodle_ray.actors.journal import Journal
from noodle_ray.entry.bench.postgres_server import PostgresServer
from noodle_ray.errors import Unavailable
from noodle_ray.store import postgres_connection, until_available
from noodle_ray.store.backoff import Backoff
from noodle_ray.store.changes import Delete, Put
from noodle_ray.store.database import Database
from noodle_ray.store.postgres_connection import TimedConnection

LONG_S = 60.0
"""Far more than any call may take; what is waited for comes in a fraction of it."""


@pytest.fixture
def server(postgres: PostgresServer) -> Iterator[PostgresServer]:
    """The server, which answers again at the end, whatever a test did to it."""
    yield postgres
    postgres.stop(crash=True)
    postgres.start()


@pytest.fixture
def database(postgres_url: str) -> Iterator[Database]:
    opened = Database.open(postgres_url, "node-manager")
    yield opened
    opened.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connecting takes two seconds at least before psycopg gives up."""
    monkeypatch.setattr(TimedConnection, "answer_s", 0.5)
    monkeypatch.setattr(postgres_connection, "CONNECT_S", 2)


def calls_of(database: Database) -> list[Callable[[], object]]:
    return [
        partial(database.apply, [Put("nodes", "b", {})]),
        partial(database.load, "nodes"),
        partial(database.find, "nodes", "a"),
    ]


def test_a_crash_is_told_and_forgotten(server: PostgresServer, database: Database) -> None:
    database.apply([Put("nodes", "a", {"x": 1})])
    server.stop(crash=True)
    for call in calls_of(database):
        with pytest.raises(Unavailable, match=r"^the database does not answer: "):
            call()
    assert database.check().is_away
    server.start()
    assert database.load("nodes") == {"a": {"x": 1}}
    assert not database.health().is_away


def test_a_server_started_again_between_two_calls_is_not_even_noticed(
    server: PostgresServer, database: Database
) -> None:
    database.apply([Put("nodes", "a", {"x": 1})])
    server.stop(crash=True)
    server.start()
    database.apply([Put("nodes", "b", {"x": 2})])
    assert database.load("nodes") == {"a": {"x": 1}, "b": {"x": 2}}


def test_nothing_is_lost_by_crashes_in_the_midst_of_writing(server: PostgresServer, database: Database) -> None:
    """Each number is written until it is taken, as the journal does; the server crashes three times meanwhile."""
    over, refused = threading.Event(), 0

    def crash() -> None:
        for _ in range(3):
            time.sleep(0.3)
            server.stop(crash=True)
            time.sleep(0.1)
            server.start()
        over.set()

    with ThreadPoolExecutor(1) as pool:
        crashing = pool.submit(crash)
        number, is_taken = 0, False
        # What is refused may have been written all the same: the last one, too, is to be taken.
        while not over.is_set() or number < 100 or not is_taken:
            changes = [Put("nodes", f"{number}", {"x": number}), Put("nodes", "last", {"x": number})]
            try:
                database.apply([*changes, Delete("nodes", f"{number - 50}")])
                number, is_taken = number + 1, True
            except Unavailable:
                refused, is_taken = refused + 1, False
                time.sleep(0.01)
        crashing.result()
    kept = database.load("nodes")
    assert refused > 0
    assert kept == {"last": {"x": number - 1}, **{f"{n}": {"x": n} for n in range(number - 50, number)}}


def test_a_server_that_stands_still_is_told_in_time(server: PostgresServer, postgres_url: str, impatient: None) -> None:
    database = Database.open(postgres_url)
    database.apply([Put("nodes", "a", {"x": 1})])
    server.freeze()
    for call in calls_of(database):
        start = time.monotonic()
        with pytest.raises(Unavailable, match=r"did not answer within 0.5 s|timeout"):
            call()
        assert time.monotonic() - start < LONG_S
    assert database.check().is_away
    server.thaw()
    assert database.load("nodes") == {"a": {"x": 1}}
    database.close()


@pytest.mark.parametrize("moment", ["before_cursor_execute", "commit"])
def test_a_write_that_was_given_up_does_not_come_after_a_later_one(
    server: PostgresServer, postgres_url: str, impatient: None, moment: str
) -> None:
    """The server stops when the statement, or the commit, is about to be sent, and reads it when it goes on."""
    database = Database.open(postgres_url)
    for x in range(1, 4):
        event.listen(database._engine, moment, freeze := lambda *_: server.freeze())
        with pytest.raises(Unavailable, match=r"did not answer within 0.5 s"):
            database.apply([Put("nodes", "a", {"x": -x})])
        event.remove(database._engine, moment, freeze)
        server.thaw()
        write_until_taken(database, Put("nodes", "a", {"x": x}))
        time.sleep(0.1)
        assert database.find("nodes", "a") == {"x": x}
    database.close()


def write_until_taken(database: Database, change: Put) -> None:
    end = time.monotonic() + LONG_S
    while True:
        try:
            return database.apply([change])
        except Unavailable:
            assert time.monotonic() < end


def test_a_statement_that_waits_for_a_lock_is_given_up_by_the_server(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(postgres_connection.SERVER, "statement_timeout", "200ms")
    database = Database.open(postgres_url)
    with psycopg.connect(postgres_url) as other:
        other.execute("LOCK TABLE nodes")
        with pytest.raises(Unavailable, match=r"canceling statement due to statement timeout"):
            database.apply([Put("nodes", "a", {})])
    database.apply([Put("nodes", "a", {})])
    assert database.load("nodes") == {"a": {}}
    database.close()


def test_a_server_that_only_follows_another_is_away(postgres_url: str) -> None:
    Database.open(postgres_url).close()
    database = Database.open(f"{postgres_url}?options=-c%20default_transaction_read_only%3Don")
    with pytest.raises(Unavailable, match=r"read-only transaction"):
        database.apply([Put("nodes", "a", {})])
    database.close()


def test_who_opens_a_server_that_is_away_is_told_so(server: PostgresServer, postgres_url: str) -> None:
    server.stop(crash=True)
    with pytest.raises(Unavailable, match=r"^the database does not answer: connection failed: "):
        Database.open(postgres_url)


async def test_openers_wait_and_the_journal_writes_on_after_a_crash(
    server: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(until_available, "BACKOFF", Backoff(0.02, 0.1))
    server.stop(crash=True)
    opening = asyncio.create_task(
        until_available.until_available(partial(asyncio.to_thread, Database.open, postgres_url, "node-manager"))
    )
    await asyncio.sleep(0.2)
    assert not opening.done()
    await asyncio.to_thread(server.start)
    database = await opening
    journal = Journal(database)
    for number in range(60):
        journal.add(Put("nodes", f"{number % 7}", {"x": number}))
        if number == 20:
            await journal.kept()
            await asyncio.to_thread(server.stop, True)
        if number == 40:
            waiting = asyncio.create_task(journal.kept())
            await asyncio.to_thread(server.start)
            await asyncio.wait_for(waiting, LONG_S)
            assert database.load("nodes") == {f"{n % 7}": {"x": n} for n in range(34, 41)}
    await asyncio.wait_for(journal.kept(), LONG_S)
    assert database.load("nodes") == {f"{n % 7}": {"x": n} for n in range(53, 60)}
    database.close()
