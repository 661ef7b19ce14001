"""The store: keyed documents, changed in transactions, kept through a kill."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from noodle_ray.errors import CorruptData, InvalidInput, InvalidSettings, NotFound, Unavailable
from noodle_ray.store.changes import Delete, Put
from noodle_ray.store.database import Database
from noodle_ray.store.health import StoreHealth


@pytest.fixture
def opened(url: str) -> Iterator[Database]:
    database = Database.open(url)
    yield database
    database.close()


def test_puts_replace_and_deletes_forget(url: str) -> None:
    database = Database.open(url)
    database.apply([Put("nodes", "b", {"x": 1}), Put("nodes", "a", {"x": 2}), Put("modules", "a", {})])
    database.apply([Put("nodes", "b", {"x": 3}), Delete("nodes", "nobody")])
    assert database.load("nodes") == {"a": {"x": 2}, "b": {"x": 3}}
    assert list(database.load("nodes")) == ["a", "b"]
    database.apply([Delete("nodes", "a")])
    assert set(database.load("nodes")) == {"b"}
    assert database.load("modules") == {"a": {}}
    database.close()


def test_a_transaction_is_all_or_nothing(url: str) -> None:
    database = Database.open(url)
    with pytest.raises(NotFound, match="no table 'wurst'; known: allocations"):
        database.apply([Put("nodes", "a", {}), Put("wurst", "a", {})])
    assert database.load("nodes") == {}
    database.close()


def test_two_processes_see_each_others_rows(url: str) -> None:
    database, other = Database.open(url), Database.open(url)
    database.apply([Put("nodes", "a", {"x": 1})])
    assert other.load("nodes") == {"a": {"x": 1}}
    database.close()
    other.close()


def test_many_open_a_new_database_at_once(new_url: Callable[[], str]) -> None:
    program = """
import sys
from noodle_ray.store.database import Database
print("ready", flush=True)
sys.stdin.readline()  # all are ready before any opens
database = Database.open(sys.argv[1])
database.load("nodes")
"""
    for _ in range(3):
        command = [sys.executable, "-c", program, new_url()]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        opening = [subprocess.Popen(command, bufsize=0, **pipes) for _ in range(6)]
        for process in opening:
            assert process.stdout is not None
            process.stdout.readline()
        for process in opening:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
        errors = [process.communicate(timeout=60)[1] for process in opening]
        assert [process.returncode for process in opening] == [0] * 6, errors


def test_what_was_applied_survives_a_kill(url: str) -> None:
    program = f"""
