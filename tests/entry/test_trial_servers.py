"""Servers for trials, PostgreSQL and Redis: their own, reached by password only, and as they were after a crash."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from pathlib import Path

import psycopg
import pytest
import redis

from noodle_ray.entry.bench import postgres_server, redis_server
from noodle_ray.entry.bench.postgres_server import PostgresServer
from noodle_ray.errors import Unavailable

ADDRESS = "127.0.0.9"
"""An address of this machine other than the usual one: servers listen there and nowhere else."""


@pytest.fixture(scope="module")
def redis_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if reason := redis_server.why_not():
        pytest.skip(reason)
    return tmp_path_factory.mktemp("redis")


@pytest.fixture
def no_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr(Path, "glob", lambda path, pattern: iter(()))


def test_why_there_can_be_none(no_programs: None, tmp_path: Path) -> None:
    assert redis_server.why_not() == "redis-server: not installed (Debian: redis-server)"
    assert postgres_server.why_not() == "initdb and postgres: not installed (Debian: postgresql)"
    with (
        pytest.raises(Unavailable, match=r"there can be no Redis here: redis-server: not"),
        redis_server.redis_server(tmp_path),
    ):
        pass
    with (
        pytest.raises(Unavailable, match=r"there can be no PostgreSQL here: initdb and"),
        postgres_server.postgres_server(),
    ):
        pass


def listens(address: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0


@pytest.mark.parametrize("fsync", ["always", "everysec"])
def test_redis_keeps_what_it_was_told(redis_folder: Path, fsync: redis_server.Fsync) -> None:
    with redis_server.redis_server(redis_folder, ADDRESS, fsync=fsync) as server:
        assert listens(ADDRESS, server.port) and not listens("127.0.0.1", server.port)
        with redis.Redis.from_url(server.url, retry=None) as client:
            assert client.config_get("append*")["appendfsync"] == fsync
            client.set("a", fsync)
        server.stop(crash=True)
        assert not listens(ADDRESS, server.port)
        server.start()
        with redis.Redis.from_url(server.url, retry=None) as client:
            assert client.get("a") == fsync.encode()
        stranger = redis.Redis(host=ADDRESS, port=server.port, retry=None)
        with stranger, pytest.raises(redis.AuthenticationError):
            stranger.get("a")
        assert oct((redis_folder / "redis.conf").stat().st_mode)[-3:] == "600"
    assert not listens(ADDRESS, server.port)


def test_redis_stands_still_and_goes_on(redis_folder: Path) -> None:
    with redis_server.redis_server(redis_folder) as server:
        with redis.Redis.from_url(server.url, retry=None, socket_timeout=0.3) as client:
            assert client.ping()
            server.freeze()
            with pytest.raises(redis.TimeoutError):
                client.ping()
            server.thaw()
            assert client.ping()
        server.freeze()  # the end finds it so
    assert not listens("127.0.0.1", server.port)


def test_redis_that_does_not_start_says_why(redis_folder: Path, tmp_path: Path) -> None:
    with (
        redis_server.redis_server(redis_folder) as server,
        pytest.raises(Unavailable, match=r"(?s)Redis did not start: .*already in use"),
        redis_server.redis_server(tmp_path, port=server.port),
    ):
        pass


@pytest.fixture(scope="module")
def postgres() -> PostgresServer:
    if reason := postgres_server.why_not():
        pytest.skip(reason)
    with postgres_server.postgres_server(address=ADDRESS) as server:
        yield server  # type: ignore[misc]
    assert not listens(ADDRESS, server.port)


def test_postgres_keeps_what_it_was_told(postgres: PostgresServer) -> None:
    assert listens(ADDRESS, postgres.port) and not listens("127.0.0.1", postgres.port)
    url = postgres.create_database("it's one")
    with psycopg.connect(url) as connection:
        assert connection.execute("SHOW fsync").fetchone() == ("on",)
        connection.execute("CREATE TABLE kept (x INTEGER); INSERT INTO kept VALUES (1)")
    postgres.stop(crash=True)
    assert not listens(ADDRESS, postgres.port)
    postgres.start()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT x FROM kept").fetchall() == [(1,)]


@pytest.mark.parametrize("password", ["", "wrong"])
def test_postgres_lets_nobody_in_without_the_password(postgres: PostgresServer, password: str) -> None:
    url = postgres.url.replace(postgres.password, password)
    with pytest.raises(psycopg.OperationalError, match=r"no password supplied|password authentication failed"):
        psycopg.connect(url)


def test_postgres_stands_still_and_goes_on(postgres: PostgresServer) -> None:
    answered = threading.Event()

    def ask() -> None:
        with psycopg.connect(postgres.url) as connection:
            connection.execute("SELECT 1")
        answered.set()

    postgres.freeze()
    asking = threading.Thread(target=ask)
    asking.start()
    assert not answered.wait(0.3)
    postgres.thaw()
    assert answered.wait(30)
    asking.join()


def test_postgres_in_a_folder_of_ones_own(tmp_path: Path) -> None:
    if reason := postgres_server.why_not():
        pytest.skip(reason)
    if os.geteuid() == 0:  # its account cannot reach folders of root's
        folder = Path("/tmp") / f"noodle-postgres-{os.getpid()}-{time.monotonic_ns()}"
        folder.mkdir()
    else:
        folder = tmp_path
    try:
        with postgres_server.postgres_server(folder) as server, psycopg.connect(server.url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert (folder / "data" / "PG_VERSION").exists() and not (folder / "password").exists()
    finally:
        if folder != tmp_path:
            shutil.rmtree(folder)
