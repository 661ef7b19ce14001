"""The node manager: the actor around the core's Manager, which performs its instructions on Ray and the store."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray
import structlog
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from noodle_ray.actors import ray_state
from noodle_ray.actors.names import NAMESPACE, NODE_MANAGER, agent_name
from noodle_ray.actors.node_agent import NodeAgent
from noodle_ray.errors import NoodleError, NotFound
from noodle_ray.nodes import events, instructions
from noodle_ray.nodes.manager import Manager
from noodle_ray.nodes.membership import Node
from noodle_ray.nodes.metrics import ResourceMetrics
from noodle_ray.placement.allocation import Allocation
from noodle_ray.placement.planner import Explanation
from noodle_ray.resources import Demand, to_units
from noodle_ray.settings import Settings
from noodle_ray.store.changes import Change
from noodle_ray.store.database import Database

log = structlog.get_logger()

WATCH_INTERVAL_S = 0.5
"""How often Ray is asked for nodes, jobs and use: what a node's death or another's task takes to be known here."""

GROUP_TIMEOUT_S = 5.0
GROUPS_AT_ONCE = 8
"""Placement groups created or removed side by side: Ray makes eight times as many a second as one by one."""


class NodeManager:
    """Allocations and nodes of one cluster. One of it runs, on the head; killed, it comes back with all it promised."""

    async def __init__(self, settings: Settings) -> None:  # type: ignore[misc]  # Ray awaits it
        self._settings = settings
        self._core = Manager(settings)
        self._database = await asyncio.to_thread(Database.open, settings.database)
        self._groups = ThreadPoolExecutor(GROUPS_AT_ONCE, thread_name_prefix="groups")
        self._writing = asyncio.Lock()
        self._waiting: dict[str, asyncio.Future[Allocation]] = {}
        self._releasing: dict[str, asyncio.Future[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._agents: dict[str, Any] = {}
        self._last_change = 0.0
        await self._recover()
        self._spawn(self._watch_for_ever())

    async def _recover(self) -> None:
        rows, nodes, groups = await asyncio.gather(
            asyncio.to_thread(self._database.load, "allocations"),
            asyncio.to_thread(self._database.load, "nodes"),
            asyncio.to_thread(ray_state.groups),
        )
        await self._handle(
            events.Recovered(tuple(rows.values()), tuple(nodes.values()), frozenset(groups), at=time.time())
        )
        await self._watch_once()

    # -- what others ask of it

    async def allocate(
        self, demand: Demand, policy: str | None = None, owner: str = "", lease_s: float | None = None
    ) -> Allocation:
        """Places the demand and holds it. Raises DoesNotFit, NotFound (policy), Unavailable."""
        allocation_id = f"noodle-{uuid.uuid4().hex[:12]}"
        answer: asyncio.Future[Allocation] = asyncio.get_running_loop().create_future()
        self._waiting[allocation_id] = answer
        await self._handle(events.AllocationRequested(allocation_id, demand, policy, owner, lease_s, at=time.time()))
        return await answer

    async def release(self, allocation_id: str) -> None:
        """Frees it; returns when its amounts are free again. Raises NotFound."""
        self._core.allocation(allocation_id)
        done = self._releasing.setdefault(allocation_id, asyncio.get_running_loop().create_future())
        await self._handle(events.ReleaseRequested(allocation_id, at=time.time()))
        await done

    async def renew(self, allocation_id: str) -> Allocation:
        """Starts its lease anew. Raises NotFound."""
        self._core.allocation(allocation_id)
        await self._handle(events.LeaseRenewed(allocation_id, at=time.time()))
        return self._core.allocation(allocation_id)

    async def allocation(self, allocation_id: str) -> Allocation:
        return self._core.allocation(allocation_id)

    async def allocations(self) -> list[Allocation]:
        return self._core.allocations()

    async def explain(self, allocation_id: str) -> Explanation:
        """Why it is where it is. Raises NotFound."""
        return self._core.allocation(allocation_id).explanation

    async def nodes(self) -> list[Node]:
        return self._core.nodes()

    async def node(self, node_id: str) -> Node:
        return self._core.node(node_id)

    async def cordon(self, node_id: str, cordoned: bool) -> Node:
        """Places nothing new there, or again. Raises NotFound."""
        self._core.node(node_id)
        await self._handle(events.NodeCordoned(node_id, cordoned, at=time.time()))
        return self._core.node(node_id)

    async def totals(self) -> dict[str, Any]:
        return self._core.totals()

    async def report(self, node_id: str, metrics: ResourceMetrics) -> None:
        """A NodeAgent's report."""
        await self._handle(events.NodeReported(node_id, metrics, at=time.time()))

    async def ping(self) -> str:
        return NODE_MANAGER

    # -- performing

    async def _handle(self, event: Any) -> None:
        """The one door: the core decides, then its instructions are performed in their order."""
        await self._perform(self._core.handle(event))

    async def _perform(self, todo: Sequence[Any]) -> None:
        for instruction in todo:
            match instruction:
                case instructions.Keep(change):
                    await self._keep([change])
                case instructions.CreateGroup():
                    self._spawn(self._create_group(instruction))
                case instructions.RemoveGroup():
                    self._spawn(self._remove_group(instruction))
                case instructions.Granted(allocation):
                    _resolve(self._waiting.pop(allocation.id, None), allocation)
                case instructions.Refused(allocation_id, error):
                    _reject(self._waiting.pop(allocation_id, None), error)
                case instructions.Released(allocation_id):
                    _resolve(self._releasing.pop(allocation_id, None), None)
                    _reject(self._waiting.pop(allocation_id, None), NotFound("allocation", allocation_id))
                case instructions.Notice(kind, message, details):
                    log.info(kind, message=message, **details)

    async def _keep(self, changes: list[Change]) -> None:
        async with self._writing:  # in the order in which the core decided
            await asyncio.to_thread(self._database.apply, changes)

    async def _create_group(self, order: instructions.CreateGroup) -> None:
        loop = asyncio.get_running_loop()
        self._last_change = loop.time()
        try:
            created = await loop.run_in_executor(
                self._groups, ray_state.create_group, order.group, order.bundle, order.node_id, GROUP_TIMEOUT_S
            )
            problem = "" if created else f"Ray did not reserve it within {GROUP_TIMEOUT_S:g} s"
        except (ray.exceptions.RayError, ValueError) as error:
            problem = str(error)
        self._last_change = loop.time()
        if problem:
            await self._handle(events.GroupFailed(order.allocation_id, order.epoch, problem, at=time.time()))
        else:
            await self._handle(events.GroupCreated(order.allocation_id, order.epoch, at=time.time()))

    async def _remove_group(self, order: instructions.RemoveGroup) -> None:
        loop = asyncio.get_running_loop()
        freed = await loop.run_in_executor(self._groups, ray_state.remove_group, order.group, GROUP_TIMEOUT_S)
        if not freed:
            log.warning("group_still_there", group=order.group, after_s=GROUP_TIMEOUT_S)
        self._last_change = loop.time()
        await self._handle(events.GroupRemoved(order.allocation_id, order.epoch, at=time.time()))

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task_failed", error=repr(error), exc_info=error)

    # -- watching Ray

    async def _watch_for_ever(self) -> None:
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            try:
                await self._watch_once()
            except (ray.exceptions.RayError, NoodleError, RuntimeError) as error:
                # The GCS or the database may be away for a moment; the next look sees what this one missed.
                log.warning("watch_failed", error=str(error))

    async def _watch_once(self) -> None:
        now = time.time()
        live = await asyncio.to_thread(ray_state.live_nodes)
        known = {node.id for node in self._core.nodes()}
        for node_id in sorted(known - live.keys()):
            self._agents.pop(node_id, None)
            await self._handle(events.NodeLeft(node_id, at=now))
        for node_id in sorted(live.keys() - known):
            node = live[node_id]
            await self._handle(
                events.NodeJoined(node.id, node.name, node.address, node.resources, node.pretended, at=now)
            )
        for node_id in sorted(live.keys() - self._agents.keys()):
            self._agents[node_id] = self._start_agent(node_id)
        await self._end_jobs(now)
        await self._observe_use(now)
        await self._handle(events.Tick(at=now))

    def _start_agent(self, node_id: str) -> Any:
        return (
            ray.remote(NodeAgent)
            .options(
                name=agent_name(node_id),
                namespace=NAMESPACE,
                lifetime="detached",
                get_if_exists=True,
                num_cpus=0,
                max_restarts=-1,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
            )
            .remote(node_id, ray.get_actor(NODE_MANAGER, NAMESPACE), self._settings)
        )

    async def _end_jobs(self, now: float) -> None:
        owners = {allocation.owner for allocation in self._core.allocations()} - {""}
        if owners:
            ended = await asyncio.to_thread(ray_state.ended_jobs)
            for owner in sorted(owners & {f"job:{job}" for job in ended}):
                await self._handle(events.OwnerGone(owner, at=now))

    async def _observe_use(self, now: float) -> None:
        """Tells the core what others use. Only while no group of ours is on its way: Ray would count it as theirs."""
        if not self._is_quiet():
            return
        before = self._last_change
        available = await asyncio.to_thread(ray_state.available)
        if before != self._last_change or not self._is_quiet():
            return
        for node in self._core.nodes():
            if node.id in available:
                free = available[node.id]
                event = events.FreeObserved(
                    node.id,
                    cpu_units=to_units(free.get("CPU", 0)),
                    memory_bytes=int(free.get("memory", 0)),
                    gpu_units=to_units(free.get("GPU", 0)),
                    custom_units=ray_state.custom_units(free),
                    at=now,
                )
                await self._handle(event)

    def _is_quiet(self) -> bool:
        moving = any(allocation.state in ("reserving", "releasing") for allocation in self._core.allocations())
        return not moving and asyncio.get_running_loop().time() - self._last_change > 0.1


def _resolve(waiting: asyncio.Future[Any] | None, value: Any) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(value)


def _reject(waiting: asyncio.Future[Any] | None, error: NoodleError) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_exception(error)
