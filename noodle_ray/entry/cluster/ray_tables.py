"""Where the head keeps Ray's tables, so that they survive it: on its disk, or in Redis."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import redis

from noodle_ray.errors import Fault, InvalidSettings, Unavailable
from noodle_ray.settings import Settings

ADDRESS, USER, PASSWORD = "RAY_REDIS_ADDRESS", "RAY_REDIS_USERNAME", "RAY_REDIS_PASSWORD"
"""Ray reads the first by itself; the supervisor hands it the others, where who may list processes sees them."""

REDIS_TIMEOUT_S = 5.0


def environment(settings: Settings, token_file: Path) -> dict[str, str]:
    """The variables that a head is started with."""
    if os.environ.get(ADDRESS):
        return {"RAY_external_storage_namespace": namespace_of(token_file)}
    return {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(_folder(settings))}


def where(settings: Settings) -> str:
    """Where the tables are, without a password: for the cluster file."""
    return os.environ.get(ADDRESS, "").rpartition("@")[2] or str(_folder(settings))


def namespace_of(token_file: Path) -> str:
    """What the tables are called in Redis: for one cluster always the same, for two never, as each has its token."""
    return f"noodle-{hashlib.sha256(b'redis' + token_file.read_bytes().strip()).hexdigest()[:16]}"


def remove(settings: Settings, token_file: Path) -> None:
    """Forgets the tables, for a cluster that was ended for good. Raises InvalidSettings, Unavailable (Redis is)."""
    if os.environ.get(ADDRESS):
        _remove_from_redis(namespace_of(token_file))
    if _folder(settings).exists():
        shutil.rmtree(_folder(settings))


def redis_client(variables: Mapping[str, str] = os.environ) -> redis.Redis:
    """A client of the Redis that Ray is told of. Raises InvalidSettings where the address is none."""
    given = variables[ADDRESS].split(",")[0]
    address = given if "://" in given else f"redis://{given}"
    try:
        return redis.Redis.from_url(
            address,
            username=variables.get(USER) or None,
            password=variables.get(PASSWORD) or None,
            socket_timeout=REDIS_TIMEOUT_S,
            socket_connect_timeout=REDIS_TIMEOUT_S,
        )
    except ValueError as error:
        raise InvalidSettings([Fault(ADDRESS, f"must be HOST:PORT, redis://… or rediss://…: {error}")]) from None


def _remove_from_redis(namespace: str) -> None:
    try:
        with redis_client() as client:
            for key in client.scan_iter(f"RAY{namespace}@*"):
                client.unlink(key)
    except redis.RedisError as error:
        raise Unavailable(f"Redis does not answer: {error}") from None


def _folder(settings: Settings) -> Path:
    return settings.state_dir / "gcs"
