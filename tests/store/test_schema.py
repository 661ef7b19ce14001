"""The layout's versions: new databases, those from before versions, steps between, and databases of the future."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, inspect, make_url, text
from sqlalchemy.pool import NullPool

from noodle_ray.errors import Conflict, Unavailable
from noodle_ray.store import schema, tables
from noodle_ray.store.changes import Put
from noodle_ray.store.database import Database

MIGRATIONS = Path(schema.__file__).parent / "migrations"

# As databases were made before they had versions.
UNVERSIONED = (
    "CREATE TABLE IF NOT EXISTS {} (key VARCHAR(300) NOT NULL, document JSON NOT NULL,"
    " updated_at {} DEFAULT CURRENT_TIMESTAMP, PRIMARY KEY (key))"
)


def engine_of(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    else:
        assert parsed.database is not None
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    return create_engine(parsed, poolclass=NullPool)


def time_type(engine: Engine) -> str:
    return "TIMESTAMP WITH TIME ZONE" if engine.dialect.name == "postgresql" else "DATETIME"


def test_the_version_is_that_of_the_last_migration() -> None:
    script = ScriptDirectory(str(MIGRATIONS), version_locations=[str(MIGRATIONS)])
    assert script.get_heads() == [schema.VERSION]
    names = {path.stem for path in MIGRATIONS.glob("v*.py")}
    assert {f"v{revision.revision}" for revision in script.walk_revisions()} == {name[:5] for name in names}


def test_a_new_database_has_the_layout_that_the_code_reads_and_writes(url: str) -> None:
    Database.open(url).close()
    engine = engine_of(url)
    with engine.connect() as connection:
        assert schema.read_version(connection) == schema.VERSION
        assert differences(connection) == []


def differences(connection: Connection) -> list[Any]:
    from alembic.autogenerate import compare_metadata

    return list(compare_metadata(MigrationContext.configure(connection), tables._metadata))


def test_the_comparison_itself_sees_a_difference(url: str) -> None:
    Database.open(url).close()
    with engine_of(url).begin() as connection:
        connection.execute(text("DROP TABLE sessions"))
        assert [kind for kind, _ in differences(connection)] == ["add_table"]


@pytest.mark.parametrize("known", [7, 3], ids=["all tables", "an older one"])
def test_a_database_from_before_versions_is_taken_over_with_its_rows(url: str, known: int) -> None:
    engine = engine_of(url)
    with engine.begin() as connection:
        for name in tables.TABLES[:known]:
            connection.execute(text(UNVERSIONED.format(name, time_type(engine))))
        row = {"key": "a'b", "document": json.dumps({"x": 1e23})}
        connection.execute(text("INSERT INTO modules (key, document) VALUES (:key, :document)"), row)
    database = Database.open(url)
    assert database.load("modules") == {"a'b": {"x": 1e23}}
    database.apply([Put("sessions", "s", {}), Put("modules", "a'b", {"x": 2})])
    assert database.load("modules") == {"a'b": {"x": 2}}
    database.close()
    with engine.connect() as connection:
        assert schema.read_version(connection) == schema.VERSION
        assert set(inspect(connection).get_table_names()) == {*tables.TABLES, "alembic_version"}


def test_the_first_layout_is_brought_to_the_last(url: str) -> None:
    engine = engine_of(url)
    with engine.begin() as connection:
        schema.upgrade(connection, "0001")
        assert schema.read_version(connection) == "0001"
        connection.execute(text("INSERT INTO nodes (key, document) VALUES ('B', '{}'), ('a', '{}')"))
    database = Database.open(url)
    assert list(database.load("nodes")) == ["B", "a"]
    database.close()


def test_keys_are_ordered_alike_whatever_language_the_server_is_set_to(postgres: Any) -> None:
    url = postgres.create_database("in_some_language", "TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US'")
    engine = engine_of(url)
    ordered = text("SELECT key FROM nodes ORDER BY key")
    with engine.begin() as connection:
        schema.upgrade(connection, "0001")
        connection.execute(text("INSERT INTO nodes (key, document) VALUES ('B', '{}'), ('a', '{}')"))
        assert connection.execute(ordered).scalars().all() == ["a", "B"]  # what the second revision is for
    database = Database.open(url)
    assert list(database.load("nodes")) == ["B", "a"]
    database.close()


def test_an_upgrade_that_fails_leaves_the_database_as_it_was(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Database.open(url).close()
    before = schema.upgrade

    def interrupted(connection: Connection, to: str = schema.VERSION) -> None:
        before(connection, to)
        connection.execute(text("CREATE TABLE half_done (x INTEGER)"))
        raise RuntimeError("interrupted")

    with engine_of(url).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    monkeypatch.setattr(schema, "upgrade", interrupted)
    with pytest.raises(RuntimeError, match="interrupted"):
        Database.open(url)
    with engine_of(url).connect() as connection:
        assert schema.read_version(connection) == "0001"
        assert not inspect(connection).has_table("half_done")


def test_a_database_of_a_newer_version_is_refused(url: str) -> None:
    Database.open(url).close()
    engine = engine_of(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0999'"))
    with pytest.raises(Conflict, match=re.escape("layout 0999, and this noodle-ray knows 0001 to 0002: use the newer")):
        Database.open(url)
    with engine.connect() as connection:
        assert schema.read_version(connection) == "0999"


def test_who_finds_everything_in_place_does_not_import_alembic(url: str) -> None:
    Database.open(url).close()
    program = f"""
import sys
from noodle_ray.store.database import Database
Database.open({url!r}).close()
assert not [name for name in sys.modules if name.split(".")[0] == "alembic"]
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_who_waits_too_long_for_another_is_told_so(new_url: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "_lock", lambda connection: False)
    monkeypatch.setattr(schema, "WAIT_S", 0.1)
    with pytest.raises(Unavailable, match="others have changed its layout for"):
        Database.open(new_url())


def test_only_one_at_a_time_has_the_lock(postgres_url: str) -> None:
    database = Database.open(postgres_url)
    with database._engine.begin() as first:
        assert schema._lock(first)
        with database._engine.begin() as second:
            assert not schema._lock(second)
    with database._engine.begin() as third:
        assert schema._lock(third)
    database.close()
