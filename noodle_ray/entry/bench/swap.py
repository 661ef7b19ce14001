"""Hot swaps under load: versions are swapped, some broken, and hosts are killed, while sessions call without a rest.

What the callers saw is held against what the modules wrote down. Ray Serve's rolling update is the rival.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from noodle_ray.entry.aio import AsyncCluster
from noodle_ray.entry.bench.module_cluster import module_cluster
from noodle_ray.entry.bench.module_versions import (
    BROKEN,
    GOOD,
    WORKING,
    Breakage,
    broken_versions,
    work_module,
)
from noodle_ray.entry.bench.report import Row
from noodle_ray.entry.bench.swap_callers import Crowd, call_module, call_until
from noodle_ray.entry.bench.swap_log import Span, read_executions
from noodle_ray.entry.bench.swap_on_serve import play_serve
from noodle_ray.entry.bench.swap_rows import ratio_rows, rows_of, serve_rows
from noodle_ray.entry.bench.swap_schedule import Step, schedule
from noodle_ray.entry.bench.swap_story import Story
from noodle_ray.entry.cli.output import say
from noodle_ray.errors import NoodleError

SWAP_S = 60.0
"""A swap that takes longer is given up."""

BACK_S, POLL_S = 30.0, 0.05
"""How long a killed host is waited for, and how often it is looked for."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is to be measured."""

    seconds: float = 120.0
    crowd: Crowd = field(default_factory=Crowd)
    every_s: float = 5.0
    kinds: tuple[str, ...] = ("stateless", "stateful")
    serve: bool = True
    seed: int = 1


def measure(plan: Plan) -> list[Row]:
    """Every row: of the one module, of the other, then of Serve, one after another on one cluster."""
    rows: list[Row] = []
    with module_cluster() as (client, scratch):
        stories = {kind: asyncio.run(_play(client.aio, plan, kind, _log(scratch, kind))) for kind in plan.kinds}
        for story in stories.values():
            rows += rows_of(story, plan.crowd)
        if plan.serve:
            times = [
                step.at_s for step in schedule(plan.seconds, plan.every_s, broken_versions("stateless"), plan.seed)
            ]
            rival = asyncio.run(play_serve(plan.seconds, times, plan.crowd, _log(scratch, "serve")))
            rows += serve_rows(rival, plan.crowd)
            rows += ratio_rows(stories["stateless"], rival) if "stateless" in stories else []
    return rows


def _log(scratch: Path, name: str) -> Path:
    log = scratch / f"log-{name}"
    log.mkdir()
    return log


# -- ours


async def _play(cluster: AsyncCluster, plan: Plan, kind: str, log: Path) -> Story:
    """Callers and the schedule side by side, then the state that is left."""
    name, story = WORKING[kind], Story(kind)
    for version in (*GOOD, *(BROKEN[breakage] for breakage in broken_versions(kind))):
        await cluster.modules.publish(work_module(kind, version))
    await cluster.modules.load(name, f"=={GOOD[0]}")
    say(f"{kind}: {plan.crowd.sessions} sessions call for {plan.seconds:g} s, a swap every {plan.every_s:g} s")
    start = time.monotonic()
    story.calls, _ = await asyncio.gather(
        call_until(
            start + plan.seconds,
            plan.crowd,
            lambda session, number: call_module(cluster, name, session, "work", str(log), session, number),
        ),
        _follow(Swapper(cluster, story), schedule(plan.seconds, plan.every_s, broken_versions(kind), plan.seed), start),
    )
    if kind == "stateful":
        story.kept = await _state(cluster, name)
    await _unload(cluster, name)
    story.executions = read_executions(log)
    return story


async def _state(cluster: AsyncCluster, name: str) -> dict[str, list[list[int]]]:
    """What the module knows of its calls: nothing, where it does not even answer."""
    end = time.monotonic() + BACK_S
    while time.monotonic() < end:
        try:
            state: dict[str, list[list[int]]] = await call_module(cluster, name, "reader", "ran")
        except NoodleError as error:
            say(f"{name} does not tell its state: {error}")
            await asyncio.sleep(1.0)
        else:
            return state
    return {}


async def _unload(cluster: AsyncCluster, name: str) -> None:
    try:
        await cluster.modules.unload(name)
    except NoodleError as error:  # its cluster ends soon, and what was measured shall not be lost for that
        say(f"{name} was not unloaded: {error}")


async def _follow(swapper: Swapper, steps: list[Step], start: float) -> None:
    for step in steps:
        await asyncio.sleep(max(0.0, start + step.at_s - time.monotonic()))
        await swapper.perform(step)


class Swapper:
    """Swaps one module and kills its hosts, and notes what became of it."""

    def __init__(self, cluster: AsyncCluster, story: Story) -> None:
        self._cluster, self._story, self._name = cluster, story, WORKING[story.kind]

    async def perform(self, step: Step) -> None:
        """One step; returns when its swap has ended, and the module is back where its host was killed."""
        killing = asyncio.create_task(self._kill(step.kill_after_s)) if step.kill_after_s is not None else None
        if step.breakage is None:
            await self._swap_to_good(killing)
        else:
            await self._swap_to_broken(step.breakage)
        if killing is not None:
            await killing

    async def _swap_to_good(self, killing: asyncio.Task[None] | None) -> None:
        kills = len(self._story.kills)
        loaded = (await self._cluster.modules.describe(self._name))["loaded"]
        start = time.monotonic()
        problem = await self._swap(GOOD[1] if loaded == GOOD[0] else GOOD[0])
        if not problem:
            self._story.swaps.append(Span(start, time.monotonic()))
            return
        if killing is not None:
            await killing
        if len(self._story.kills) > kills:
            self._story.cut_off += 1
        else:
            self._story.failed.append(problem)

    async def _swap_to_broken(self, breakage: Breakage) -> None:
        if await self._swap(BROKEN[breakage]):
            self._story.rolled_back.append(breakage)
            return
        self._story.not_rolled_back.append(breakage)
        await self._swap_to_good(None)

    async def _swap(self, version: str) -> str:
        """Why it was not to be, "" where it was."""
        start = time.monotonic()
        try:
            async with asyncio.timeout(SWAP_S):
                await self._cluster.modules.swap(self._name, f"=={version}")
        except (NoodleError, TimeoutError) as error:
            return f"{type(error).__name__}: {error}"
        finally:
            self._story.attempts.append(Span(start, time.monotonic()))
        return ""

    async def _kill(self, after_s: float) -> None:
        """Ends the process of a host that serves, as when it runs out of memory, and waits for the module's return."""
        await asyncio.sleep(after_s)
        pid = await self._pid()
        if pid is None or pid == os.getpid():
            return
        killed_at = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        while (found := await self._pid()) in (None, pid) and time.monotonic() < killed_at + BACK_S:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
        if found in (None, pid):
            say(f"{self._name} did not come back within {BACK_S:g} s")
        self._story.kills.append(Span(killed_at, time.monotonic()))

    async def _pid(self) -> int | None:
        try:
            async with asyncio.timeout(BACK_S):
                pid: int = await call_module(self._cluster, self._name, "killer", "pid")
                return pid
        except (NoodleError, TimeoutError):
            return None
