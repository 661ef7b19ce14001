"""Backups from SQLite into PostgreSQL, and back: the same rows either way."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from backups import ARTEFACT, State

from noodle_ray.entry.bench import postgres_server as servers
from noodle_ray.entry.bench.postgres_server import PostgresServer
from noodle_ray.errors import CorruptData, NoodleError
from noodle_ray.store.changes import Put
from noodle_ray.store.database import Database

TABLES: dict[str, dict[str, Any]] = {
    "modules": {"a@1": {"sha256": ARTEFACT.sha256}},
    "states": {
        "größer": {"n": 1e23, "i": 2**53, "f": 0.1, "text": "\u2028 \U0001f600 '\"", "none": None},
        "Z": {},
        "a": {},
    },
    "sessions": {f"s{number}": {"turns": list(range(number))} for number in range(200)},
    "nodes": {"n": {"name": "head"}},
}

Make = Callable[[str], State]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    if reason := servers.why_not():
        pytest.skip(reason)
    with servers.postgres_server() as running:
        yield running


@pytest.fixture
def make(server: PostgresServer, tmp_path: Path, numbers: Iterator[int] = count()) -> Make:  # noqa: B008  (one for all)
    """A new state whose rows are in a database of this kind."""

    def new(kind: str) -> State:
        name = f"state_{next(numbers)}"
        return State(tmp_path / name, server.create_database(name) if kind == "postgresql" else "")

    return new


@pytest.mark.parametrize(
    ("source", "target"), [("sqlite", "postgresql"), ("postgresql", "sqlite"), ("postgresql", "postgresql")]
)
def test_what_comes_back_is_what_went_in(make: Make, tmp_path: Path, source: str, target: str) -> None:
    here, there = make(source).fill(TABLES, {"heads/x.json": b"{}"}, [ARTEFACT]), make(target)
    there.import_(here.export(tmp_path / "backup.zip"), with_running=True)
    assert there.tables() == here.tables() == TABLES
    assert there.files() == {"heads/x.json": b"{}"}


def test_there_and_back_again_is_the_same_backup(make: Make, tmp_path: Path) -> None:
    first = make("sqlite").fill(TABLES, {}, [ARTEFACT]).export(tmp_path / "first.zip")
    between = make("postgresql")
    between.import_(first, with_running=True)
    last = make("sqlite")
    last.import_(between.export(tmp_path / "second.zip"), with_running=True)
    assert last.export(tmp_path / "third.zip").read_bytes() == first.read_bytes()


def test_what_is_there_is_replaced_in_one_transaction(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = make("sqlite").fill(TABLES, {}, [ARTEFACT]).export(tmp_path / "backup.zip")
    before = {"states": {"old": {"x": 1}}}
    there = make("postgresql").fill(before, {})
    apply = Database.apply

    def breaks_off(self: Database, changes: Any) -> None:
        apply(self, [*changes, Put("wurst", "a", {})])

    with monkeypatch.context() as patch:
        patch.setattr(Database, "apply", breaks_off)
        with pytest.raises(NoodleError, match="no table 'wurst'"):
            there.import_(backup, replace=True)
    assert there.tables() == before
    there.import_(backup, replace=True, with_running=True)
    assert there.tables() == TABLES


def test_a_damaged_backup_leaves_the_database_without_tables(make: Make, tmp_path: Path) -> None:
    (tmp_path / "backup.zip").write_bytes(b"no zip")
    there = make("postgresql")
    with pytest.raises(CorruptData):
        there.import_(tmp_path / "backup.zip")
    assert there.tables() == {}
