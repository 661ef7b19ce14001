"""The node manager: the actor around the core's Manager, which performs its instructions on Ray and the store."""

from __future__ import annotations

import noodle_ray.goes_ahead  # noqa: F401  (what follows takes long to load, and others wait)

# isort: split

import asyncio
import pickle
import secrets
import sys
import time
from collections import defaultdict, deque
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import ray
import structlog
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from noodle_ray.actors import autoscaler, ray_state
from noodle_ray.actors.answers import Answers
from noodle_ray.actors.groups import Groups
from noodle_ray.actors.journal import Journal
from noodle_ray.actors.manager_metrics import ManagerMetrics
from noodle_ray.actors.names import NAMESPACE, NODE_MANAGER, agent_name
from noodle_ray.actors.node_agent import NodeAgent
from noodle_ray.actors.ray_errors import first_line
from noodle_ray.actors.ray_view import RayView
from noodle_ray.errors import NoodleError, NotFound
from noodle_ray.logs import configure_logs
from noodle_ray.nodes import events, instructions
from noodle_ray.nodes.event_log import ClusterEvent, EventLog
from noodle_ray.nodes.lease_book import pinned
from noodle_ray.nodes.manager import Manager
from noodle_ray.nodes.membership import Node
from noodle_ray.nodes.metrics import ResourceMetrics
from noodle_ray.nodes.peers import Endpoint, Observation, Peer
from noodle_ray.nodes.picked_gpus import PickedGpus
from noodle_ray.nodes.probe_messages import KEY_BYTES
from noodle_ray.placement import kernels
from noodle_ray.placement.allocation import UNSETTLED, Allocation
from noodle_ray.placement.claim import Claim
from noodle_ray.placement.columns import CPUS, MEMORY
from noodle_ray.placement.explanation import Explanation
from noodle_ray.placement.prices import compute
from noodle_ray.resources import NodeResources, to_units
from noodle_ray.settings import Settings
from noodle_ray.store.database import Database
from noodle_ray.store.health import StoreHealth
from noodle_ray.store.until_available import until_available

log = structlog.get_logger()

_NodeAgents = ray.remote(NodeAgent)

WATCH_INTERVAL_S = 0.5
"""How often Ray is asked for nodes, jobs and use: what a node's death or another's task takes to be known here."""

SWITCH_INTERVAL_S = 0.0005
"""How long a thread of this process may keep the others from Python: answers must not wait for prices or writes."""

STORE_INTERVAL_S = 2.0
"""How often the store is asked whether it is there, also while nothing is to be kept."""

COMPARE_INTERVAL_S = 10.0
"""How often the ledger is compared with Ray's groups, and the autoscaler's configuration is read."""


MEASUREMENTS = 60
"""Measurements of each node that are kept for whoever looks."""

PROBE_TIMEOUT_S = 2.0
"""How much longer than the probe an agent's answer about another node may take: it may be gone itself."""


