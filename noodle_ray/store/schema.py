"""The layout of the tables: which version a database has, and bringing it to the one that this code knows."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import OperationalError

from noodle_ray.errors import Conflict, Unavailable

VERSION = "0002"
"""The last of the revisions in `migrations`."""

LOCK = 0x6E6F6F64
"""The number of PostgreSQL's advisory lock under which one process at a time changes the layout."""

WAIT_S, AGAIN_S = 60.0, 0.05
PATIENCE_S = 600.0
"""How long one step of a migration may take: with many rows it is no sign that the server is gone."""


def bring_up_to_date(engine: Engine, clock: Callable[[], float] = time.monotonic) -> None:
    """Makes or changes the tables, unless they are as they should be; several processes may try at once.

    Raises Conflict where a newer noodle-ray made them, Unavailable where others do not finish in time.
    """
    end = clock() + WAIT_S
    while not _try(engine):
        if clock() > end:
            raise Unavailable(f"the database does not answer: others have changed its layout for {WAIT_S:g} s")
        time.sleep(AGAIN_S)


def _try(engine: Engine) -> bool:
    """False where another process has the lock."""
    try:
        with engine.connect() as connection:
            if read_version(connection) == VERSION:
                return True
        with engine.begin() as connection, _patient(connection):
            if not _lock(connection):
                return False
            upgrade(connection)
            return True
    except (OperationalError, sqlite3.OperationalError) as error:
        # SQLite does not wait by itself for whoever switches a new file to write-ahead logging.
        if "locked" in str(error):
            return False
        raise


def read_version(connection: Connection) -> str | None:
    """The version of the layout; None of a database without tables, or from before versions were noted."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if found is None else str(found)


@contextmanager
def _patient(connection: Connection) -> Iterator[None]:
    """Neither side of a connection to PostgreSQL gives up early meanwhile."""
    if connection.dialect.name == "sqlite":
        yield
        return
    driver: Any = connection.connection.driver_connection
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    driver.answer_s = PATIENCE_S
    try:
        yield
    finally:
        del driver.answer_s  # the connection goes back to the others, and has their class's again


def _lock(connection: Connection) -> bool:
    """Until the end of the transaction nobody else changes the layout."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        return True
    return bool(connection.execute(text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": LOCK}).scalar())


def upgrade(connection: Connection, to: str = VERSION) -> None:
    """Takes the steps from the database's version to another, in the connection's transaction. Raises Conflict."""
    # Only here: most openings find everything in place, and importing Alembic takes longer than all the rest.
    from alembic.migration import MigrationContext
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationStep
    from alembic.script import ScriptDirectory

    folder = str(Path(__file__).parent / "migrations")
    script = ScriptDirectory(folder, version_locations=[folder])
    version = read_version(connection)
    known = [revision.revision for revision in script.walk_revisions()][::-1]
    if version is not None and version not in known:
        raise Conflict(_newer(version, known))
    revisions = reversed([*script.iterate_revisions(to, version or "base")])
    steps = [MigrationStep.upgrade_from_script(script.revision_map, revision) for revision in revisions]
    context = MigrationContext.configure(connection, opts={"fn": lambda *_: steps, "transactional_ddl": True})
    with Operations.context(context):
        context.run_migrations()


def _newer(version: str, known: list[str]) -> str:
    return (
        f"the database has the layout {version}, and this noodle-ray knows {known[0]} to {known[-1]}: use the newer "
        "noodle-ray that wrote it, or another NOODLE_DATABASE_URL"
    )
