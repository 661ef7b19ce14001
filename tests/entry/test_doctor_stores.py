"""noodle doctor's checks of the stores: real SQLite files, a real Redis and a real PostgreSQL where installed."""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from noodle_ray.entry.doctor.database import check_database
from noodle_ray.entry.doctor.finding import Finding
from noodle_ray.entry.doctor.redis_server import Place, check_redis, judge_redis
from noodle_ray.store.changes import Put
from noodle_ray.store.database import Database

PASSWORD = "secret-of-the-tests"
POSTGRES = next((str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), "")
WAIT_S = 60.0


def a_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class TestSqlite:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / "noodle.sqlite"
        database = Database.open(f"sqlite:///{path}")
        database.apply([Put("modules", f"m{number}", {"text": "x" * 500}) for number in range(200)])
        database.close()
        return path

    def check(self, path: Path, known: str = "") -> Finding:
        return check_database(f"sqlite:///{path}", known)

    def test_one_that_is_not_there_is_not_made(self, tmp_path: Path) -> None:
        assert self.check(tmp_path / "no.sqlite").state == "ok"
        assert list(tmp_path.iterdir()) == []

    def test_a_whole_one_stays_as_it_is(self, path: Path) -> None:
        before = path.read_bytes()
        found = self.check(path)
        assert found.state == "ok" and "is whole" in found.found
        assert path.read_bytes() == before

    def test_one_that_is_written_to_meanwhile(self, path: Path) -> None:
        database = Database.open(f"sqlite:///{path}")
        database.apply([Put("nodes", "a", {})])
        assert self.check(path).state == "ok"
        database.close()

    def test_a_damaged_one(self, path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(20_000)
            file.write(b"\xff" * 20_000)
        found = self.check(path)
        assert found.state == "fail" and "noodle state import" in found.advice

    def test_what_is_no_database(self, path: Path) -> None:
        path.write_bytes(b"hello" * 1000)
        assert "file is not a database" in self.check(path).found

    def test_missing_tables_are_told(self, tmp_path: Path) -> None:
        path = tmp_path / "empty.sqlite"
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE nodes (key)")
            connection.commit()
        assert "tables that the next start makes: allocations, modules" in self.check(path).found

    @pytest.mark.parametrize(
        ("known", "state", "words"),
        [
            ("0002", "ok", "layout 0002"),
            ("0003", "ok", "from 0002 to 0003"),
            ("0001", "fail", "has the layout 0002, known here is 0001"),
        ],
    )
    def test_layouts(self, tmp_path: Path, known: str, state: str, words: str) -> None:
        path = tmp_path / "laid-out.sqlite"
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE alembic_version (version_num)")
            connection.execute("INSERT INTO alembic_version VALUES ('0002')")
            connection.commit()
        found = self.check(path, known)
        assert found.state == state and words in found.found


class TestOtherDatabases:
    @pytest.mark.parametrize("url", ["nonsense", "", "wurst://a/b"])
    def test_no_url_of_any(self, url: str) -> None:
        assert check_database(url).state == "fail"

    def test_one_that_is_away_and_its_password(self) -> None:
        found = check_database(f"postgresql://me:{PASSWORD}@127.0.0.1:{a_free_port()}/noodle")
        assert found.state == "fail" and "does not answer" in found.found
        assert PASSWORD not in found.model_dump_json()


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """A server of its own, by URL. It runs as another user where this is root, which PostgreSQL does not run as."""
    if not POSTGRES:
        pytest.skip("PostgreSQL is not installed")
    user = "postgres" if os.geteuid() == 0 else None
    port = a_free_port()
    with tempfile.TemporaryDirectory(prefix="noodle-postgres-") as folder:  # the user may not look into pytest's own
        if user is not None:
            shutil.chown(folder, user)
        words = Path(folder) / "password"
        words.write_text(PASSWORD)
        words.chmod(0o644)
        make = [f"{POSTGRES}/initdb", "-D", f"{folder}/data", "-U", "noodle", "-A", "scram-sha-256"]
        make += [f"--pwfile={words}", "--no-sync"]
        subprocess.run(make, check=True, capture_output=True, cwd=folder, user=user)
        run = [f"{POSTGRES}/postgres", "-D", f"{folder}/data", "-p", str(port), "-k", folder, "-h", "127.0.0.1"]
        with running(run, signal.SIGINT, user=user, cwd=folder):
            _until_postgres_answers(port)
            yield f"postgresql://noodle:{PASSWORD}@127.0.0.1:{port}/postgres"


@contextmanager
def running(command: list[str], ended_by: signal.Signals, **options: Any) -> Iterator[None]:
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    try:
        yield
    finally:
        server.send_signal(ended_by)
        try:
            server.wait(timeout=WAIT_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _until_postgres_answers(port: int) -> None:
    end = time.monotonic() + WAIT_S
    while True:
        try:
            psycopg.connect(f"host=127.0.0.1 port={port} user=noodle password={PASSWORD} dbname=postgres").close()
            return
        except psycopg.OperationalError:
            assert time.monotonic() < end
            time.sleep(0.1)


class TestPostgres:
    def test_answers(self, postgres: str) -> None:
        found = check_database(postgres)
        assert found.state == "ok" and "PostgreSQL" in found.found
        assert PASSWORD not in found.model_dump_json() and "***" in found.found

    def test_refuses_a_wrong_password(self, postgres: str) -> None:
        found = check_database(postgres.replace(PASSWORD, "wrong-" + PASSWORD))
        assert found.state == "fail" and "password authentication failed" in found.found
        assert PASSWORD not in found.model_dump_json()

    def test_a_database_that_is_not_there(self, postgres: str) -> None:
        assert 'database "nobody" does not exist' in check_database(postgres.replace("/postgres", "/nobody")).found


@pytest.fixture(scope="module")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    if shutil.which("redis-server") is None:
        pytest.skip("Redis is not installed")
    folder, port = tmp_path_factory.mktemp("redis"), a_free_port()
    options = {"port": port, "bind": "127.0.0.1", "dir": folder, "requirepass": PASSWORD, "appendonly": "yes"}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    # It refuses to end while it writes its first append-only file, and has nothing that anybody will miss.
    with running(["redis-server", *words, "--save", ""], signal.SIGKILL):
        _until_redis_answers(port)
        yield port


def _until_redis_answers(port: int) -> None:
    end = time.monotonic() + WAIT_S
    while True:
        try:
            with closing(redis.Redis(port=port, password=PASSWORD)) as client:
                client.ping()
                return
        except redis.ConnectionError:
            assert time.monotonic() < end
            time.sleep(0.05)


class TestRedis:
    def environment(self, port: int, password: str = PASSWORD) -> dict[str, str]:
        return {"RAY_REDIS_ADDRESS": f"127.0.0.1:{port}", "RAY_REDIS_PASSWORD": password}

    def test_is_not_asked_for_where_it_is_not_used(self) -> None:
        assert check_redis({}).state == "skipped"

    def test_answers_and_keeps(self, redis_port: int) -> None:
        found = check_redis(self.environment(redis_port))
        assert found.state == "ok" and "appendonly is on" in found.found

    def test_refuses_a_wrong_password(self, redis_port: int) -> None:
        found = check_redis(self.environment(redis_port, "wrong-" + PASSWORD))
        assert found.state == "fail" and PASSWORD not in found.model_dump_json()

    @pytest.mark.parametrize(
        ("name", "value", "back", "state"),
        [("appendonly", "no", "yes", "warn"), ("maxmemory-policy", "allkeys-lru", "noeviction", "warn")],
    )
    def test_says_how_it_is_set(self, redis_port: int, name: str, value: str, back: str, state: str) -> None:
        with closing(redis.Redis(port=redis_port, password=PASSWORD)) as client:
            client.config_set(name, value)
            found = check_redis(self.environment(redis_port))
            client.config_set(name, back)
        assert found.state == state and f"redis-cli config set {name} {back}" in found.advice

    def test_is_away(self) -> None:
        assert check_redis(self.environment(a_free_port())).state == "fail"

    @pytest.mark.parametrize("address", ["here", "redis://", "a:b", "host:99999"])
    def test_an_address_that_is_none(self, address: str) -> None:
        found = check_redis({"RAY_REDIS_ADDRESS": address})
        assert (found.state, found.advice) == ("fail", "such as 10.0.0.5:6379")

    @pytest.mark.parametrize(
        ("address", "place"),
        [
            ("10.0.0.5:6380", Place("10.0.0.5", 6380)),
            ("rediss://cache:6379", Place("cache", 6379, encrypted=True)),
            ("a:1,b:2", Place("a", 1)),
        ],
    )
    def test_addresses(self, address: str, place: Place) -> None:
        assert Place.of({"RAY_REDIS_ADDRESS": address}) == place

    @pytest.mark.parametrize(
        ("info", "state"),
        [
            ({"aof_enabled": 1, "maxmemory_policy": "noeviction"}, "ok"),
            ({"aof_enabled": 1, "maxmemory_policy": "allkeys-lru", "maxmemory": 100}, "fail"),
        ],
    )
    def test_judged(self, info: dict[str, object], state: str) -> None:
        assert judge_redis(Place("a", 1, password="x"), info).state == state

    def test_open_to_all(self) -> None:
        info = {"aof_enabled": 1, "maxmemory_policy": "noeviction"}
        assert "requirepass" in judge_redis(Place("a", 1), info).advice
