"""The host watch: looks at how calls fare, to judge a new version, to scale, and to forget what nobody calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

import structlog

from noodle_ray.actors.loaded_module import Held
from noodle_ray.actors.ray_errors import await_ref
from noodle_ray.errors import Unavailable
from noodle_ray.modules.call_stats import CallStats
from noodle_ray.modules.canary import Judgement, Trial

log = structlog.get_logger()

LOOK_S = 0.05
LOOK_TIMEOUT_S = 5.0


async def calls_of(hosts: Iterable[Held]) -> CallStats:
    """The calls that these hosts had, all together; one that does not answer had those that it told of last."""
    return sum(await asyncio.gather(*(_calls_of(held) for held in hosts)), start=CallStats())


async def _calls_of(held: Held) -> CallStats:
    try:
        async with asyncio.timeout(LOOK_TIMEOUT_S):
            held.calls = await await_ref(held.handle.stats.remote())
    except (Unavailable, TimeoutError) as error:
        log.info("host_does_not_tell_its_calls", module=held.manifest.name, error=str(error))
    return held.calls


async def judge(trial: Trial, new: list[Held], old: list[Held], side_by_side: bool) -> Judgement:
    """Looks on until the calls that the new hosts get tell whether they do as well as the old ones.

    `side_by_side`: the old ones take calls meanwhile. Where they do not, their callers may only be on the way to the
    new ones: that none has come yet does not mean that there are none.
    """
    start = time.monotonic()
    new_before, old_before = await calls_of(new), await calls_of(old)
    while True:
        await asyncio.sleep(LOOK_S)
        new_now, old_now = await calls_of(new), await calls_of(old)
        beside = old_now.since(old_before) if side_by_side else old_now
        judgement = trial.judge(new_now.since(new_before), old_now, beside, time.monotonic() - start)
        if judgement is not None:
            return judgement


async def until_idle(hosts: list[Held], idle_s: float) -> None:
    """Returns when these hosts have had no call for so long."""
    before = await calls_of(hosts)
    while True:
        await asyncio.sleep(idle_s)
        now = await calls_of(hosts)
        if not now.in_flight and now.answered == before.answered and now.failed == before.failed:
            return
        before = now
