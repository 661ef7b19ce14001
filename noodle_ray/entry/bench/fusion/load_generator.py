"""Asks over HTTP, open or closed loop, in a process of its own, and notes what became of each request."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Annotated

import aiohttp
from pydantic import Field

from noodle_ray.base_model import Model
from noodle_ray.entry.bench.fusion.mix import Mix, load_mix
from noodle_ray.entry.bench.open_loop import arrivals, open_loop

ANSWER_S = 10.0
"""A request without an answer after this long is given up."""

MEDIA, PREPARED_A_SECOND, PREPARED_TEXTS_A_SECOND = {"audio", "vision"}, 40, 300
"""How many requests of a closed loop are made before it starts; further ones are made when they are needed."""

STARTED = "started"


class Target(Model):
    """Who is asked, and where the data lies that requests are made of."""

    url: str
    headers: dict[str, str]
    cache_dir: Path


class Load(Model):
    """One run. `rate`: arrivals a second of an open loop; without it, `workers` ask one after the other.

    first: the first request's number. different: after so many the same requests come again; 0: never.
    """

    modalities: tuple[str, ...]
    seconds: Annotated[float, Field(gt=0)]
    rate: float | None = None
    workers: Annotated[int, Field(ge=1)] = 1
    first: int = 0
    different: Annotated[int, Field(ge=0)] = 0
    seed: int = 1

    def number(self, index: int) -> int:
        return self.first + (index % self.different if self.different else index)


class Asked(Model):
    """One request. at_s: when it was due, on the machine's monotonic clock; late_ms: how much later it was sent.

    ms: from when it was due to its answer. status: HTTP's, 0 where none came. used: the modalities in the answer.
    shed: refused early, with the time after which to try again.
    """

    at_s: float
    late_ms: float
    ms: float
    status: int
    used: tuple[str, ...] = ()
    stage_ms: dict[str, float] = Field(default_factory=dict)
    shed: bool = False
    problem: str = ""


Send = Callable[[bytes, float], Awaitable[Asked]]
"""Sends a body that was due at that time."""


async def closed_loop(send: Send, bodies: Iterator[bytes], workers: int, seconds: float) -> list[Asked]:
    """So many workers, each asking again when it is answered, until the time is over."""
    asked: list[Asked] = []
    end = time.monotonic() + seconds

    async def work() -> None:
        while time.monotonic() < end:
            asked.append(await send(next(bodies), time.monotonic()))

    await asyncio.gather(*(work() for _ in range(workers)))
    return asked


async def ask(session: aiohttp.ClientSession, url: str, body: bytes, due: float) -> Asked:
    """One request; whatever goes wrong is noted, for that is what it came to."""
    late_ms = (time.monotonic() - due) * 1000
    try:
        async with session.post(url, data=body) as response:
            content = await response.read()
            status, shed = response.status, response.status == 429 and "Retry-After" in response.headers
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        ms = (time.monotonic() - due) * 1000
        return Asked(at_s=due, late_ms=late_ms, ms=ms, status=0, problem=f"{type(error).__name__}: {error}")
    ms = (time.monotonic() - due) * 1000
    asked = Asked(at_s=due, late_ms=late_ms, ms=ms, status=status, shed=shed)
    if status != 200:
        return asked.model_copy(update={"problem": content[:300].decode(errors="replace")})
    # Read at the end of the run, so that reading does not take time from what is measured meanwhile.
    return asked.model_copy(update={"problem": content.decode()})


def understood(asked: Asked) -> Asked:
    """With what its answer says of itself."""
    if asked.status != 200:
        return asked
    answer = json.loads(asked.problem)
    used, stage_ms = tuple(answer["modalities_used"]), answer.get("stage_ms", {})
    return asked.model_copy(update={"problem": "", "used": used, "stage_ms": stage_ms})


async def play(target: Target, load: Load, mix: Mix, started: Callable[[], None]) -> list[Asked]:
    """Makes the requests, says that it starts, and asks."""
    timeout = aiohttp.ClientTimeout(total=ANSWER_S)
    headers = {"Content-Type": "application/json", **target.headers}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, headers=headers, connector=connector) as session:

        async def send(body: bytes, due: float) -> Asked:
            return await ask(session, target.url, body, due)

        if load.rate is not None:
            times = arrivals(load.rate, load.seconds, load.seed)
            bodies = [mix.body(load.number(index), load.modalities) for index in range(len(times))]
            started()
            asked = await open_loop(send, bodies, times)
        else:
            stream = _stream(mix, load)
            started()
            asked = await closed_loop(send, stream, load.workers, load.seconds)
    return [understood(one) for one in asked]


def _stream(mix: Mix, load: Load) -> Iterator[bytes]:
    """Requests without end, the first ones ready made."""
    a_second = PREPARED_A_SECOND if MEDIA & set(load.modalities) else PREPARED_TEXTS_A_SECOND
    prepared = load.different or int(a_second * load.seconds)
    ready = [mix.body(load.number(index), load.modalities) for index in range(prepared)]

    def bodies() -> Iterator[bytes]:
        for index in count():
            if load.different or index < prepared:
                yield ready[index % prepared]
            else:
                yield mix.body(load.number(index), load.modalities)

    return bodies()


def main() -> None:
    """Reads a target, then loads, a line of JSON each; writes a line when one starts, and one with what came of it."""
    target = Target.model_validate_json(sys.stdin.readline())
    mix = load_mix(target.cache_dir)
    for line in sys.stdin:
        load = Load.model_validate_json(line)
        gc.collect()
        gc.disable()  # a collection in the middle would be taken for a slow answer
        asked = asyncio.run(play(target, load, mix, lambda: print(STARTED, flush=True)))
        gc.enable()
        print(json.dumps([one.to_json() for one in asked]), flush=True)


if __name__ == "__main__":
    main()
