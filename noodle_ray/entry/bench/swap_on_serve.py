"""The rival of hot swaps: Ray Serve's rolling update, under the same callers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from noodle_ray.entry.bench.module_versions import GOOD, work_class
from noodle_ray.entry.bench.swap_callers import Crowd, call_until
from noodle_ray.entry.bench.swap_log import Span, read_executions
from noodle_ray.entry.bench.swap_story import Story
from noodle_ray.entry.cli.output import say

UPDATE_S = 120.0
"""An update that takes longer ends the benchmark."""


async def play_serve(seconds: float, times: Sequence[float], crowd: Crowd, log: Path) -> Story:
    """New code at these times, or as soon as Serve has taken what came before; all of it good, and nobody is killed."""
    # Serve reads its variables when it is imported: not before they are set.
    from noodle_ray.entry.bench import serve_rival

    story = Story("stateless")
    await asyncio.to_thread(serve_rival.start_serve)
    handle = await asyncio.to_thread(serve_rival.deploy, work_class(GOOD[0]))
    await handle.pid.remote()
    say(f"Ray Serve: the same for {seconds:g} s")
    start = time.monotonic()
    story.calls, _ = await asyncio.gather(
        call_until(start + seconds, crowd, lambda session, number: handle.work.remote(str(log), session, number)),
        _update(story, [start + at for at in times], start + seconds),
    )
    await asyncio.to_thread(serve_rival.remove)
    story.executions = read_executions(log)
    return story


async def _update(story: Story, times: Sequence[float], end: float) -> None:
    from noodle_ray.entry.bench import serve_rival

    for number, at in enumerate(times, start=1):
        await asyncio.sleep(max(0.0, at - time.monotonic()))
        begun = time.monotonic()
        if begun > end:
            return
        async with asyncio.timeout(UPDATE_S):
            await asyncio.to_thread(serve_rival.deploy, work_class(GOOD[number % len(GOOD)]))
        story.swaps.append(Span(begun, time.monotonic()))
        story.attempts.append(story.swaps[-1])
