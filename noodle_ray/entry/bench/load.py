"""Loads: from asking for a module to its first answered call, warm and cold, and what a call costs from then on.

Beside a plain actor of Ray's and a Ray Serve application of the same class, on the same cluster.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import ray

from noodle_ray.actors.module_host import MAX_CALLS
from noodle_ray.entry.aio import AsyncCluster
from noodle_ray.entry.bench.call_overhead import beside_actor, beside_serve
from noodle_ray.entry.bench.host_stock import HostStock
from noodle_ray.entry.bench.module_cluster import Context, median, module_cluster, ratio_row, time_rows
from noodle_ray.entry.bench.module_versions import ECHO, echo_class, echo_module
from noodle_ray.entry.bench.report import Row
from noodle_ray.entry.cli.output import say

HOLDING, COLD = "bench-echo-holding", "bench-echo-cold"
WARM_GOALS_MS: dict[int, float | None] = {50: 25.0, 99: 100.0}
ACTORS, APPLICATIONS = 20, 10
"""How often each rival is started."""

PAUSE_S = 0.5
"""Between two starts, so that the end of one does not slow the next."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is to be measured."""

    loads: int = 200
    cold: int = 20
    calls: int = 2000


@dataclass(slots=True)
class Loads:
    """Milliseconds to the first answer of those that were as they should be, their stages, and how many were not."""

    taken: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=dict)
    otherwise: int = 0

    def add(self, answer: Mapping[str, Any], taken_ms: float, warm: bool) -> None:
        """Notes one load, where its host was warm, or was not, as wanted."""
        if answer["warm"] is not warm:
            self.otherwise += 1
            return
        self.taken.append(taken_ms)
        for stage, spent in answer["milliseconds"].items():
            self.stages.setdefault(stage, []).append(spent)


def measure(plan: Plan) -> list[Row]:
    """Every row: loads, calls, then the rivals, for Serve's controller would be busy beside all the rest."""
    with module_cluster() as (client, _):
        return asyncio.run(_measure(client.aio, plan))


async def _measure(cluster: AsyncCluster, plan: Plan) -> list[Row]:
    say(f"loading warm, {plan.loads} times without and {plan.loads} times with an allocation beside it")
    warm = await _warm(cluster, plan.loads)
    say(f"loading cold, {plan.cold} times")
    cold = await _cold(cluster, plan.cold)
    rows = [*warm_rows(warm), *cold_rows(cold)]
    await cluster.modules.load(ECHO)
    say(f"calling, {plan.calls} times each")
    async with _plain_actor() as actor:
        rows += await beside_actor(cluster, actor, plan.calls)
    return [*rows, *await _rivals(cluster, plan, warm["no"])]


# -- ours


async def _warm(cluster: AsyncCluster, times: int) -> dict[str, Loads]:
    """Loads of a module that holds nothing and of one that holds something, in turn, each from a full stock."""
    modules = {"no": (ECHO, None), "yes": (HOLDING, {"cpus": 0.1})}
    for name, resources in modules.values():
        await cluster.modules.publish(echo_module(name, resources=resources))
        await _load(cluster, name)  # from now on its artefact is cached on the node
    measured = {holds: Loads() for holds in modules}
    stock = await HostStock.of_now()
    for _ in range(times):
        for holds, (name, _) in modules.items():
            await stock.refilled()
            measured[holds].add(*await _load(cluster, name), warm=True)
    return measured


async def _cold(cluster: AsyncCluster, times: int) -> Loads:
    """Each a new version; and it holds a share of a GPU, so that its process starts when it is asked for."""
    measured, stock = Loads(), await HostStock.of_now()
    for number in range(times):
        await cluster.modules.publish(echo_module(COLD, f"1.{number}.0", {"gpu_share": 0.1}))
        await stock.refilled()
        measured.add(*await _load(cluster, COLD), warm=False)
    return measured


async def _load(cluster: AsyncCluster, name: str) -> tuple[dict[str, Any], float]:
    """What `load` answered, and the ms until the first call was answered; the module is unloaded afterwards."""
    start = time.perf_counter()
    answer = await cluster.modules.load(name)
    await cluster.modules.call(name, "echo", 1)
    taken = (time.perf_counter() - start) * 1000
    await cluster.modules.unload(name)
    return answer, taken


def warm_rows(measured: Mapping[str, Loads]) -> Iterator[Row]:
    """By whether the module holds resources: the times, how many loads were not warm, and the stages."""
    for holds, loads in measured.items():
        context: Context = {"resources": holds, "loads": len(loads.taken)}
        yield from time_rows("load_warm", loads.taken, context, WARM_GOALS_MS)
        yield Row(metric="load_not_warm", value=loads.otherwise, unit="", context={"resources": holds})
        yield from _stage_rows("load_warm", loads, {"resources": holds})


def cold_rows(loads: Loads) -> Iterator[Row]:
    """The times of loads that start from nothing, and the stages."""
    context: Context = {"artefact": "new", "process": "new", "loads": len(loads.taken)}
    yield from time_rows("load_cold", loads.taken, context, {50: None, 99: None})
    yield from _stage_rows("load_cold", loads, {})


def _stage_rows(metric: str, loads: Loads, context: Context) -> Iterator[Row]:
    """Where the time went, as the registry and the host tell it: medians, so that they need not add up."""
    for stage, spent in loads.stages.items():
        yield from time_rows(f"{metric}_stage", spent, {"stage": stage, **context}, {50: None})


# -- the rivals


@asynccontextmanager
async def _plain_actor() -> AsyncIterator[Any]:
    """The same class as an actor, with as many calls at once as a host of ours takes."""
    actor = ray.remote(echo_class()).options(num_cpus=0, max_concurrency=MAX_CALLS).remote()
    try:
        await actor.echo.remote(1)
        yield actor
    finally:
        ray.kill(actor)


async def _rivals(cluster: AsyncCluster, plan: Plan, ours: Loads) -> list[Row]:
    # Serve reads its variables when it is imported: not before they are set.
    from noodle_ray.entry.bench import serve_rival

    say(f"starting a plain actor, {ACTORS} times")
    actors = await _times(_start_actor, ACTORS)
    say(f"starting a Serve application, {APPLICATIONS} times")
    await asyncio.to_thread(serve_rival.start_serve)

    async def start_application() -> float:
        start = time.perf_counter()
        handle = await asyncio.to_thread(serve_rival.deploy, echo_class())
        await handle.echo.remote(1)
        taken = (time.perf_counter() - start) * 1000
        await asyncio.to_thread(serve_rival.remove)
        return taken

    applications = await _times(start_application, APPLICATIONS)
    handle = await asyncio.to_thread(serve_rival.deploy, echo_class())
    calls = await beside_serve(cluster, handle, plan.calls)
    return [*_rival_rows("plain actor", actors, ours), *_rival_rows("Ray Serve", applications, ours), *calls]


async def _start_actor() -> float:
    start = time.perf_counter()
    async with _plain_actor():  # it has answered once by then
        return (time.perf_counter() - start) * 1000


async def _times(start: Callable[[], Awaitable[float]], times: int) -> list[float]:
    taken = []
    for _ in range(times):
        taken.append(await start())
        await asyncio.sleep(PAUSE_S)
    return taken


def _rival_rows(rival: str, taken: list[float], ours: Loads) -> Iterator[Row]:
    context: Context = {"rival": rival, "starts": len(taken)}
    yield from time_rows("load", taken, context, {50: None, 99: None})
    yield ratio_row("load_warm_ms_p50", median(ours.taken), median(taken), {"rival": rival})
