"""Ray's view: what the cluster's head holds for free on each node, looked at once for all who wait for a change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import ray
import structlog

from noodle_ray.actors import ray_state

log = structlog.get_logger()

LOOK_AGAIN_S = 0.005
"""The pause between two looks; nodes report every 10 ms in clusters of ours, every 100 ms in others."""
Amounts = Mapping[str, Mapping[str, float]]


@dataclass(slots=True)
class _Watcher:
    condition: Callable[[], bool]
    met: asyncio.Future[bool]


class RayView:
    """Free amounts by node. Ray's scheduler decides from this very view, so what is free here is free for it.

    Looks only while somebody waits, or when it is told to.
    """

    def __init__(self) -> None:
        self.free: Amounts = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="view")
        self._watchers: list[_Watcher] = []
        self._looking: asyncio.Task[None] | None = None

    async def look(self) -> None:
        """Takes a new look now. Raises RayError, RuntimeError where the head does not answer."""
        self.free = await asyncio.get_running_loop().run_in_executor(self._thread, ray_state.available)
        for watcher in self._watchers:  # in the order in which they came
            if not watcher.met.done() and watcher.condition():
                watcher.met.set_result(True)
        self._watchers = [watcher for watcher in self._watchers if not watcher.met.done()]

    async def until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Waits until the condition holds for a look that starts from now on; False when that takes too long."""
        watcher = _Watcher(condition, asyncio.get_running_loop().create_future())
        self._watchers.append(watcher)
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look_while_watched())
        try:
            async with asyncio.timeout(timeout_s):
                return await watcher.met
        except TimeoutError:
            return False

    async def _look_while_watched(self) -> None:
        loop = asyncio.get_running_loop()
        while self._watchers:
            start = loop.time()
            try:
                await self.look()
            except (ray.exceptions.RayError, RuntimeError) as error:
                log.warning("view_failed", error=str(error))
            # At most half of the time: a look at thousands of groups takes longer than the pause is.
            await asyncio.sleep(max(LOOK_AGAIN_S, loop.time() - start))
            self._watchers = [watcher for watcher in self._watchers if not watcher.met.done()]
        self._looking = None
