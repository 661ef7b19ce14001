"""What a database's errors mean: it is away, its file is no database, or the document cannot be kept."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DatabaseError, DBAPIError, InterfaceError, OperationalError, StatementError, TimeoutError

from noodle_ray.errors import CorruptData, InvalidInput, Unavailable

READ_ONLY = "25006"
"""PostgreSQL's code for a write to a server that follows another one: it may be promoted yet."""

_AWAY = (OperationalError, InterfaceError, sqlite3.OperationalError)


@contextmanager
def translated() -> Iterator[None]:
    """Raises Unavailable for whatever means that the database is away, or is too busy to answer.

    A change whose outcome is unknown then may be made again: changes put or delete by key, so twice is once. Raises
    InvalidInput for a document that is no JSON, CorruptData where an SQLite file is none.
    """
    try:
        yield
    except TimeoutError:
        raise Unavailable("the database does not answer: all connections to it wait for it") from None
    except _AWAY as error:
        raise _away(error) from error
    except StatementError as error:
        raise _told(error) from error


def _told(error: StatementError) -> Exception:
    """The error to raise for one that is none of losing the connection by its class."""
    if isinstance(error.orig, InvalidInput):  # raised while the document was written as JSON
        return error.orig
    if isinstance(error, DBAPIError):
        if error.connection_invalidated or getattr(error.orig, "sqlstate", None) == READ_ONLY:
            return _away(error)
        if type(error) is DatabaseError and isinstance(error.orig, sqlite3.DatabaseError):
            return CorruptData(f"the database cannot be read: {error.orig}")
    return error


def _away(error: Exception) -> Unavailable:
    return Unavailable(f"the database does not answer: {first_line(error)}")


def first_line(error: Exception) -> str:
    """In the driver's words, of which the first line says all; never with the statement and its documents."""
    reason = str(getattr(error, "orig", None) or error).strip()
    return reason.splitlines()[0] if reason else type(error).__name__