import os, signal
from noodle_ray.store.changes import Put
from noodle_ray.store.database import Database
Database.open({url!r}).apply([Put("nodes", "a", {{"x": 1}})])
os.kill(os.getpid(), signal.SIGKILL)
"""
    run = subprocess.run([sys.executable, "-c", program], env=os.environ, check=False)
    assert run.returncode == -signal.SIGKILL
    database = Database.open(url)
    assert database.load("nodes") == {"a": {"x": 1}}
    database.close()


GONE = Exception("gone\nand hints")
AWAY = {
    "operational": (OperationalError("select", {}, GONE), "gone$"),
    "interface": (InterfaceError("select", {}, GONE), "gone$"),
    "lost on the way": (InternalError("select", {}, GONE, connection_invalidated=True), "gone$"),
    "follows another server": (InternalError("insert", {}, psycopg.errors.ReadOnlySqlTransaction("only")), "only$"),
    "pool": (PoolTimeout("QueuePool limit"), "all connections to it wait for it"),
    "while connecting": (sqlite3.OperationalError("locked"), "locked$"),
}


@pytest.mark.parametrize("error", AWAY)
def test_a_database_that_is_away_is_unavailable(url: str, monkeypatch: pytest.MonkeyPatch, error: str) -> None:
    now = [100.0]
    database = Database.open(url)
    database._clock = lambda: now[0]
    raised, told = AWAY[error]

    def away(*_: object) -> None:
        raise raised

    with monkeypatch.context() as patch:
        patch.setattr(database._engine, "begin", away)
        patch.setattr(database._engine, "connect", away)
        calls = (
            lambda: database.apply([Put("nodes", "a", {})]),
            lambda: database.load("nodes"),
            lambda: database.find("nodes", "a"),
        )
        for call in calls:
            with pytest.raises(Unavailable, match=f"^the database does not answer: {told}"):
                call()
            now[0] += 1.0
        health = database.check()
        assert health.is_away and health.away_s == 3.0 and re.search(told, health.error)
    assert database.health().away_s == 3.0  # nobody has asked meanwhile
    assert database.check() == database.health() == StoreHealth()
    database.close()


def test_an_error_that_means_nothing_of_that_is_raised_as_it_is(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database.open(url)

    def faulty(*_: object) -> None:
        raise ProgrammingError("select", {}, GONE)

    monkeypatch.setattr(database._engine, "connect", faulty)
    with pytest.raises(ProgrammingError):
        database.load("nodes")
    assert database.health() == StoreHealth()
    database.close()


KEYS = ("'; DROP TABLE nodes; --", '"quoted"', "%s %(key)s :key ?", "back\\slash", "π/ß", "", " ", "a" * 300)


def test_keys_are_values_and_never_part_of_a_statement(url: str) -> None:
    database = Database.open(url)
    database.apply([Put("nodes", key, {"is": key}) for key in KEYS])
    assert database.load("nodes") == {key: {"is": key} for key in KEYS}
    assert [database.find("nodes", key) for key in KEYS] == [{"is": key} for key in KEYS]
    database.apply([Delete("nodes", key) for key in KEYS])
    assert database.load("nodes") == {}
    database.close()


def test_keys_come_in_the_order_of_their_characters(url: str) -> None:
    database = Database.open(url)
    keys = ["b", "B", "a-b", "ab", "A", "ä", "z", "Z", "1", "_", "é", "e"]
    database.apply([Put("nodes", key, {}) for key in keys])
    assert list(database.load("nodes")) == sorted(keys)
    database.close()


NO_KEYS = {"NUL": "a\x00b", "300 characters": "a" * 301, "surrogate": "\ud800"}


@pytest.mark.parametrize("fault", NO_KEYS)
def test_what_can_be_no_key(url: str, fault: str) -> None:
    database, key = Database.open(url), NO_KEYS[fault]
    for call in (
        lambda: database.apply([Put("nodes", "a", {}), Put("nodes", key, {})]),
        lambda: database.apply([Delete("nodes", key)]),
        lambda: database.find("nodes", key),
    ):
        with pytest.raises(InvalidInput, match=f"^invalid input: key: .*{fault}"):
            call()
    assert database.load("nodes") == {}
    database.close()


@pytest.mark.parametrize("wrong", [float("nan"), float("-inf"), b"bytes", {1, 2}], ids=["nan", "inf", "bytes", "set"])
def test_what_can_be_no_document(url: str, wrong: object) -> None:
    database = Database.open(url)
    with pytest.raises(InvalidInput, match=r"^invalid input: document: cannot be kept as JSON: "):
        database.apply([Put("nodes", "a", {}), Put("nodes", "b", {"x": [wrong]})])
    assert database.load("nodes") == {} and database.health() == StoreHealth()
    database.close()


TEXT = st.text(st.characters(codec=None), max_size=8)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
DOCUMENTS = st.dictionaries(TEXT, JSON, max_size=4)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(document=DOCUMENTS)
@example(document={"x": 1e23, "y": -0.0, "z": 10**30, "\x00": "a\x00\ud800"})
def test_a_document_comes_back_as_it_was(opened: Database, document: dict[str, Any]) -> None:
    opened.apply([Put("nodes", "a", document)])
    # As text: it tells 1 from 1.0 and from True, and 0.0 from -0.0.
    assert repr(opened.find("nodes", "a")) == repr(document)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    batches=st.lists(st.lists(st.tuples(st.sampled_from("abcd"), st.none() | st.integers()), max_size=6), max_size=6)
)
def test_it_behaves_as_a_mapping(opened: Database, batches: list[list[tuple[str, int | None]]]) -> None:
    expected: dict[str, Any] = {}
    opened.apply([Delete("nodes", key) for key in opened.load("nodes")])
    for batch in batches:
        opened.apply(Delete("nodes", key) if x is None else Put("nodes", key, {"x": x}) for key, x in batch)
        for key, x in batch:
            expected[key] = {"x": x}
            if x is None:
                del expected[key]
        assert opened.load("nodes") == dict(sorted(expected.items()))


def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(Unavailable, match="does not answer"):
        Database.open(f"sqlite:///{tmp_path}/x")


def test_a_file_of_something_else_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("no database" * 1000)
    with pytest.raises(CorruptData, match=r"^the database cannot be read: file is not a database"):
        Database.open(f"sqlite:///{tmp_path}/x")


def test_a_folder_that_cannot_be_made_is_a_fault_of_the_url(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(InvalidSettings, match=r"NOODLE_DATABASE_URL: cannot be opened: .*Not a directory"):
        Database.open(f"sqlite:///{tmp_path}/x/deep/noodle.sqlite")


def test_a_database_in_memory() -> None:
    database = Database.open("sqlite://")
    database.apply([Put("nodes", "a", {})])
    assert database.load("nodes") == {"a": {}}
    database.close()
