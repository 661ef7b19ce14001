"""noodle doctor's checks of the stores: real SQLite files, a real Redis and a real PostgreSQL where installed."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis

from noodle_ray.entry.bench import postgres_server as postgres_servers
from noodle_ray.entry.bench import redis_server as redis_servers
from noodle_ray.entry.bench.postgres_server import PostgresServer
from noodle_ray.entry.bench.redis_server import RedisServer
from noodle_ray.entry.cluster.ray_process import quiet_port
from noodle_ray.entry.doctor.database import check_database
from noodle_ray.entry.doctor.finding import Finding
from noodle_ray.entry.doctor.redis_server import Place, check_redis, judge_redis
from noodle_ray.store.changes import Put
from noodle_ray.store.database import Database
from noodle_ray.store.schema import VERSION

PASSWORD = "secret-of-the-tests"


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
        found = check_database(f"postgresql://me:{PASSWORD}@127.0.0.1:{quiet_port()}/noodle")
        assert found.state == "fail" and "does not answer" in found.found
        assert PASSWORD not in found.model_dump_json()


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    if reason := postgres_servers.why_not():
        pytest.skip(reason)
    with postgres_servers.postgres_server() as server:
        yield server


class TestPostgres:
    def test_answers(self, postgres: PostgresServer) -> None:
        found = check_database(postgres.url)
        assert found.state == "ok" and "PostgreSQL" in found.found
        assert postgres.password not in found.model_dump_json() and "***" in found.found

    def test_has_the_layout_that_is_known_here(self, postgres: PostgresServer) -> None:
        url = postgres.create_database("laid_out")
        assert f"from before versions to {VERSION}" in check_database(url, VERSION).found
        Database.open(url).close()
        assert check_database(url, VERSION).found.endswith(f", layout {VERSION}")
        assert check_database(url, "0001").state == "fail"

    def test_refuses_a_wrong_password(self, postgres: PostgresServer) -> None:
        found = check_database(postgres.url.replace(postgres.password, "wrong-" + PASSWORD))
        assert found.state == "fail" and "password authentication failed" in found.found
        assert PASSWORD not in found.model_dump_json()

    def test_a_database_that_is_not_there(self, postgres: PostgresServer) -> None:
        assert 'database "nobody" does not exist' in check_database(postgres.url_of("nobody")).found


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    if reason := redis_servers.why_not():
        pytest.skip(reason)
    with redis_servers.redis_server(tmp_path) as server:
        yield server


class TestRedis:
    def environment(self, server: RedisServer, password: str = "") -> dict[str, str]:
        return {"RAY_REDIS_ADDRESS": server.address, "RAY_REDIS_PASSWORD": password or server.password}

    def test_is_not_asked_for_where_it_is_not_used(self) -> None:
        assert check_redis({}).state == "skipped"

    def test_answers_and_keeps(self, redis_server: RedisServer) -> None:
        found = check_redis(self.environment(redis_server))
        assert found.state == "ok" and "appendonly is on" in found.found

    def test_refuses_a_wrong_password(self, redis_server: RedisServer) -> None:
        found = check_redis(self.environment(redis_server, "wrong-" + PASSWORD))
        assert found.state == "fail" and PASSWORD not in found.model_dump_json()

    @pytest.mark.parametrize(
        ("name", "value", "back", "state"),
        [("appendonly", "no", "yes", "warn"), ("maxmemory-policy", "allkeys-lru", "noeviction", "warn")],
    )
    def test_says_how_it_is_set(self, redis_server: RedisServer, name: str, value: str, back: str, state: str) -> None:
        with closing(redis.Redis(port=redis_server.port, password=redis_server.password)) as client:
            client.config_set(name, value)
            found = check_redis(self.environment(redis_server))
        assert found.state == state and f"redis-cli config set {name} {back}" in found.advice

    def test_is_away(self) -> None:
        assert check_redis({"RAY_REDIS_ADDRESS": f"127.0.0.1:{quiet_port()}"}).state == "fail"

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
