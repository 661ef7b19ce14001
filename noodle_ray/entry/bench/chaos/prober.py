"""The prober: asks a cluster over its gateways in an open loop, and notes what became of each request.

As a program it reads what is to be asked, a line of JSON, from standard input, and writes what came of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from noodle_ray.base_model import Model
from noodle_ray.entry.bench.chaos.deck import Deck
from noodle_ray.entry.bench.chaos.probes import PROBES, Call, Route
from noodle_ray.entry.bench.chaos.records import Probe
from noodle_ray.entry.bench.open_loop import arrivals, open_loop
from noodle_ray.entry.http_client import GatewayClient
from noodle_ray.errors import NoodleError

NICENESS = -15
AUTOGROUP = Path("/proc/self/autogroup")
ANSWER_S = 2.0
"""How long before a request's deadline an allocation is waited for at most."""


class Probing(Model):
    """What is asked, and of whom.

    rate: arrivals a second, of all routes together. deadline_s: without an answer by then a request is lost; after
    first_s it is asked for at another address. retries: how often the client asks again where it fails. most: requests
    that may be under way; what is due then is lost unsent. start: when it begins, on the machine's monotonic clock;
    None: now.
    """

    addresses: Annotated[tuple[str, ...], Field(min_length=1)]
    token: Annotated[str, Field(repr=False)]
    seconds: Annotated[float, Field(gt=0)]
    rate: Annotated[float, Field(gt=0)] = 24.0
    seed: int = 1
    routes: Annotated[tuple[Route, ...], Field(min_length=1)] = ("nodes", "allocate", "module", "fusion")
    module: str = "bench-echo"
    function: str = "echo"
    deadline_s: Annotated[float, Field(gt=0)] = 10.0
    first_s: Annotated[float, Field(gt=0)] = 3.0
    retries: Annotated[int, Field(ge=1)] = 1
    most: Annotated[int, Field(ge=1)] = 500
    start: float | None = None


def due(probing: Probing) -> tuple[list[Route], list[float]]:
    """Which route is asked, and when: the same for a seed. Each route has its turn before one comes again."""
    times = arrivals(probing.rate, probing.seconds, probing.seed)
    deck = Deck(probing.routes, np.random.default_rng(probing.seed))
    return [deck.draw() for _ in times], times


async def probe(probing: Probing) -> list[Probe]:
    """Asks as long as it is told to, and returns when the last is answered or given up."""
    routes, times = due(probing)
    start = time.monotonic() if probing.start is None else probing.start
    client = GatewayClient(
        probing.addresses, probing.token, probing.deadline_s, probing.first_s, retries=probing.retries
    )
    async with client:
        prober = _Prober(client, probing, start)
        return await open_loop(prober.send, list(enumerate(routes)), times, start)


class _Prober:
    """Sends one request after another, however many are under way up to a bound."""

    def __init__(self, client: GatewayClient, probing: Probing, start: float) -> None:
        self._client = client
        wait_s = max(0.0, probing.deadline_s - ANSWER_S)
        self._call = Call(probing.module, probing.function, wait_s)
        self._most = probing.most
        self._start = start
        self._under_way = 0

    async def send(self, numbered: tuple[int, Route], due_at: float) -> Probe:
        number, route = numbered
        due_s, sent_s = due_at - self._start, self._now()
        if self._under_way >= self._most:
            return Probe(route, due_s, sent_s, sent_s, False, problem=f"not sent: {self._most} are under way")
        self._under_way += 1
        try:
            told = await PROBES[route](self._client, self._call, number)
        except NoodleError as error:
            return Probe(route, due_s, sent_s, self._now(), False, retried=True, problem=error.message)
        finally:
            self._under_way -= 1
        answer, ok = told.answer, not told.problem
        ended_s = self._now()
        return Probe(route, due_s, sent_s, ended_s, ok, answer.status, answer.address, told.retried, told.problem)

    def _now(self) -> float:
        return time.monotonic() - self._start


def to_lines(probes: Iterable[Probe]) -> Iterable[str]:
    return (json.dumps(asdict(one)) for one in probes)


def from_lines(lines: Iterable[str]) -> list[Probe]:
    return [Probe(**json.loads(line)) for line in lines]


@contextmanager
def probing(asked: Probing) -> Iterator[subprocess.Popen[str]]:
    """Asks in a process of its own, so that nothing else holds it up; it ends with the block."""
    command = [sys.executable, "-m", "noodle_ray.entry.bench.chaos.prober"]
    prober = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert prober.stdin is not None
        prober.stdin.write(asked.model_dump_json() + "\n")
        prober.stdin.flush()
        yield prober
    finally:
        prober.kill()
        prober.communicate()


def probes_of(prober: subprocess.Popen[str]) -> list[Probe]:
    """What it found, when it has ended."""
    assert prober.stdout is not None
    return from_lines(prober.stdout)


def go_ahead() -> None:
    """Whoever asks has a machine of his own, elsewhere: here he goes ahead of all that he asks, as far as root may say.

    Linux may weigh sessions first, and niceness within each only (autogroup, see sched(7)); this one has its own.
    """
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    with suppress(OSError):
        AUTOGROUP.write_text(str(NICENESS))


def main() -> None:
    """Writes a line of JSON for each request, when all have ended."""
    go_ahead()
    probing = Probing.model_validate_json(sys.stdin.readline())
    sys.stdout.writelines(f"{line}\n" for line in to_lines(asyncio.run(probe(probing))))


if __name__ == "__main__":
    main()
