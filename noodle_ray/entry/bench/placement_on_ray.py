"""Allocations end to end on a cluster started for it, beside plain placement groups of Ray on the same cluster."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from noodle_ray.actors import ray_state
from noodle_ray.actors.groups import GROUP_TIMEOUT_S
from noodle_ray.entry.aio import AsyncCluster
from noodle_ray.entry.bench.report import Row
from noodle_ray.entry.bench.timing import percentile
from noodle_ray.entry.cli.output import say
from noodle_ray.entry.client import Cluster, connect
from noodle_ray.entry.cluster import launch
from noodle_ray.entry.cluster.components import start_actors
from noodle_ray.entry.cluster.local_cluster import bare_ray
from noodle_ray.entry.cluster.ray_connection import connection
from noodle_ray.entry.cluster.ray_process import NodeOptions
from noodle_ray.nodes.instructions import PinnedBundle
from noodle_ray.resources import Demand, NodeResources

ALLOCATIONS, HANDOVERS, WARM_UP = 300, 100, 20
CALLERS = 32
SUSTAINED_S = 10.0
SETTLING_S = 5.0
GPUS = 4

ALLOCATE_GOALS_MS = {50: 6.0, 99: 30.0}
RATE_GOAL = 200.0
HANDOVER_GOAL_MS = 1000.0
"""Ray tries again after a second: no handover may take so long."""

SMALL = Demand(cpus=0.5, memory="64MiB")
ONE_GPU = Demand(gpus=1)


def measure() -> list[Row]:
    """Every row. The cluster's second node is pretended, and has room for many allocations and few GPUs."""
    resources = NodeResources.of(cpus=64, memory="64GiB", gpus=GPUS)
    options = launch.UpOptions(workers=(NodeOptions("127.0.0.3", "pretended", resources, pretended=True),))
    with bare_ray(say, options) as cluster, connection(cluster.file.address):
        start_actors(cluster.settings)
        with connect(cluster.file.address) as client:
            time.sleep(SETTLING_S)  # a cluster that was just started still is busy with itself
            say("timing allocations one by one, then many at once, then handovers, then Ray alone")
            ours = [*_one_by_one(client), *_sustained(client), *_handovers(client)]
            node = next(node.id for node in client.nodes() if node.pretended)
            return [*ours, *_ray_alone(node)]


def _one_by_one(client: Cluster) -> Iterator[Row]:
    """From asking to the placement group being ready; releasing is not timed."""
    taken = [_allocate_ms(client) for _ in range(WARM_UP + ALLOCATIONS)][WARM_UP:]
    for percent, goal in ALLOCATE_GOALS_MS.items():
        value = percentile(taken, percent)
        yield Row(
            metric=f"allocate_ms_p{percent}", value=value, unit="ms", goal=goal, context={"allocations": len(taken)}
        )


def _allocate_ms(client: Cluster) -> float:
    start = time.perf_counter()
    held = client.hold(SMALL, wait_s=0)
    taken = (time.perf_counter() - start) * 1000
    client.release(held.id)
    return taken


def _ray_alone(node_id: str) -> Iterator[Row]:
    """The rival: a pinned group asked for and waited for by this process, without ledger, store or queue."""
    bundle = PinnedBundle(node_id, SMALL.ray_resources())
    taken = []
    for number in range(WARM_UP + ALLOCATIONS):
        start = time.perf_counter()
        group_id, _ = ray_state.create_group(f"rival-{number}", [bundle], GROUP_TIMEOUT_S)
        taken.append((time.perf_counter() - start) * 1000)
        ray_state.remove_group(group_id)
        time.sleep(0.02)  # its node has reported that it is free
    for percent in ALLOCATE_GOALS_MS:
        value = percentile(taken[WARM_UP:], percent)
        yield Row(metric=f"allocate_ms_p{percent}", value=value, unit="ms", context={"rival": "Ray alone"})


def _sustained(client: Cluster) -> Iterator[Row]:
    """Callers that allocate and release, over and over, through the one manager."""
    asyncio.run(_rate(client.aio, 1.0))
    rate = asyncio.run(_rate(client.aio, SUSTAINED_S))
    yield Row(
        metric="allocations_per_s",
        value=rate,
        unit="1/s",
        goal=RATE_GOAL,
        better="higher",
        context={"callers": CALLERS, "seconds": SUSTAINED_S, "each": "allocated and released"},
    )


async def _rate(cluster: AsyncCluster, seconds: float) -> float:
    start = time.perf_counter()
    counts = await asyncio.gather(*(_allocate_until(cluster, start + seconds) for _ in range(CALLERS)))
    return sum(counts) / (time.perf_counter() - start)


async def _allocate_until(cluster: AsyncCluster, end: float) -> int:
    count = 0
    while time.perf_counter() < end:
        held = await cluster.hold(SMALL, wait_s=30)
        await cluster.release(held.id)
        count += 1
    return count


def _handovers(client: Cluster) -> Iterator[Row]:
    """From releasing one GPU of a full node to its being held by who waits for it."""
    taken = asyncio.run(_handover_ms(client.aio))
    for name, value in (("p50", percentile(taken, 50)), ("p99", percentile(taken, 99)), ("max", max(taken))):
        yield Row(
            metric=f"handover_ms_{name}",
            value=value,
            unit="ms",
            goal=HANDOVER_GOAL_MS if name == "max" else None,
            context={"handovers": len(taken)},
        )


async def _handover_ms(cluster: AsyncCluster) -> list[float]:
    held = [await cluster.hold(ONE_GPU, wait_s=30) for _ in range(GPUS)]
    taken = []
    for _ in range(HANDOVERS):
        waiting = asyncio.create_task(cluster.hold(ONE_GPU, wait_s=30))
        await _is_waiting(cluster)
        start = time.perf_counter()
        _, later = await asyncio.gather(cluster.release(held.pop(0).id), waiting)
        taken.append((time.perf_counter() - start) * 1000)
        held.append(later)
    for last in held:
        await cluster.release(last.id)
    return taken


async def _is_waiting(cluster: AsyncCluster) -> None:
    while not any(allocation.state == "waiting" for allocation in await cluster.allocations()):  # noqa: ASYNC110  (only asking tells)
        await asyncio.sleep(0.005)
