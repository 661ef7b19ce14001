"""The database: one table of keyed JSON documents for each kind of record, changed in transactions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import structlog
from sqlalchemy import Connection, Engine, Table, bindparam, select
from sqlalchemy.exc import DBAPIError

from noodle_ray.errors import Unavailable
from noodle_ray.store.changes import Change, Document, Put
from noodle_ray.store.connecting import Opener, engine_for, wrong_url
from noodle_ray.store.failures import first_line, translated
from noodle_ray.store.health import StoreHealth
from noodle_ray.store.schema import bring_up_to_date
from noodle_ray.store.tables import check_key, table, upsert

log = structlog.get_logger()


class Database:
    """An open database. Every process that keeps records opens its own, with as many connections as POOLS gives it.

    Methods block; call them from a thread where an event loop runs. While the database is away they raise Unavailable,
    within seconds; the next call tries it anew. They may then be called again with the same: twice is as once.
    """

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine, self._clock = engine, clock
        self._away: tuple[float, str] | None = None
        """Since when, by the clock, and what was said last."""

    @classmethod
    def open(cls, url: str, opener: Opener = "command") -> Database:
        """Connects, and brings the tables up to date; `opener` is who opens it, which says how many connections it has.

        Raises InvalidSettings where the URL is none of ours, Conflict where a newer noodle-ray wrote the database,
        CorruptData where it is an SQLite file that is none, Unavailable.
        """
        engine = engine_for(url, opener)
        try:
            with translated():
                bring_up_to_date(engine)
        except BaseException as error:
            engine.dispose()
            if isinstance(error, DBAPIError):  # it answers, and refuses: an option, a right that is missing
                raise wrong_url(first_line(error)) from error
            raise
        return cls(engine)

    def apply(self, changes: Iterable[Change]) -> None:
        """Makes all the changes, in order, in one transaction: all of them or none.

        Raises InvalidInput where a key or a document cannot be kept, NotFound for an unknown table.
        """
        with self._asked(), self._engine.begin() as connection:
            for name, keyed in _last_by_table(changes).items():
                _write(connection, table(name), keyed)

    def load(self, name: str) -> dict[str, Document]:
        """Every record of a table, by key, in the order of their keys."""
        found = table(name)
        with self._asked(), self._engine.connect() as connection:
            rows = connection.execute(select(found.c.key, found.c.document).order_by(found.c.key))
            return {row.key: row.document for row in rows}

    def find(self, name: str, key: str) -> Document | None:
        """One record of a table. Raises InvalidInput for what can be no key."""
        found, key = table(name), check_key(key)
        with self._asked(), self._engine.connect() as connection:
            row = connection.execute(select(found.c.document).where(found.c.key == key)).first()
            return None if row is None else row.document

    def check(self) -> StoreHealth:
        """Asks whether it is there, and says so: does not raise Unavailable."""
        try:
            with self._asked(), self._engine.connect() as connection:
                connection.execute(select(1))
        except Unavailable:
            pass
        return self.health()

    def health(self) -> StoreHealth:
        """What the last call met; asks nothing, and does not block."""
        away = self._away
        return StoreHealth() if away is None else StoreHealth(max(self._clock() - away[0], 0.0), away[1])

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _asked(self) -> Iterator[None]:
        """Notes whether it answers."""
        try:
            with translated():
                yield
        except Unavailable as error:
            self._away = (self._clock() if self._away is None else self._away[0], error.message)
            raise
        if self._away is not None:
            log.info("store_back", away_s=round(self._clock() - self._away[0], 3))
            self._away = None


def _last_by_table(changes: Iterable[Change]) -> dict[str, dict[str, Change]]:
    """For each table the last change of each key: what came before it in the same transaction nobody ever sees."""
    found: dict[str, dict[str, Change]] = {}
    for change in changes:
        found.setdefault(change.table, {})[check_key(change.key)] = change
    return found


def _write(connection: Connection, table: Table, changes: Mapping[str, Change]) -> None:
    """At most two statements for however many rows."""
    rows = [{"key": c.key, "document": dict(c.document)} for c in changes.values() if isinstance(c, Put)]
    gone = [{"gone": key} for key, change in changes.items() if not isinstance(change, Put)]
    if rows:
        connection.execute(upsert(connection.dialect.name, table.name), rows)
    if gone:
        connection.execute(table.delete().where(table.c.key == bindparam("gone")), gone)
