"""The invariants: what must hold after every event, and what must hold once everything has healed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from noodle_ray.errors import DoesNotFit
from noodle_ray.nodes import events
from noodle_ray.nodes import instructions as do
from noodle_ray.nodes.detector import VOTES
from noodle_ray.nodes.manager import Manager
from noodle_ray.placement.allocation import Allocation
from noodle_ray.placement.ledger import ResourcePool
from noodle_ray.placement.planner import Planner
from noodle_ray.settings import Settings
from noodle_ray.simulation.cluster import Cluster
from noodle_ray.simulation.faults import STALL_S
from noodle_ray.simulation.head import POLICY
from noodle_ray.simulation.network import HEAD
from noodle_ray.simulation.ray_model import RayGroup
from noodle_ray.store.changes import Document

TOLERANCE_S = 0.6
"""A node is stalled between two probes; and half a second is how finely the watches look."""

LATE_S = 4.0
"""How long news that was true may be on its way: a probe, its answer, and packets that are sent again."""


@dataclass(frozen=True, slots=True)
class Violation:
    """What did not hold, when."""

    at: float
    invariant: str
    details: str

    def __str__(self) -> str:
        return f"{self.at:.3f} s: {self.invariant}: {self.details}"


class Broken(Exception):
    """An invariant does not hold."""

    def __init__(self, invariant: str, details: str) -> None:
        super().__init__(f"{invariant}: {details}")
        self.invariant, self.details = invariant, details


class Checker:
    """Watches one cluster. `check` is called after every event, and costs nothing where nothing changed."""

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        self._cluster = cluster
        self._limit_s = (settings.node_suspect_after_ms + settings.node_confirm_ms) / 1000 - TOLERANCE_S
        self._probe_s = settings.node_probe_interval_ms / 1000
        self._seen = (-1, -1)
        self._impaired: dict[str, float] = {}
        self._was_impaired: dict[str, tuple[float, float]] = {}
        self._confirmed: dict[str, set[str]] = {}
        self._life = 0
        cluster.changed = self._note_impaired
        cluster.head.hear = self._hear
        cluster.head.heard = self._heard
        cluster.head.on_create = self._created
        cluster.head.on_not_freed = self._not_freed

    def check(self) -> None:
        """Raises Broken."""
        head, ray = self._cluster.head, self._cluster.ray
        seen = (head.decisions, ray.changes)
        if head.manager is None or seen == self._seen:
            return
        before, self._seen = self._seen, seen
        pool = head.pool
        if ray.changes != before[1]:
            self._ray_is_not_overbooked()
        _ledger_is_not_overbooked(pool)
        self._nothing_is_left_behind(head.manager)
        self._booked_until_ray_lets_go(pool)
        self._none_is_missing(head.manager)

    # -- after every event

    def _ray_is_not_overbooked(self) -> None:
        ray = self._cluster.ray
        used: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for group in ray.groups.values():
            for node_id in group.on:
                for name, units in group.units_on(node_id).items():
                    used[node_id][name] += units
        for node_id, amounts in used.items():
            capacity = ray.nodes[node_id].capacity
            if any(units > capacity[name] for name, units in amounts.items()):
                raise Broken("Ray reserves no more than a node has", f"{node_id}: {dict(amounts)}")

    def _nothing_is_left_behind(self, manager: Manager) -> None:
        """Every reserved group is the home of its allocation, the spare beside it, or on its way out."""
        head = self._cluster.head
        for name, group in self._cluster.ray.groups.items():
            if group.is_ready and not group.is_leaving and name not in head.removing and not manager.is_current(name):
                raise Broken("an allocation has one home, and at most one spare", f"{name} is there beside it")

    def _booked_until_ray_lets_go(self, pool: ResourcePool) -> None:
        """What a group that was confirmed still reserves in Ray is booked in the ledger."""
        for name, nodes in list(self._confirmed.items()):
            group = self._cluster.ray.groups.get(name)
            if group is None:
                del self._confirmed[name]
                continue
            for node_id in group.on & nodes:
                if pool.has_node(node_id) and not _books(pool, name, node_id):
                    raise Broken("the ledger frees nothing before Ray does", f"{name} on {node_id}")

    def _none_is_missing(self, manager: Manager) -> None:
        missing = self._cluster.clients.granted - {allocation.id for allocation in manager.allocations()}
        if missing:
            raise Broken("nothing that was granted is forgotten", ", ".join(sorted(missing)))

    # -- what the head hears and says

    def _heard(self, event: events.Event) -> None:
        match event:
            case events.Recovered():
                self._confirmed = {name: set(group.on) for name, group in self._held_before(event)}
            case events.NodeLeft(node_id):
                self._forget_node(node_id)

    def _held_before(self, event: events.Recovered) -> Iterator[tuple[str, RayGroup]]:
        """The groups that Ray has of rows that say so."""
        rows = [Allocation.parse(row) for row in event.allocations if row["state"] in ("held", "releasing")]
        for name in [name for row in rows for name in (row.group, row.spare_group)]:
            group = self._cluster.ray.groups.get(name)
            if group is not None and group.is_ready and not group.is_leaving:
                yield name, group

    def _hear(self, instruction: do.Instruction) -> None:
        self._cluster.clients.hear(instruction)
        match instruction:
            case do.Granted(allocation):
                self._confirm(allocation.group)
            case do.RemoveGroup():
                self._forget_unseen(instruction.group)
            case do.Notice("node_dead", message, details):
                self._judge_death(str(details["node"]), message)
                self._forget_node(str(details["node"]))

    def _forget_unseen(self, name: str) -> None:
        """A manager that has just started cannot book what is leaving a node that it has not seen yet."""
        pool = self._cluster.head.pool
        self._confirmed[name] = {node for node in self._confirmed.get(name, ()) if pool.has_node(node)}

    def _not_freed(self, name: str) -> None:
        """Its node did not answer for so long that the manager was told that it is gone."""
        self._confirmed.pop(name, None)

    def _confirm(self, name: str) -> None:
        group = self._cluster.ray.groups.get(name)
        if group is not None and group.is_ready:
            self._confirmed[name] = set(group.on)

    def _forget_node(self, node_id: str) -> None:
        """What was on it is given up: it comes back empty, if it does."""
        for nodes in self._confirmed.values():
            nodes.discard(node_id)

    def _created(self, order: do.CreateGroup) -> None:
        manager = self._cluster.head.manager
        assert manager is not None
        row = self._cluster.store.tables["allocations"].get(order.allocation_id)
        if manager.is_current(order.group) and (row is None or row["last_epoch"] < order.epoch):
            raise Broken("a group is made only after its intent is kept", order.group)

    # -- who may be held for dead

    def _note_impaired(self) -> None:
        """Since when each node does not run, or is cut off from the head or from those whose votes count."""
        cluster = self._cluster
        for node_id in [*cluster.node_ids(), *self._impaired]:
            if self._is_impaired(node_id):
                self._impaired.setdefault(node_id, self._away_since(node_id))
            elif node_id in self._impaired:
                self._was_impaired[node_id] = (self._impaired.pop(node_id), cluster.world.now)

    def _away_since(self, node_id: str) -> float:
        """Now; or as long as it was away before, if it was back for less than a probe: few can have heard it then."""
        now = self._cluster.world.now
        since, until = self._was_impaired.get(node_id, (now, float("-inf")))
        return since if now - until < self._probe_s else now

    def _is_impaired(self, node_id: str) -> bool:
        cluster = self._cluster
        node = cluster.ray.nodes.get(node_id)
        if node is None or not node.runs or not cluster.network.connected(HEAD, node_id):
            return True
        return sum(not cluster.network.connected(node_id, other) for other in cluster.node_ids()) >= VOTES

    def _judge_death(self, node_id: str, message: str) -> None:
        now = self._cluster.world.now
        node = self._cluster.ray.nodes.get(node_id)
        if node is None or node.ports_closed:
            return
        since, until = self._was_impaired.get(node_id, (0.0, 0.0))
        for_s = now - self._impaired.get(node_id, now)
        paused_at, resumed_at = self._cluster.head.last_pause
        heard_from = paused_at if now - resumed_at <= LATE_S else now  # what came meanwhile was heard afterwards
        if heard_from - until <= LATE_S:
            for_s = max(for_s, until - since)
        # Where packets are lost, a silence may have begun before the stall did; a short stall kills nobody even then.
        if for_s < (self._limit_s if not self._cluster.network.loss else STALL_S + 1e-6):
            raise Broken("nobody is held for dead who was not away for long", f"{message}; {for_s:.2f} s")

    # -- at the end

    def final(self) -> Iterator[str]:
        """What is not yet as it must be once everything has healed and come to rest."""
        head, ray = self._cluster.head, self._cluster.ray
        manager = head.manager
        if manager is None:
            yield "there is no manager"
            return
        yield from self._nodes_agree(manager)
        homes = dict(_homes(manager))
        there = {name for name, group in ray.groups.items() if group.is_ready and not group.is_leaving}
        if set(homes) != there or set(ray.groups) != there:
            yield f"groups: the manager has {sorted(homes)}, Ray {sorted(ray.groups)}"
        yield from _rows_agree(manager, self._cluster.store.tables["allocations"])
        yield from self._ledger_agrees(self._cluster.head.pool)
        yield from _queue_is_served(manager, head.pool)
        yield from self._owners_agree(manager)

    def _nodes_agree(self, manager: Manager) -> Iterator[str]:
        states = {node.id: node.state for node in manager.nodes()}
        if set(states) != set(self._cluster.ray.nodes) or set(states.values()) != {"alive"}:
            yield f"nodes: the manager has {states}, Ray {sorted(self._cluster.ray.nodes)}"
        for node in manager.nodes():
            if node.drain_until is not None:
                yield f"{node.id} was drained and has not left"

    def _ledger_agrees(self, pool: ResourcePool) -> Iterator[str]:
        for node_id in pool.node_ids:
            row = pool.columns.row[node_id]
            booked = (int(pool.held("cpus")[row]), int(pool.gpu_held[row].sum()))
            used = self._cluster.ray.used(node_id)
            if booked != (used["CPU"], used["GPU"]):
                yield f"{node_id}: the ledger books {booked}, Ray {dict(used)}"

    def _owners_agree(self, manager: Manager) -> Iterator[str]:
        clients = self._cluster.clients.clients
        for one in manager.allocations():
            if clients[one.id].state == "ended":
                yield f"{one.id} is {one.state} although nobody has it any more"


def _books(pool: ResourcePool, group: str, node_id: str) -> bool:
    """Under the name of the group, or of the allocation whose home it is."""
    key = group.rpartition(".")[0]
    return any(pool.holds(one) and node_id in {b.node_id for b in pool.bundles(one)} for one in (group, key))


def _ledger_is_not_overbooked(pool: ResourcePool) -> None:
    if (pool.held("cpus") > pool.total("cpus")).any() or (pool.gpu_held > pool.gpu_total).any():
        raise Broken("the ledger books no more than a node has", str(pool.node_ids))


def _homes(manager: Manager) -> Iterator[tuple[str, Allocation]]:
    for one in manager.allocations():
        if one.state in ("held", "reserving", "releasing"):
            yield one.group, one
        if one.spare is not None:
            yield one.spare_group, one


def _rows_agree(manager: Manager, rows: Mapping[str, Document]) -> Iterator[str]:
    wanted = {one.id: (one.epoch, one.state) for one in manager.allocations()}
    kept = {key: (row["epoch"], row["state"]) for key, row in rows.items()}
    if wanted != kept:
        yield f"rows: the manager has {wanted}, the store {kept}"
    moving = [one.id for one in manager.allocations() if one.state in ("reserving", "releasing")]
    if moving:
        yield f"{moving} are still on their way"


def _queue_is_served(manager: Manager, pool: ResourcePool) -> Iterator[str]:
    planner = Planner(pool)
    for one in manager.allocations():
        if one.state == "waiting":
            try:
                planner.plan(one.request, POLICY, for_id=one.id)
            except DoesNotFit:
                continue
            yield f"{one.id} fits and waits: {one.waits_for}"
