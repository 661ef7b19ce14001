"""A run of `noodle bench chaos`: a cluster over hosts is asked and broken for minutes, and then its books are read."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from noodle_ray.entry.bench.chaos.afflicting import Afflicting
from noodle_ray.entry.bench.chaos.growth import Sample, sample
from noodle_ray.entry.bench.chaos.http_wholeness import gateway_wholeness
from noodle_ray.entry.bench.chaos.outcome import Outcome
from noodle_ray.entry.bench.chaos.prober import Probing, probes_of, probing
from noodle_ray.entry.bench.chaos.probes import free_leftovers
from noodle_ray.entry.bench.chaos.records import Inflicted, Seen
from noodle_ray.entry.bench.chaos.schedule import Layout, schedule
from noodle_ray.entry.bench.chaos.watcher import Watcher
from noodle_ray.entry.bench.chaos.wholeness import ENCODERS, until_apart, until_whole
from noodle_ray.entry.bench.host_cluster import BIN, TITLES, HostCluster, Plan
from noodle_ray.entry.bench.module_versions import ECHO, echo_module
from noodle_ray.entry.bench.report import Row
from noodle_ray.entry.http_client import GatewayClient
from noodle_ray.errors import NoodleError

PLAN = Plan(
    hosts=3,
    fusion=True,
    gateways=2,
    # Whether an answer comes is asked here, not whether within 200 ms while processes start all over the machine; and
    # whether anything grows without an end, not how a cache fills up to its limit.
    variables={
        "NOODLE_FUSION_MIN_REPLICAS": "2",
        "NOODLE_FUSION_ENGINES": "2",
        "NOODLE_FUSION_MAX_PROCESSING_TIME": "2000",
        "NOODLE_FUSION_CACHE_BYTES": "0",
    },
)
READY_S, HEAL_S, QUIET_S = 180.0, 120.0, 10.0
LEAD_S = 3.0
"""From when the prober is started until the run begins."""

SAMPLE_S = 10.0
AT_ONCE = 8
"""Faults that may last at the same time; the schedule has two or three."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Run:
    """What is to be done."""

    minutes: float = 10.0
    rate: float = 24.0
    seed: int = 1
    faults: bool = True


@dataclass(slots=True)
class Found:
    """What came of it. books: as `books` compares them, if it can; freed: allocations that lost answers had left."""

    outcome: Outcome
    samples: list[Sample]
    books: dict[str, Any] | None
    freed: int

    def rows(self) -> list[Row]:
        """What the books say at the end; nothing where the cluster was not whole again, so that they could be read."""
        if self.books is None:
            return [Row(metric=name, value=None, unit="", goal=0) for name in ("leaked_units", "books_differ")]
        leaked, differing = self.books["leaked_units"], len(self.books["differences"])
        return [
            Row(metric="leaked_units", value=leaked, unit="", goal=0),
            Row(metric="books_differ", value=differing, unit="", goal=0, context={"freed_before": self.freed}),
        ]


@dataclass(slots=True)
class _Notes:
    inflicted: list[Future[Inflicted]] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)


def measure(cluster: HostCluster, run: Run, say: Say) -> Found:
    """Runs it on a cluster with gateways on its first hosts. Raises NoodleError where it is not whole to begin with."""
    addresses = [cluster.url(host) for host in cluster.gateway_hosts]
    cluster.post_bytes("/api/modules", echo_module(ECHO, idempotent=True))
    cluster.post(f"/api/modules/{ECHO}/load", {})
    say("waiting for all of it to be there")
    asyncio.run(until_whole(cluster, READY_S))
    until_apart(cluster, READY_S)
    time.sleep(QUIET_S)
    others = _books(cluster, "others")
    start = time.monotonic() + LEAD_S
    asked = Probing(
        addresses=tuple(addresses),
        token=cluster.token,
        seconds=run.minutes * 60,
        rate=run.rate,
        seed=run.seed,
        module=ECHO,
        start=start,
    )
    with probing(asked) as prober:
        notes, seen = asyncio.run(_break(cluster, addresses, run, start, say))
        probes = probes_of(prober)
    outcome = Outcome(run.minutes * 60, tuple(probes), tuple(one.result() for one in notes.inflicted), seen)
    say("reading the books")
    try:
        freed = asyncio.run(_at_rest(cluster, addresses))
        time.sleep(QUIET_S)
        return Found(outcome, notes.samples, _books(cluster, "compare", json.dumps(others)), freed)
    except NoodleError as error:
        say(f"the books cannot be read: {error}")
        return Found(outcome, notes.samples, None, 0)


async def _at_rest(cluster: HostCluster, addresses: Sequence[str]) -> int:
    await until_whole(cluster, HEAL_S)
    async with GatewayClient(addresses, cluster.token) as client:
        return await free_leftovers(client)


def _books(cluster: HostCluster, *asked: str) -> Any:
    words = (str(BIN / "python"), "-m", "noodle_ray.entry.bench.chaos.books", *asked)
    return json.loads(cluster.run_on(cluster.head, *words).splitlines()[-1])


async def _break(
    cluster: HostCluster, addresses: Sequence[str], run: Run, start: float, say: Say
) -> tuple[_Notes, tuple[Seen, ...]]:
    """Inflicts the faults when they are due, while it is watched whether all is there."""
    layout = Layout(
        cluster.head.name,
        tuple(host.name for host in cluster.hosts[1:]),
        tuple(host.name for host in cluster.gateway_hosts),
    )
    faults = schedule(run.seed, run.minutes, layout) if run.faults else ()
    notes, over = _Notes(), asyncio.Event()
    with ThreadPoolExecutor(AT_ONCE) as threads:
        afflicting = Afflicting(cluster, start, run.seed)
        async with gateway_wholeness(addresses, cluster.token, ENCODERS) as system:
            watcher = Watcher(system, len(cluster.hosts), addresses, start)
            async with asyncio.TaskGroup() as work:
                work.create_task(watcher.watch(over))
                work.create_task(_sample(cluster, start, notes, over))
                for fault in faults:
                    await _until(start + fault.at_s)
                    say(f"{fault.at_s:6.1f} s  {fault}")
                    notes.inflicted.append(threads.submit(afflicting.inflict, fault))
                await _until(start + run.minutes * 60)
                over.set()
    return notes, watcher.seen


async def _until(at: float) -> None:
    await asyncio.sleep(max(at - time.monotonic(), 0.0))


async def _sample(cluster: HostCluster, start: float, notes: _Notes, over: asyncio.Event) -> None:
    """Looks at memory and descriptors of our processes and Ray's, now and then."""
    while not over.is_set():
        processes = await asyncio.to_thread(_named, cluster)
        for name, pids in processes.items():
            for pid in pids:
                notes.samples += await asyncio.to_thread(sample, {name: pid}, time.monotonic() - start)
        await asyncio.sleep(SAMPLE_S)


def _named(cluster: HostCluster) -> dict[str, list[int]]:
    return {
        f"{kind} of {host.name}": pids
        for host in cluster.hosts
        for kind in TITLES
        if (pids := cluster.pids(host, kind))
    }
