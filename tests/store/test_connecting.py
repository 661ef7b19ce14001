"""Connecting: URLs that are taken and those that are not, passwords that are never repeated, twenty connections."""

from __future__ import annotations

import logging
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from noodle_ray.entry.bench.postgres_server import PostgresServer
from noodle_ray.errors import InvalidSettings, NoodleError, Unavailable
from noodle_ray.settings import Settings
from noodle_ray.store.changes import Put
from noodle_ray.store.connecting import MOST_CONNECTIONS, POOLS, engine_for
from noodle_ray.store.database import Database

SECRET = "hunter2"


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_the_usual_ways_to_write_postgresql(postgres: PostgresServer, postgres_url: str, scheme: str) -> None:
    database = Database.open(postgres_url.replace("postgresql", scheme, 1))
    assert database.load("nodes") == {}
    database.close()


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "nonsense",
        f"wurst://u:{SECRET}@h/d",
        f"postgresql+nodriver://u:{SECRET}@h/d",
        f"postgresql+psycopg2://u:{SECRET}@h/d",
        f"mysql://u:{SECRET}@h/d",
        f"postgresql://u:a@{SECRET}@h/d",
        f"postgresql://u:a@b:{SECRET}/d",
        f"postgresql://u:a/{SECRET}@h:port/d",
        f"u:{SECRET}@h",
    ],
)
def test_a_wrong_url_names_the_setting_and_no_password(wrong: str) -> None:
    with pytest.raises(InvalidSettings, match="NOODLE_DATABASE_URL: cannot be opened: must be like sqlite:") as caught:
        Database.open(wrong)
    assert SECRET not in str(caught.value) and SECRET not in str(caught.value.to_json())
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_what_it_can_be_told_of_a_server_names_no_password(
    postgres: PostgresServer, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    right = make_url(postgres_url)
    wrong = {
        "refused": right.set(password=SECRET, port=1),
        "password": right.set(password=SECRET),
        "user": right.set(username="nobody", password=SECRET),
        "database": right.set(database="nowhere"),
        "host": right.set(host="no.such.host.invalid", password=SECRET),
        "option": right.update_query_dict({"wurst": "1"}),
        "ssl": right.update_query_dict({"sslmode": "wurst"}),
    }
    for what, url in wrong.items():
        with pytest.raises(NoodleError) as caught:
            Database.open(url.render_as_string(hide_password=False))
        errors = [caught.value, caught.value.__cause__, caught.value.__context__]
        for text in (str(caught.value), repr(errors), caplog.text):
            assert SECRET not in text and postgres.password not in text, what
        assert "\n" not in str(caught.value)


def test_a_server_that_refuses_a_right_is_a_fault_of_the_settings(postgres: PostgresServer, postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"DROP ROLE IF EXISTS guest; CREATE ROLE guest LOGIN PASSWORD '{SECRET}'")
    guest = make_url(postgres_url).set(username="guest", password=SECRET).render_as_string(hide_password=False)
    with pytest.raises(InvalidSettings, match="cannot be opened: permission denied for schema public"):
        Database.open(guest)


def test_settings_do_not_show_the_url(tmp_path: Path) -> None:
    assert SECRET not in repr(Settings(state_dir=tmp_path, database_url=f"postgresql://u:{SECRET}@h/d"))


def test_what_the_url_says_comes_before_what_is_usual(postgres: PostgresServer, postgres_url: str) -> None:
    url = f"{postgres_url}?application_name=mine&connect_timeout=9&options=-c%20statement_timeout%3D77s"
    engine = engine_for(url, "command")
    with engine.connect() as connection:
        shown = [
            connection.exec_driver_sql(f"SHOW {name}").scalar()
            for name in ("application_name", "statement_timeout", "idle_in_transaction_session_timeout")
        ]
        assert connection.connection.driver_connection is not None
        parameters = connection.connection.driver_connection.info.get_parameters()
    assert shown == ["mine", "77s", "15s"]
    assert (parameters["connect_timeout"], parameters["tcp_user_timeout"]) == ("9", "5000")
    engine.dispose()


def test_two_heads_and_a_command_have_twenty_connections() -> None:
    resident = sum(size for opener, size in POOLS.items() if opener != "command")
    assert 2 * resident + POOLS["command"] <= MOST_CONNECTIONS == 20


def connections(url: str) -> list[str]:
    with psycopg.connect(url, autocommit=True) as connection:
        rows = connection.execute(
            "SELECT application_name FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return [row[0] for row in rows]


def test_all_openers_together_never_have_more_connections_than_they_may(postgres_url: str) -> None:
    """Twice each, under load from eight threads each: as on a head beside the one that it replaces."""
    openers = ["command", *(opener for opener in (*POOLS, *POOLS) if opener != "command")]
    opened = [Database.open(postgres_url, opener) for opener in openers]
    seen: list[list[str]] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            seen.append(connections(postgres_url))

    def load(number: int, database: Database) -> None:
        for turn in range(15):
            database.apply([Put("nodes", f"{number}", {"turn": turn})])
            database.load("nodes")

    watcher = threading.Thread(target=watch)
    watcher.start()
    many = 8 * len(opened)
    with ThreadPoolExecutor(many) as pool:
        list(pool.map(load, range(many), islice(cycle(opened), many)))
    over.set()
    watcher.join()
    kept = len(opened[0].load("nodes"))
    both = zip(openers, opened, strict=True)
    taken = [database._engine.connect() for opener, database in both for _ in range(POOLS[opener])]
    at_most = connections(postgres_url)
    for connection in taken:
        connection.close()
    for database in opened:
        database.close()
    wait_for_none(postgres_url)
    assert kept == many
    assert 10 < max(map(len, seen)) <= len(at_most) == MOST_CONNECTIONS
    assert at_most.count("noodle-ray node-manager") == 2 * POOLS["node-manager"]


def wait_for_none(url: str) -> None:
    end = time.monotonic() + 10
    while (left := connections(url)) and time.monotonic() < end:
        time.sleep(0.05)
    assert left == []


def test_who_waits_too_long_for_a_connection_is_told_so(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noodle_ray.store.connecting.BUSY_S", 0.05)
    database = Database.open(postgres_url, "command")
    taken = [database._engine.connect() for _ in range(POOLS["command"])]
    with pytest.raises(Unavailable, match=re.escape("all connections to it wait for it")):
        database.load("nodes")
    for connection in taken:
        connection.close()
    assert database.load("nodes") == {}
    database.close()
