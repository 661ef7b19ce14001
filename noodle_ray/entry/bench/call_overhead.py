"""What a call through the registry's handle costs beyond the same call of a plain actor, and of a Serve handle."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from noodle_ray.entry.aio import AsyncCluster
from noodle_ray.entry.bench.module_cluster import Context, median, ratio_row, time_rows
from noodle_ray.entry.bench.module_versions import ECHO
from noodle_ray.entry.bench.report import Row
from noodle_ray.entry.bench.timing import percentile

OVERHEAD_GOAL_MS = 0.5
WARM_UP = 50
VARIANTS = {"sync": "echo", "async": "echo_async"}
ARGUMENT = {"text": "a short one", "numbers": [1, 2, 3]}

Call = Callable[[], Awaitable[Any]]


def ours(cluster: AsyncCluster, function: str) -> Call:
    """A call of the loaded module."""
    return lambda: cluster.modules.call(ECHO, function, ARGUMENT)


def remote(handle: Any, function: str) -> Call:
    """A call of an actor, or of a Serve deployment, by its handle."""
    return lambda: getattr(handle, function).remote(ARGUMENT)


async def beside_actor(cluster: AsyncCluster, actor: Any, calls: int) -> list[Row]:
    """The overhead: ours and the plain actor's calls in turn, for synchronous and asynchronous functions."""
    rows: list[Row] = []
    for variant, function in VARIANTS.items():
        ours_ms, plain_ms = await interleaved([ours(cluster, function), remote(actor, function)], calls)
        rows += _overhead_rows(ours_ms, plain_ms, {"function": variant, "calls": calls})
    return rows


async def beside_serve(cluster: AsyncCluster, handle: Any, calls: int) -> list[Row]:
    """Ours and the Serve handle's calls in turn: Serve's rows, and how many times faster ours are."""
    rows: list[Row] = []
    for variant, function in VARIANTS.items():
        ours_ms, serve_ms = await interleaved([ours(cluster, function), remote(handle, function)], calls)
        context: Context = {"function": variant, "rival": "Ray Serve", "calls": calls}
        rows += time_rows("call", serve_ms, context, {50: None, 99: None})
        rows.append(ratio_row("call_ms_p50", median(ours_ms), median(serve_ms), context))
    return rows


async def interleaved(calls: Sequence[Call], times: int) -> list[list[float]]:
    """What each of the calls took, in ms, made in turn by one event loop; who is first changes with every round."""
    taken: list[list[float]] = [[] for _ in calls]
    for number in range(-WARM_UP, times):
        for place in range(len(calls)):
            which = (number + place) % len(calls)
            start = time.perf_counter()
            await calls[which]()
            if number >= 0:
                taken[which].append((time.perf_counter() - start) * 1000)
    return taken


def _overhead_rows(ours_ms: list[float], plain_ms: list[float], context: Context) -> Iterator[Row]:
    for percent in (50, 99):
        difference = percentile(ours_ms, percent) - percentile(plain_ms, percent)
        goal = OVERHEAD_GOAL_MS if percent == 50 else None
        yield Row(metric=f"call_overhead_ms_p{percent}", value=difference, unit="ms", goal=goal, context=context)
    yield from time_rows("call", ours_ms, context, {50: None, 99: None})
    yield from time_rows("call", plain_ms, {**context, "rival": "plain actor"}, {50: None, 99: None})
