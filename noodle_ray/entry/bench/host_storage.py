"""Where a cluster over hosts keeps its tables: on the head's disk, or in Redis and PostgreSQL beside it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from noodle_ray.entry.bench import postgres_server, redis_server
from noodle_ray.entry.cluster import ray_tables

Storage = Callable[[str], AbstractContextManager[Mapping[str, str]]]
"""Given this machine's address on the hosts' network: the variables for all hosts, good as long as the block lasts."""


@contextmanager
def embedded(address: str) -> Iterator[Mapping[str, str]]:
    """RocksDB and SQLite on the head."""
    yield {}


@contextmanager
def served(address: str) -> Iterator[Mapping[str, str]]:
    """Servers of one's own, which end with the block. Raises Unavailable where there can be none."""
    with (
        tempfile.TemporaryDirectory(prefix="noodle-redis-") as folder,
        redis_server.redis_server(Path(folder), address) as redis,
        postgres_server.postgres_server(address=address) as postgres,
    ):
        yield {
            ray_tables.ADDRESS: redis.address,
            ray_tables.PASSWORD: redis.password,
            "NOODLE_DATABASE_URL": postgres.url,
        }


STORAGES: Mapping[str, Storage] = {"embedded": embedded, "served": served}


def why_not(storage: str) -> str:
    """Why there can be no such storage here; "" where there can."""
    return (redis_server.why_not() or postgres_server.why_not()) if storage == "served" else ""
