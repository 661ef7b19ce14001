"""The store: keyed documents, changed in transactions, kept through a kill."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from noodle_ray.errors import InvalidSettings, NotFound, Unavailable
from noodle_ray.store.changes import Delete, Put
from noodle_ray.store.database import Database


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/deep/noodle.sqlite"


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


def test_many_open_a_new_database_at_once(tmp_path: Path) -> None:
    program = """
import sys
from noodle_ray.store.database import Database
print("ready", flush=True)
sys.stdin.readline()  # all are ready before any opens
database = Database.open(sys.argv[1])
database.load("nodes")
"""
    for attempt in range(3):
        url = f"sqlite:///{tmp_path}/{attempt}.sqlite"
        command = [sys.executable, "-c", program, url]
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


@pytest.mark.parametrize("wrong", ["", "nonsense", "wurst://x", "postgresql+nodriver://h/d"])
def test_a_wrong_url_names_the_setting(wrong: str) -> None:
    with pytest.raises(InvalidSettings, match="NOODLE_DATABASE_URL: cannot be opened"):
        Database.open(wrong)


def test_a_database_that_is_away_is_unavailable(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database.open(url)

    def away(*_: object) -> None:
        raise OperationalError("select", {}, Exception("gone"))

    monkeypatch.setattr(database._engine, "begin", away)
    monkeypatch.setattr(database._engine, "connect", away)
    with pytest.raises(Unavailable, match="does not answer: gone"):
        database.apply([Put("nodes", "a", {})])
    with pytest.raises(Unavailable, match="does not answer: gone"):
        database.load("nodes")
    database.close()


def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(Unavailable, match="does not answer"):
        Database.open(f"sqlite:///{tmp_path}/x")


def test_a_database_in_memory() -> None:
    database = Database.open("sqlite://")
    database.apply([Put("nodes", "a", {})])
    assert database.load("nodes") == {"a": {}}
    database.close()
