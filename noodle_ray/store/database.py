"""The database: one table of keyed JSON documents for each kind of record, changed in transactions."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    Connection,
    DateTime,
    Engine,
    Insert,
    MetaData,
    String,
    Table,
    bindparam,
    create_engine,
    event,
    func,
    make_url,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.schema import CreateTable

from noodle_ray.errors import Fault, InvalidSettings, NotFound, Unavailable
from noodle_ray.store.changes import Change, Document, Put

OPEN_TIMEOUT_S, OPEN_AGAIN_S = 10.0, 0.05
"""SQLite does not wait by itself for whoever switches a new file to write-ahead logging."""

TABLES = ("allocations", "nodes", "modules", "loads", "states", "services", "sessions")

_metadata = MetaData()
_tables = {
    name: Table(
        name,
        _metadata,
        Column("key", String(300), primary_key=True),
        Column("document", JSON, nullable=False),
        Column("updated_at", DateTime(timezone=True), server_default=func.now(), onupdate=func.now()),
    )
    for name in TABLES
}


class Database:
    """An open database. Every actor that keeps records opens its own, with a small pool (at most 20 in all).

    Methods block; call them from a thread where an event loop runs. Raise Unavailable while the database is away.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, url: str, pool_size: int = 4) -> Database:
        """Connects, and creates missing tables. Raises InvalidSettings where the URL is no database's."""
        try:
            parsed = make_url(url)
            if parsed.get_backend_name() == "sqlite":
                engine = _open_sqlite(parsed.render_as_string(hide_password=False), parsed.database)
            else:
                engine = create_engine(parsed, pool_size=pool_size, max_overflow=0, pool_pre_ping=True)
        except (SQLAlchemyError, ImportError) as error:
            raise InvalidSettings([Fault("NOODLE_DATABASE_URL", f"cannot be opened: {error}")]) from None
        _create_missing_in_time(engine)
        return cls(engine)

    def apply(self, changes: Iterable[Change]) -> None:
        """Makes all the changes, in order, in one transaction: all of them or none."""
        try:
            with self._engine.begin() as connection:
                for name, keyed in _last_by_table(changes).items():
                    _write(connection, _table(name), keyed)
        except OperationalError as error:
            raise Unavailable(f"the database does not answer: {error.orig}") from error

    def load(self, name: str) -> dict[str, Document]:
        """Every record of a table, by key, in the order of their keys."""
        table = _table(name)
        try:
            with self._engine.connect() as connection:
                rows = connection.execute(select(table.c.key, table.c.document).order_by(table.c.key))
                return {row.key: row.document for row in rows}
        except OperationalError as error:
            raise Unavailable(f"the database does not answer: {error.orig}") from error

    def find(self, name: str, key: str) -> Document | None:
        """One record of a table."""
        table = _table(name)
        try:
            with self._engine.connect() as connection:
                row = connection.execute(select(table.c.document).where(table.c.key == key)).first()
                return None if row is None else row.document
        except OperationalError as error:
            raise Unavailable(f"the database does not answer: {error.orig}") from error

    def close(self) -> None:
        self._engine.dispose()


def _last_by_table(changes: Iterable[Change]) -> dict[str, dict[str, Change]]:
    """For each table the last change of each key: what came before it in the same transaction nobody ever sees."""
    found: dict[str, dict[str, Change]] = {}
    for change in changes:
        found.setdefault(change.table, {})[change.key] = change
    return found


def _write(connection: Connection, table: Table, changes: Mapping[str, Change]) -> None:
    """At most two statements for however many rows."""
    rows = [{"key": c.key, "document": dict(c.document)} for c in changes.values() if isinstance(c, Put)]
    gone = [{"gone": key} for key, change in changes.items() if not isinstance(change, Put)]
    if rows:
        connection.execute(_upsert(connection.dialect.name, table.name), rows)
    if gone:
        connection.execute(table.delete().where(table.c.key == bindparam("gone")), gone)


@cache
def _upsert(dialect: str, name: str) -> Insert:
    """Inserts a row, or replaces what is under its key: both databases have it, in one statement."""
    insert = (postgresql if dialect == "postgresql" else sqlite).insert(_table(name))
    upsert: Insert = insert.on_conflict_do_update(
        index_elements=["key"], set_={"document": insert.excluded.document, "updated_at": func.now()}
    )
    return upsert


def _create_missing_in_time(engine: Engine) -> None:
    """Creates missing tables; a new SQLite file that others are opening too is locked now and then, at once."""
    end = time.monotonic() + OPEN_TIMEOUT_S
    while True:
        try:
            return _create_missing(engine)
        except (OperationalError, sqlite3.OperationalError) as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise Unavailable(f"the database does not answer: {getattr(error, 'orig', error)}") from error
        time.sleep(OPEN_AGAIN_S)


def _create_missing(engine: Engine) -> None:
    # Several actors open a new database at the same moment: each must take the others' tables for its own.
    with engine.begin() as connection:
        for table in _metadata.sorted_tables:
            connection.execute(CreateTable(table, if_not_exists=True))


def _table(name: str) -> Table:
    if name not in _tables:
        raise NotFound("table", name, TABLES)
    return _tables[name]


def _open_sqlite(url: str, path: str | None) -> Engine:
    if path and path != ":memory:":
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url)

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _: object) -> None:
        # WAL lets the actors' processes read while one writes; a killed process loses nothing that was committed.
        # First of all to wait for the others: switching to WAL needs the file to itself for a moment.
        for pragma in ("busy_timeout=5000", "journal_mode=WAL", "synchronous=NORMAL"):
            connection.execute(f"PRAGMA {pragma}")

    return engine
