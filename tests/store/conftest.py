"""A PostgreSQL server for the tests of the store, and a new database for each of them, in it or in SQLite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from noodle_ray.entry.bench import postgres_server as servers
from noodle_ray.entry.bench.postgres_server import PostgresServer

_numbers = count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One for all tests of this process: whoever stops or freezes it has it answer again at the end."""
    if reason := servers.why_not():
        pytest.skip(reason)
    with servers.postgres_server() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> str:
    return postgres.create_database(f"noodle_{next(_numbers)}")


@pytest.fixture(params=["sqlite", "postgres"])
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """What gives the URL of one more empty database."""
    if request.param == "sqlite":
        return lambda: f"sqlite:///{tmp_path}/deep/{next(_numbers)}.sqlite"
    server: PostgresServer = request.getfixturevalue("postgres")
    return lambda: server.create_database(f"noodle_{next(_numbers)}")


@pytest.fixture
def url(new_url: Callable[[], str]) -> str:
    return new_url()
