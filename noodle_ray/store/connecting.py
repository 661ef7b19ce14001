"""Connecting: which URLs are taken, and how many connections each of our processes may have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import SQLAlchemyError

from noodle_ray.errors import Fault, InvalidInput, InvalidSettings

SETTING = "NOODLE_DATABASE_URL"

Opener = Literal["node-manager", "module-registry", "service-directory", "fusion-keeper", "command"]

MOST_CONNECTIONS = 20
POOLS: dict[Opener, int] = {
    "node-manager": 2,
    "module-registry": 3,
    "service-directory": 2,
    "fusion-keeper": 2,
    "command": 2,
}
"""Connections to PostgreSQL that each opener may have, at any time. The four that stay have 9: even where a head that
was given up is still there beside its successor, they and one command stay within MOST_CONNECTIONS."""

BUSY_S = 10.0
"""How long one waits for a connection that others of the same process have."""

_ALLOWED = (
    "must be like sqlite:////folder/noodle.sqlite or postgresql://USER:PASSWORD@HOST:5432/NAME, where @ : / ? # and % "
    "in a password are written %40 %3A %2F %3F %23 %25"
)


def engine_for(url: str, opener: Opener) -> Engine:
    """An engine that has connected nowhere yet. Raises InvalidSettings, which never repeats a password."""
    parsed = _parse(url)
    return _sqlite(parsed) if parsed.get_backend_name() == "sqlite" else _postgres(parsed, opener)


def _parse(given: str) -> URL:
    # What cannot be parsed is not repeated: any piece of it may be a piece of a password.
    try:
        url = make_url(given)
    except (SQLAlchemyError, ValueError):
        raise wrong_url(_ALLOWED) from None
    if url.drivername in ("postgres", "postgresql"):
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("sqlite", "sqlite+pysqlite", "postgresql+psycopg"):
        raise wrong_url(f"{_ALLOWED}; {url.drivername!r} is not known here")
    if "@" in (url.host or ""):
        raise wrong_url(_ALLOWED)
    return url


def wrong_url(problem: str) -> InvalidSettings:
    """The error that names the setting."""
    return InvalidSettings([Fault(SETTING, f"cannot be opened: {problem}")])


def _serialize(document: Any) -> str:
    try:
        return _encoder.encode(document)
    except (ValueError, TypeError) as error:
        raise InvalidInput.of("document", f"cannot be kept as JSON: {error}") from None


_encoder = json.JSONEncoder(allow_nan=False)  # Python would write NaN, which PostgreSQL refuses


def _postgres(url: URL, opener: Opener) -> Engine:
    from noodle_ray.store import postgres_connection

    defaults = postgres_connection.arguments(f"noodle-ray {opener}")
    if "options" in url.query:  # theirs come last, and count
        url = url.update_query_dict({"options": f"{defaults['options']} {url.query['options']}"})
    engine = create_engine(
        url,
        connect_args={name: value for name, value in defaults.items() if name not in url.query},
        pool_size=POOLS[opener],
        max_overflow=0,
        pool_timeout=BUSY_S,
        pool_pre_ping=True,  # a server that was started again meanwhile is found before something is asked of it
        hide_parameters=True,
        json_serializer=_serialize,
    )

    @event.listens_for(engine, "do_connect")
    def _connect(_dialect: object, _record: object, positional: Any, named: Any) -> object:
        return postgres_connection.TimedConnection.connect(*positional, **named)

    return engine


def _sqlite(url: URL) -> Engine:
    if url.database and url.database != ":memory:":
        try:
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise wrong_url(f"{Path(url.database).parent}: {error.strerror}") from error
    engine = create_engine(url, hide_parameters=True, json_serializer=_serialize)

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _: object) -> None:
        # WAL lets the actors' processes read while one writes; a killed process loses nothing that was committed.
        # First of all to wait for the others: switching to WAL needs the file to itself for a moment.
        for pragma in ("busy_timeout=5000", "journal_mode=WAL", "synchronous=NORMAL"):
            connection.execute(f"PRAGMA {pragma}")

    return engine
