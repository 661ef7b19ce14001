"""The stock of warm hosts, as seen from outside: a load is timed when it is full again."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import ray

from noodle_ray.actors.names import HOST_NAMESPACES

REFILL_S = 10.0
"""So long a full stock is waited for; then the load happens all the same, and is found not to be warm."""

POLL_S, SETTLING_S = 0.1, 0.3
"""How often hosts are asked, and how long the last one has to be noticed by who started it."""

FIRST_S = 3.0
ANSWER_S = 2.0


class HostStock:
    """How many empty hosts there are when nobody has taken any."""

    def __init__(self, full: int) -> None:
        self._full = full

    @classmethod
    async def of_now(cls) -> HostStock:
        """The stock as it is after a while in which nothing is loaded."""
        await asyncio.sleep(FIRST_S)
        return cls(await _empty_hosts())

    async def refilled(self) -> None:
        """Waits until there are as many again, but not for ever."""
        end = time.monotonic() + REFILL_S
        while time.monotonic() < end and await _empty_hosts() < self._full:  # noqa: ASYNC110  (only asking tells)
            await asyncio.sleep(POLL_S)
        await asyncio.sleep(SETTLING_S)


async def _empty_hosts() -> int:
    actors = await asyncio.to_thread(ray.util.list_named_actors, all_namespaces=True)
    hosts = [entry for entry in actors if entry["namespace"].startswith(HOST_NAMESPACES)]
    answers = await asyncio.gather(*(_ping(entry["name"], entry["namespace"]) for entry in hosts))
    return sum(answer is not None and not answer["module"] for answer in answers)


async def _ping(name: str, namespace: str) -> dict[str, Any] | None:
    """What a host says of itself; None where it does not answer, for it ends or is only starting."""
    try:
        async with asyncio.timeout(ANSWER_S):
            answer: dict[str, Any] = await ray.get_actor(name, namespace).ping.remote()
    except (ValueError, TimeoutError, ray.exceptions.RayError):
        return None
    return answer
