"""Whether the database answers, is whole, and has the tables of this version; opened for reading only."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import URL, create_engine, inspect, make_url, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from noodle_ray.entry.doctor.finding import Finding, fail, ok
from noodle_ray.errors import shorten
from noodle_ray.store.tables import TABLES

NAME = "database"
TIMEOUT_S = 5
LAYOUT_TABLE, LAYOUT = "alembic_version", "SELECT version_num FROM alembic_version"
RESTORE = "`noodle down`, move the file away, and `noodle state import` the last backup"


def check_database(url: str, known: str = "") -> Finding:
    """`url`: SQLAlchemy's, as in the settings. `known`: the newest layout of the tables that this noodle-ray knows."""
    try:
        parsed = make_url(url)
    except SQLAlchemyError:
        return fail(NAME, "NOODLE_DATABASE_URL is no SQLAlchemy URL", "such as postgresql://user@host/name")
    try:
        return _check_sqlite(parsed, known) if parsed.get_backend_name() == "sqlite" else _check_server(parsed, known)
    except _Newer as newer:
        found = f"{parsed.render_as_string(hide_password=True)} has the layout {newer}, known here is {known}"
        return fail(NAME, found, "use the noodle-ray that wrote it, or a newer one")


class _Newer(Exception):
    """The tables have a layout from after this noodle-ray."""


def _check_sqlite(url: URL, known: str) -> Finding:
    path = Path(url.database or "")
    if not url.database or not path.exists():
        return ok(NAME, f"{path} is not there yet; it is made when it is needed")
    try:
        # Read only: a check creates no tables and repairs nothing.
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=TIMEOUT_S)) as connection:
            said = [row[0] for row in connection.execute("PRAGMA quick_check(5)")]
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            layout = connection.execute(LAYOUT).fetchone() if LAYOUT_TABLE in tables else None
    except sqlite3.Error as error:
        return fail(NAME, f"{path}: {error}", RESTORE)
    if said != ["ok"]:
        return fail(NAME, f"{path} is damaged: {shorten('; '.join(said), 200)}", RESTORE)
    return ok(NAME, f"SQLite {sqlite3.sqlite_version}, {path} is whole{_laid_out(layout, known)}{_without(tables)}")


def _check_server(url: URL, known: str) -> Finding:
    shown = url.render_as_string(hide_password=True)
    try:
        timeout = {"connect_timeout": TIMEOUT_S} if url.get_backend_name() == "postgresql" else {}
        engine = create_engine(_with_driver(url), poolclass=NullPool, connect_args=timeout)
        with engine.connect() as connection:
            version = str(connection.execute(text("select version()")).scalar_one()).partition(" (")[0]
            tables = set(inspect(connection).get_table_names())
            layout = connection.execute(text(LAYOUT)).first() if LAYOUT_TABLE in tables else None
    except (SQLAlchemyError, ImportError) as error:
        advice = "start it, or mend NOODLE_DATABASE_URL"
        return fail(NAME, f"{shown} does not answer: {_said(error, url)}", advice)
    return ok(NAME, f"{shown}: {version}{_laid_out(layout, known)}{_without(tables)}")


def _with_driver(url: URL) -> URL:
    """PostgreSQL by the driver that is installed with noodle-ray, where the URL names none."""
    return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url


def _said(error: Exception, url: URL) -> str:
    """The error's first line, without the password that a driver may have put into it."""
    said = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
    return shorten(said.replace(url.password, "***") if url.password else said, 200)


def _laid_out(row: Sequence[Any] | None, known: str) -> str:
    """Raises _Newer."""
    layout = str(row[0]) if row else ""
    if known and layout > known:
        raise _Newer(layout)
    if known and layout != known:
        return f"; the next start brings its layout from {layout or 'before versions'} to {known}"
    return f", layout {layout}" if layout else ""


def _without(tables: set[str]) -> str:
    missing = [name for name in TABLES if name not in tables]
    return f"; tables that the next start makes: {', '.join(missing)}" if missing else ""
