"""The tables: keyed JSON documents, one table for each kind of record, the same in SQLite and PostgreSQL."""

from __future__ import annotations

from functools import cache

from sqlalchemy import JSON, Column, DateTime, Insert, MetaData, String, Table, func
from sqlalchemy.dialects import postgresql, sqlite

from noodle_ray.errors import InvalidInput, NotFound

TABLES = ("allocations", "nodes", "modules", "loads", "states", "services", "sessions")
RUNNING = ("allocations", "nodes", "loads", "services")
"""What is of one running cluster, and ends with it; the others last."""

KEY_CHARACTERS = 300

_metadata = MetaData()
_tables = {
    name: Table(
        name,
        _metadata,
        Column("key", String(KEY_CHARACTERS), primary_key=True),
        # JSON and not JSONB in PostgreSQL: text comes back as it went in, 1e23 as a float and not as an integer.
        Column("document", JSON, nullable=False),
        Column("updated_at", DateTime(timezone=True), server_default=func.now(), onupdate=func.now()),
    )
    for name in TABLES
}


def table(name: str) -> Table:
    """Raises NotFound."""
    if name not in _tables:
        raise NotFound("table", name, TABLES)
    return _tables[name]


def check_key(key: str) -> str:
    """The key, where both databases can keep it. Raises InvalidInput: SQLite would take what PostgreSQL refuses."""
    if len(key) > KEY_CHARACTERS:
        raise InvalidInput.of("key", f"may have {KEY_CHARACTERS} characters", key)
    if "\x00" in key:
        raise InvalidInput.of("key", "may have no NUL character in it", key)
    if not key.isascii() and any("\ud800" <= character <= "\udfff" for character in key):
        raise InvalidInput.of("key", "may have no half of a surrogate pair in it", key)
    return key


@cache
def upsert(dialect: str, name: str) -> Insert:
    """Inserts a row, or replaces what is under its key: both databases have it, in one statement."""
    insert = (postgresql if dialect == "postgresql" else sqlite).insert(table(name))
    statement: Insert = insert.on_conflict_do_update(
        index_elements=["key"], set_={"document": insert.excluded.document, "updated_at": func.now()}
    )
    return statement
