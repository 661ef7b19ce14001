"""Whether the Redis that keeps the head's tables answers, keeps what it is told, and throws nothing away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from noodle_ray.entry.doctor.finding import Finding, fail, ok, skipped, warn
from noodle_ray.errors import shorten

NAME = "redis"
TIMEOUT_S = 3.0
SWITCH_ON = "redis-cli config set appendonly yes, and the same in redis.conf: else a restart forgets what was written"
EVICTION = "redis-cli config set maxmemory-policy noeviction, and the same in redis.conf: else it drops Ray's tables"


@dataclass(frozen=True, slots=True)
class Place:
    """Where Redis is, as Ray's variables say: RAY_REDIS_ADDRESS, RAY_REDIS_USERNAME and RAY_REDIS_PASSWORD."""

    host: str
    port: int
    username: str | None = None
    password: str | None = None
    encrypted: bool = False

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Place | None:
        """None where the variable is not set. Raises ValueError where it holds no address."""
        address = environment.get("RAY_REDIS_ADDRESS", "")
        if not address:
            return None
        first = address.split(",")[0]
        parts = urlsplit(first if "://" in first else f"redis://{first}")
        if not parts.hostname or parts.port is None:
            raise ValueError("must be HOST:PORT")
        user, password = environment.get("RAY_REDIS_USERNAME"), environment.get("RAY_REDIS_PASSWORD")
        return cls(parts.hostname, parts.port, user or None, password or None, parts.scheme == "rediss")

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def check_redis(environment: Mapping[str, str]) -> Finding:
    """Asks PING and INFO; changes nothing."""
    try:
        place = Place.of(environment)
    except ValueError as error:
        return fail(NAME, f"RAY_REDIS_ADDRESS {error}", "such as 10.0.0.5:6379")
    if place is None:
        return skipped(NAME, "RAY_REDIS_ADDRESS is not set: the head keeps its tables on its own disk")
    try:
        return judge_redis(place, _ask(place))
    except (redis.RedisError, OSError) as error:
        advice = "start it, or mend RAY_REDIS_ADDRESS and RAY_REDIS_PASSWORD"
        return fail(NAME, f"{place} does not answer: {_said(error, place)}", advice)


def _ask(place: Place) -> dict[str, Any]:
    client = redis.Redis(
        host=place.host,
        port=place.port,
        username=place.username,
        password=place.password,
        ssl=place.encrypted,
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        client.ping()
        return dict(client.info())
    finally:
        client.close()


def judge_redis(place: Place, info: Mapping[str, Any]) -> Finding:
    """`info`: what Redis says of itself."""
    found = f"{place}, version {info.get('redis_version', '?')}"
    policy = info.get("maxmemory_policy", "unknown")
    if policy != "noeviction" and info.get("maxmemory"):
        return fail(NAME, f"{found}, maxmemory-policy is {policy}", EVICTION)
    if not info.get("aof_enabled"):
        return warn(NAME, f"{found}, appendonly is off", SWITCH_ON)
    if policy != "noeviction":
        return warn(NAME, f"{found}, maxmemory-policy is {policy} (without a maxmemory so far)", EVICTION)
    if place.password is None:
        advice = "set requirepass and RAY_REDIS_PASSWORD: whoever reaches it rules the cluster"
        return warn(NAME, f"{found}, asks nobody for a password", advice)
    return ok(NAME, f"{found}, appendonly is on, nothing is evicted")


def _said(error: Exception, place: Place) -> str:
    said = str(error)
    return shorten(said.replace(place.password, "***") if place.password else said, 200)