class NodeManager:
    """Allocations and nodes of one cluster. One of it runs, on the head; killed, it comes back with all it promised."""

    async def __init__(self, settings: Settings) -> None:  # type: ignore[misc]  # Ray awaits it
        configure_logs(settings.log_level)
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._settings = settings
        self._core = Manager(settings)
        opening = partial(asyncio.to_thread, Database.open, settings.database, NODE_MANAGER)
        self._database = await until_available(opening)
        self._journal = Journal(self._database)
        self._view = RayView()
        self._groups = Groups(self._view)
        self._metrics = ManagerMetrics()
        self._held = Answers[Allocation]()
        self._queued = Answers[Allocation]()
        self._released = Answers[None]()
        self._changed = Answers[None]()
        self._happened = Answers[None]()
        self._log = EventLog()
        self._measured: dict[str, deque[ResourceMetrics]] = defaultdict(lambda: deque(maxlen=MEASUREMENTS))
        self._probe_key = secrets.token_bytes(KEY_BYTES)
        self._raylet_ports: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._agents: dict[str, Any] = {}
        self._others_groups: set[str] = set()
        self._compared_at = float("-inf")
        await self._recover()
        self._spawn(self._watch_for_ever())
        self._spawn(self._watch_store())
        kernels.warm_in_background()  # not earlier: others wait for what this process recovers

    async def _recover(self) -> None:
        rows, nodes, groups, asked = await asyncio.gather(
            until_available(partial(asyncio.to_thread, self._database.load, "allocations")),
            until_available(partial(asyncio.to_thread, self._database.load, "nodes")),
            asyncio.to_thread(ray_state.groups),
            asyncio.to_thread(autoscaler.has_asked),
        )
        for row in rows.values():
            allocation = Allocation.parse(row)
            if allocation.group in groups:
                self._groups.adopt(groups[allocation.group], pinned(allocation))
            if allocation.spare is not None and allocation.spare_group in groups:
                self._groups.adopt(groups[allocation.spare_group], pinned(allocation.spare))
        unready = frozenset(name for name, group in groups.items() if not group.is_ready)
        self._handle(
            events.Recovered(
                tuple(rows.values()), tuple(nodes.values()), frozenset(groups), time.time(), unready, asked
            )
        )
        await self._watch_once()

    # -- what others ask of it

    async def allocate(self, claim: Claim, until_held: bool = True) -> Allocation:
        """Places what is claimed and holds it; waits for room as long as the claim may. The same claim again is one.

        `until_held`: whether to answer only then; else also when it waits. Raises DoesNotFit, NotFound (policy),
        Conflict (the id is another's, or it was released), Unavailable.
        """
        answers = self._held if until_held else self._queued
        answer = answers.expect(claim.id)
        start = time.perf_counter()
        self._handle(events.Claimed(claim, at=time.time()))
        self._metrics.decided(time.perf_counter() - start)
        if claim.wait_s:
            asyncio.get_running_loop().call_later(claim.wait_s, self._tick)
        allocation = await asyncio.shield(answer)
        if allocation.state == "waiting":
            await self._journal.kept()  # whoever goes away now must find it again
        return allocation

    async def release(self, allocation_id: str, fence: str | None = None) -> None:
        """Frees it, or calls off its waiting; returns when its amounts are free again.

        `fence` is the home that the caller believes to hold. Raises NotFound, Conflict (it has another home now).
        """
        before = self._core.allocation(allocation_id, fence)
        done = self._released.expect(allocation_id)
        self._handle(events.ReleaseRequested(allocation_id, at=time.time(), fence=fence))
        await asyncio.shield(done)
        if before.state == "waiting":
            await self._journal.kept()  # it must not wait again after a restart

    async def renew(self, allocation_id: str, fence: str | None = None) -> Allocation:
        """Starts its lease anew. Raises NotFound, Conflict (it has another home now)."""
        self._core.allocation(allocation_id, fence)
        self._handle(events.LeaseRenewed(allocation_id, at=time.time(), fence=fence))
        await self._journal.kept()
        return self._core.allocation(allocation_id)

    async def allocation(self, allocation_id: str, wait_s: float = 0.0) -> Allocation:
        """As soon as it does not wait any more to be held, or as it is after `wait_s`.

        Raises NotFound, and what its asker is told where it is refused meanwhile: DoesNotFit, Conflict, Unavailable.
        """
        if wait_s and self._core.allocation(allocation_id).state in UNSETTLED:
            await _within(wait_s, self._held.expect(allocation_id))
        return self._core.allocation(allocation_id)

    async def allocations(self) -> list[Allocation]:
        return self._core.allocations()

    async def missing(self, allocation_ids: list[str]) -> list[str]:
        """Those of them that hold nothing any more: lost with their nodes, or unknown."""
        return self._core.missing(allocation_ids)

    async def explain(self, allocation_id: str) -> Explanation:
        """Why it is where it is, or does not fit anywhere yet. Raises NotFound."""
        explanation = self._core.allocation(allocation_id).explanation
        if explanation is None:
            raise NotFound("explanation", allocation_id)
        return explanation

    async def nodes(self) -> list[Node]:
        return self._core.nodes()

    async def node(self, node_id: str) -> Node:
        return self._core.node(node_id)

    async def cordon(self, node_id: str, cordoned: bool) -> Node:
        """Places nothing new there, or again. Raises NotFound."""
        self._core.node(node_id)
        self._handle(events.NodeCordoned(node_id, cordoned, at=time.time()))
        await self._journal.kept()
        return self._core.node(node_id)

    async def register_node(self, node_id: str) -> Node:
        """Takes a node of Ray's into the fleet now; each joins by itself too, with the next look.

        Raises NotFound where Ray has no such node.
        """
        self._follow_nodes(await asyncio.to_thread(ray_state.live_nodes))
        return self._core.node(node_id)

    async def update_node(self, node_id: str, name: str | None = None, labels: Mapping[str, str] | None = None) -> Node:
        """Gives the node another name, or these labels beside Ray's. Raises NotFound, Conflict (Ray's own label)."""
        self._core.node(node_id)
        self._handle(events.NodeUpdated(node_id, time.time(), name, labels))
        await self._journal.kept()
        return self._core.node(node_id)

    async def unregister_node(self, node_id: str) -> Node:
        """Has the node leave at once: what it holds is handled as when it dies. Raises NotFound."""
        return await self.drain(node_id, 0.0)

    async def drain(self, node_id: str, deadline_s: float) -> Node:
        """Places nothing new there, moves what is movable, and lets the node go when it is empty or the time is over.

        Raises NotFound.
        """
        self._core.node(node_id)
        now = time.time()
        self._handle(events.DrainRequested(node_id, until=now + deadline_s, at=now))
        await self._journal.kept()
        return self._core.node(node_id)

    async def node_events(self, since: int, wait_s: float) -> list[ClusterEvent]:
        """What happened after the event of that number; waits for something, but not longer than `wait_s`."""
        if not self._log.since(since) and wait_s > 0:
            await _within(wait_s, self._happened.expect(""))
        return self._log.since(since)

    async def node_metrics(self, node_id: str) -> list[ResourceMetrics]:
        """The last measurements of the node, oldest first. Raises NotFound."""
        self._core.node(node_id)
        return list(self._measured[node_id])

    async def changed(self, allocation_id: str, mark: str, wait_s: float) -> Allocation:
        """The allocation as soon as its mark is another, or as it is after `wait_s`. Raises NotFound."""
        if self._core.allocation(allocation_id).mark == mark and wait_s > 0:
            await _within(wait_s, self._changed.expect(allocation_id))
        return self._core.allocation(allocation_id)

    async def move_confirmed(self, allocation_id: str, epoch: int) -> None:
        """The holder works in the allocation's second home: the first is given up."""
        self._handle(events.MoveConfirmed(allocation_id, epoch, at=time.time()))
        await self._journal.kept()

    async def totals(self) -> dict[str, Any]:
        return self._core.totals()

    async def snapshot(self) -> bytes:
        """All that is known now, a pickled `Snapshot`.

        Pickled here and at once: what a method returns is packed by another thread while decisions go on.
        """
        return pickle.dumps(self._core.snapshot(time.time()))

    async def figures(self) -> dict[str, float]:
        """What is worth watching of queue, ledger and decisions, as plain numbers."""
        return {**self._core.figures(time.time()), **self._metrics.decision_ms()}

    async def store_health(self) -> StoreHealth:
        """Whether the store answers, as of the last seconds."""
        return self._database.health()

    async def report(self, node_id: str, metrics: ResourceMetrics, address: str, port: int) -> None:
        """A NodeAgent's report, and where it answers probes."""
        self._measured[node_id].append(metrics)
        endpoint = Endpoint(address, port, self._raylet_ports.get(node_id, 0))
        self._handle(events.NodeReported(node_id, metrics, time.time(), endpoint))

    async def agent_started(self, node_id: str, address: str, port: int) -> None:
        """A NodeAgent runs, perhaps anew, and answers probes there."""
        endpoint = Endpoint(address, port, self._raylet_ports.get(node_id, 0))
        self._handle(events.AgentStarted(node_id, endpoint, at=time.time()))

    async def peers_observed(self, by: str, seen: tuple[Observation, ...]) -> None:
        """What a NodeAgent observed of the nodes that it watches."""
        self._handle(events.PeersObserved(by, seen, at=time.time()))

    async def report_gpus(self, picked: Sequence[PickedGpus]) -> None:
        """What a NodeAgent saw of Ray's choice of GPUs. Groups of others, or gone by now, are passed over."""
        for one in picked:
            name = self._groups.name_of(one.group_id)
            if name is not None:
                allocation_id, _, epoch = name.rpartition(".")
                event = events.GpusObserved(allocation_id, int(epoch), one.bundle, one.gpu_indices, at=time.time())
                self._handle(event)

    async def ping(self) -> str:
        return NODE_MANAGER

    # -- performing

    def _handle(self, event: events.Event) -> None:
        """The one door: the core decides, then its instructions are performed in their order."""
        start = time.perf_counter()
        orders = self._core.handle(event)
        self._perform(orders, decided_ms=(time.perf_counter() - start) * 1000)

    def _tick(self) -> None:
        self._handle(events.Tick(at=time.time()))

    def _perform(self, orders: Sequence[instructions.Instruction], decided_ms: float) -> None:
        for instruction in orders:
            match instruction:
                case instructions.Keep(change):
                    self._journal.add(change)
                    self._changed.resolve(change.key, None)
                case instructions.CreateGroup():
                    self._spawn(self._create_group(instruction))
                case instructions.RemoveGroup():
                    self._spawn(self._remove_group(instruction))
                case instructions.AskForNodes(rooms):
                    self._spawn(asyncio.to_thread(autoscaler.ask, rooms))
                case instructions.WatchPeers(by, peers):
                    self._spawn(self._have_watch(by, peers))
                case instructions.ProbeNode(peer, by):
                    for agent in by:
                        self._spawn(self._have_probed(agent, peer))
                case instructions.RetireNode(node_id):
                    self._spawn(self._retire(node_id))
                case instructions.Notice():
                    self._note(instruction, decided_ms)
                case _:
                    self._tell(instruction)

    def _note(self, notice: instructions.Notice, decided_ms: float) -> None:
        """With a node's death goes how long it took to decide what becomes of all that it held."""
        details = dict(notice.details)
        if notice.kind in ("node_dead", "node_left"):
            details["decided_ms"] = round(decided_ms, 3)
        (log.warning if notice.warns else log.info)(notice.kind, message=notice.message, **details)
        self._log.add(notice.kind, notice.message, details, at=time.time())
        self._happened.resolve("", None)

    def _tell(self, instruction: instructions.Instruction) -> None:
        """Answers those who wait for it."""
        match instruction:
            case instructions.Granted(allocation):
                self._held.resolve(allocation.id, allocation)
                self._queued.resolve(allocation.id, allocation)
            case instructions.Queued(allocation):
                self._queued.resolve(allocation.id, allocation)
            case instructions.Refused(allocation_id, error):
                self._spawn(self._refuse_kept(allocation_id, error))
            case instructions.Released(allocation_id):
                self._released.resolve(allocation_id, None)
                # In its turn: who was told of a better reason just before is to hear that one.
                self._spawn(self._refuse_kept(allocation_id, NotFound("allocation", allocation_id)))

    async def _refuse_kept(self, allocation_id: str, error: NoodleError) -> None:
        """Whoever is told that it is not held must not find it held after a restart."""
        await self._journal.kept()
        self._refuse(allocation_id, error)

    def _refuse(self, allocation_id: str, error: NoodleError) -> None:
        self._held.reject(allocation_id, error)
        self._queued.reject(allocation_id, error)

    async def _create_group(self, order: instructions.CreateGroup) -> None:
        await self._journal.kept()
        problem = await self._groups.create(order.group, order.bundles)
        if problem is None:
            self._handle(events.GroupCreated(order.allocation_id, order.epoch, at=time.time()))
        else:
            self._handle(
                events.GroupFailed(order.allocation_id, order.epoch, problem.reason, time.time(), problem.lacking)
            )

    async def _remove_group(self, order: instructions.RemoveGroup) -> None:
        await self._journal.kept()
        if not await self._groups.remove(order.group):
            log.warning("group_still_there", group=order.group)
        self._handle(events.GroupRemoved(order.allocation_id, order.epoch, at=time.time()))

    async def _have_watch(self, by: str, peers: Sequence[Peer]) -> None:
        try:
            await self._agents[by].watch.remote(peers, self._probe_key)
        except (ray.exceptions.RayError, KeyError) as error:
            log.info("agent_not_told", node=by, error=first_line(error))  # it is told again when it has started anew

    async def _have_probed(self, by: str, peer: Peer) -> None:
        """No answer is no vote: the agent that was asked may be gone itself."""
        asked_for_s = self._settings.node_confirm_ms / 1000 + PROBE_TIMEOUT_S
        try:
            async with asyncio.timeout(asked_for_s):
                reached = await self._agents[by].probe.remote(peer, self._probe_key)
        except (ray.exceptions.RayError, KeyError, TimeoutError) as error:
            log.info("probe_not_made", node=peer.node_id, by=by, error=first_line(error))
            return
        self._handle(events.NodeProbed(peer.node_id, by, reached, at=time.time()))

    async def _retire(self, node_id: str) -> None:
        """Ray starts nothing more there; then the raylet is asked to end, for our agent itself keeps it from idling."""
        await self._journal.kept()
        await asyncio.to_thread(ray_state.drain_node, node_id, "drained by noodle-ray")
        try:
            await self._agents[node_id].leave.remote()
        except (ray.exceptions.RayError, KeyError) as error:
            log.info("node_leaves", node=node_id, error=first_line(error))  # it may be gone before it has answered

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
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
        live = await asyncio.to_thread(ray_state.live_nodes)
        self._follow_nodes(live)
        await self._end_jobs()
        await self._view.look()
        self._observe_others(live)
        if time.monotonic() - self._compared_at >= COMPARE_INTERVAL_S:
            self._compared_at = time.monotonic()
            await self._compare()
        self._tick()
        await self._price()
        away_s = self._database.health().away_s or 0.0
        self._metrics.export({**self._core.figures(time.time()), "store_away_seconds": away_s})

    async def _watch_store(self) -> None:
        while True:
            await asyncio.sleep(STORE_INTERVAL_S)
            await asyncio.to_thread(self._database.check)

    def _follow_nodes(self, live: Mapping[str, ray_state.RayNode]) -> None:
        now = time.time()
        known = {node.id for node in self._core.nodes()}
        for node_id in sorted(known - live.keys()):
            self._agents.pop(node_id, None)
            self._measured.pop(node_id, None)
            self._raylet_ports.pop(node_id, None)
            self._handle(events.NodeLeft(node_id, at=now))
        for node_id in sorted(live.keys() - known):
            node = live[node_id]
            self._handle(events.NodeJoined(node.id, node.name, node.address, node.resources, node.pretended, at=now))
        for node_id in sorted(live.keys() - self._agents.keys()):
            self._raylet_ports[node_id] = live[node_id].raylet_port
            self._agents[node_id] = self._start_agent(live[node_id])
            self._spawn(self._greet(node_id))

    async def _greet(self, node_id: str) -> None:
        """An agent from before a restart of this manager does not tell it again where it answers."""
        try:
            address, port = await self._agents[node_id].endpoint.remote()
        except (ray.exceptions.RayError, KeyError) as error:
            log.info("agent_not_greeted", node=node_id, error=first_line(error))
            return
        await self.agent_started(node_id, address, port)

    def _start_agent(self, node: ray_state.RayNode) -> Any:
        return _NodeAgents.options(
            name=agent_name(node.id),
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
        ).remote(node.id, ray.get_actor(NODE_MANAGER, NAMESPACE), self._settings, node.resources.gpus > 0)

    async def _end_jobs(self) -> None:
        owners = {allocation.owner for allocation in self._core.allocations()} - {""}
        if owners:
            ended = await asyncio.to_thread(ray_state.ended_jobs)
            for owner in sorted(owners & {f"job:{job}" for job in ended}):
                self._handle(events.OwnerGone(owner, at=time.time()))

    def _observe_others(self, live: Mapping[str, ray_state.RayNode]) -> None:
        """Tells the core what others use: what is neither free nor our groups', where the view has all of those."""
        for node_id, free in self._view.free.items():
            ours = self._groups.used_by_us(node_id)
            if ours is not None and node_id in live:
                self._handle(_others(node_id, live[node_id].resources, free, ours))

    async def _compare(self) -> None:
        """Looks for differences between our groups and Ray's, and for what the autoscaler may launch."""
        for name in self._groups.vanished():
            if await asyncio.to_thread(ray_state.group_named, name) is None:
                allocation_id, _, epoch = name.rpartition(".")
                self._groups.forget(name)
                self._handle(events.GroupVanished(allocation_id, int(epoch), at=time.time()))
        unknown = self._groups.unknown()
        self._others_groups &= unknown
        for group_id in sorted(unknown - self._others_groups):
            group = await asyncio.to_thread(ray_state.group_with_id, group_id)
            if group is None:
                self._others_groups.add(group_id)
            elif self._groups.name_of(group_id) is None:
                self._handle(events.GroupFound(group.name, at=time.time()))
        self._handle(events.NodeTypesSeen(await asyncio.to_thread(autoscaler.node_types), at=time.time()))

    async def _price(self) -> None:
        """Computes prices anew when the workload has changed enough, beside everything else."""
        inputs = self._core.price_inputs()
        if inputs is not None:
            prices = await asyncio.to_thread(compute, inputs)
            self._handle(events.Priced(prices, at=time.time()))


async def _within(seconds: float, answer: asyncio.Future[Any]) -> None:
    """Waits for it, but not for longer."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.shield(answer)


def _others(
    node_id: str, total: NodeResources, free: Mapping[str, float], ours: Mapping[str, float]
) -> events.OthersObserved:
    def used(name: str, whole: int) -> int:
        return max(whole - to_units(free.get(name, 0.0)) - to_units(ours.get(name, 0.0)), 0)

    memory = max(total.memory_bytes - int(free.get("memory", 0)) - int(ours.get("memory", 0)), 0)
    custom = {name: used(name, whole) for name, whole in total.custom_units.items()}
    amounts = {CPUS: used("CPU", total.cpu_units), MEMORY: memory, **custom}
    return events.OthersObserved(node_id, amounts, used("GPU", total.gpus * to_units(1)), at=time.time())
