"""Any history: claims, failures, duplicates, nodes coming and going, and crashes at any point, keep the promises."""

from collections.abc import Iterator
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from manager_helpers import METRICS, SETTINGS

from noodle_ray.errors import DoesNotFit
from noodle_ray.nodes import events as ev
from noodle_ray.nodes.instructions import CreateGroup, Granted, Instruction, Keep, Refused, RemoveGroup
from noodle_ray.nodes.leases import RESERVING_S, SOON_S
from noodle_ray.nodes.manager import OWN_STALL_S, Manager
from noodle_ray.nodes.peers import Endpoint, Observation
from noodle_ray.placement.allocation import Allocation, Bundle
from noodle_ray.placement.claim import Claim
from noodle_ray.placement.request import Request
from noodle_ray.resources import UNITS, Demand, NodeResources
from noodle_ray.store.changes import Put

RESOURCES = NodeResources.of(cpus=4, gpus=2)
REQUESTS = st.sampled_from(
    [
        *map(
            Request.of, [Demand(cpus=1), Demand(cpus=4), Demand(gpu_share=0.3), Demand(gpu_share=0.6), Demand(gpus=2)]
        ),
        Request(bundles=(Demand(cpus=3), Demand(cpus=3))),
        Request(bundles=(Demand(gpu_share=0.6), Demand(gpus=1)), strategy="strict-pack"),
        Request(bundles=(Demand(cpus=1),) * 3, strategy="strict-spread"),
        Request(bundles=(Demand(cpus=1),), anti_affinity="db"),
    ]
)


class ManagerHistory(RuleBasedStateMachine):
    """The manager between a store that keeps rows and a Ray that has groups, either of which may lag behind."""

    def __init__(self) -> None:
        super().__init__()
        self.manager = Manager(SETTINGS)
        self.store: dict[str, Any] = {}
        self.groups: dict[str, tuple[Bundle, ...]] = {}  # what Ray has reserved
        self.pending: list[CreateGroup | RemoveGroup] = []
        self.alive: set[str] = set()
        self.answered: set[str] = set()
        self.count = 0
        self.now = 0.0
        self.is_settled = True
        self.before: set[str] = set()
        """Allocations of before a restart: how long they were to be waited for is not known any more."""
        self.forgiven_until = 0.0
        """After a stall of the manager's own, what Ray is to reserve has a few moments more."""

    @initialize()
    def a_fleet(self) -> None:
        self.add_node()  # a small one: who claims something often has to wait

    def handle(self, event: Any) -> None:
        self.is_settled = isinstance(event, ev.Tick)
        for instruction in self.manager.handle(event):
            self.perform(instruction)

    def perform(self, instruction: Instruction) -> None:
        match instruction:
            case Keep(Put("allocations", key, document)):
                self.store[key] = document
            case Keep(change) if change.table == "allocations":
                self.store.pop(change.key, None)
            case CreateGroup():
                # A group is created only after its intent is kept.
                row = self.store[instruction.allocation_id]
                assert instruction.epoch in (row["epoch"], (row["spare"] or {}).get("epoch"))
                self.pending.append(instruction)
            case RemoveGroup():
                self.pending.append(instruction)
            case Granted(allocation):
                assert allocation.group in self.groups
                self.answered.add(allocation.id)
            case Refused(key, _):
                self.answered.add(key)

    @rule()
    def add_node(self) -> None:
        self.count += 1
        self.alive.add(f"n{self.count}")
        self.handle(ev.NodeJoined(f"n{self.count}", "n", "x", RESOURCES, False, self.now))

    @rule(data=st.data())
    def lose_node(self, data: st.DataObject) -> None:
        if self.alive:
            node = data.draw(st.sampled_from(sorted(self.alive)))
            self.alive.remove(node)
            self.handle(ev.NodeLeft(node, self.now))

    @rule(node=st.integers(1, 3), cordoned=st.booleans())
    def cordon(self, node: int, cordoned: bool) -> None:
        self.handle(ev.NodeCordoned(f"n{node}", cordoned, self.now))

    @rule(node=st.integers(1, 3), seconds=st.sampled_from([0.0, 6.0]))
    def drain(self, node: int, seconds: float) -> None:
        self.handle(ev.DrainRequested(f"n{node}", self.now + seconds, self.now))

    @rule(data=st.data())
    def a_holder_moves(self, data: st.DataObject) -> None:
        ready = [a for a in self.manager.allocations() if a.spare is not None and a.spare.ready]
        if ready:
            one = data.draw(st.sampled_from(ready))
            assert one.spare is not None
            self.handle(ev.MoveConfirmed(one.id, one.spare.epoch, self.now))

    @rule(node=st.integers(1, 3), state=st.sampled_from(["silent", "gone", "heard"]), dead=st.booleans())
    def others_observe(self, node: int, state: Any, dead: bool) -> None:
        """Agents say that a node is silent, or gone, although Ray has it still; and that it is back."""
        for number in (1, 2, 3):
            self.handle(ev.AgentStarted(f"n{number}", Endpoint("x", number, number), self.now))
        self.handle(ev.PeersObserved("n0", (Observation(f"n{node}", state, 3.0),), self.now))
        for by in ("p1", "p2") if dead else ():
            self.handle(ev.NodeProbed(f"n{node}", by, False, self.now))

    @rule(node=st.integers(1, 3), cpus=st.sampled_from([0, 10_000, 40_000]))
    def others_use_some(self, node: int, cpus: int) -> None:
        self.handle(ev.OthersObserved(f"n{node}", {"cpus": cpus}, 0, self.now))

    @rule(
        request=REQUESTS,
        lease=st.sampled_from([None, 5.0]),
        owner=st.sampled_from(["", "job:1"]),
        priority=st.integers(0, 1),
        wait_s=st.sampled_from([0.0, 3.0, None, None]),
        on_loss=st.sampled_from(["fail", "restart", "standby"]),
    )
    def claim(
        self, request: Request, lease: float | None, owner: str, priority: int, wait_s: float | None, on_loss: str
    ) -> None:
        self.count += 1
        more: Any = {"lease_s": lease, "owner": owner, "priority": priority, "wait_s": wait_s, "on_loss": on_loss}
        claim = Claim(id=f"a{self.count}", request=request, **more)
        self.handle(ev.Claimed(claim, self.now))
        self.handle(ev.Claimed(claim, self.now))

    @rule(data=st.data(), fails=st.booleans(), twice=st.booleans())
    def ray_does_one_thing(self, data: st.DataObject, fails: bool, twice: bool) -> None:
        if not self.pending:
            return
        order = self.pending.pop(data.draw(st.integers(0, len(self.pending) - 1)))
        outcome = self.outcome(order, fails)
        for _ in range(1 + twice):
            self.handle(outcome)

    def outcome(self, order: CreateGroup | RemoveGroup, fails: bool) -> Any:
        if isinstance(order, RemoveGroup):
            self.groups.pop(order.group, None)
            return ev.GroupRemoved(order.allocation_id, order.epoch, self.now)
        bundles = self.bundles_of(order)
        if fails or bundles is None or not self.ray_has_room(bundles):
            return ev.GroupFailed(order.allocation_id, order.epoch, "no", self.now)
        self.groups[order.group] = bundles
        return ev.GroupCreated(order.allocation_id, order.epoch, self.now)

    def bundles_of(self, order: CreateGroup) -> tuple[Bundle, ...] | None:
        """The demands behind an order; None where it was given up meanwhile."""
        row = self.store.get(order.allocation_id)
        if row is None:
            return None
        kept = Allocation.parse(row)
        if kept.spare is not None and kept.spare.epoch == order.epoch:
            return kept.spare.bundles
        return kept.bundles if kept.epoch == order.epoch else None

    def ray_has_room(self, bundles: tuple[Bundle, ...]) -> bool:
        there = [bundle for group in self.groups.values() for bundle in group]
        return all(bundle.node_id in self.alive for bundle in bundles) and all(
            sum(b.demand.cpu_units for b in (*there, *bundles) if b.node_id == node) <= RESOURCES.cpu_units
            for node in self.alive
        )

    @rule()
    def ray_catches_up(self) -> None:
        self.do_all_that_is_pending()

    @rule(data=st.data(), knows_home=st.booleans())
    def release(self, data: st.DataObject, knows_home: bool) -> None:
        if self.store:
            key = data.draw(st.sampled_from(sorted(self.store)))
            fence = self.manager.allocation(key).group if knows_home else None
            self.handle(ev.ReleaseRequested(key, self.now, fence))

    @rule(seconds=st.sampled_from([1.0, 6.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        if seconds > OWN_STALL_S:
            self.forgiven_until = self.now + SOON_S
        for node in sorted(self.alive):
            self.handle(ev.NodeReported(node, METRICS, self.now))
        self.handle(ev.Tick(self.now))

    @rule()
    def owner_ends(self) -> None:
        self.handle(ev.OwnerGone("job:1", self.now))

    @rule(data=st.data())
    def a_group_vanishes(self, data: st.DataObject) -> None:
        held = [a for a in self.manager.allocations() if a.state == "held" and a.group in self.groups]
        if held:
            one = data.draw(st.sampled_from(held))
            self.groups.pop(one.group)
            self.handle(ev.GroupVanished(one.id, one.epoch, self.now))

    @rule(rows_first=st.booleans())
    def crash(self, rows_first: bool) -> None:
        """Whatever was on its way is forgotten; the store and Ray stay as they are."""
        self.manager, self.pending, self.before = Manager(SETTINGS), [], set(self.store)
        recovered = ev.Recovered(tuple(self.store.values()), (), frozenset(self.groups), self.now)
        joins = [ev.NodeJoined(node, "n", "x", RESOURCES, False, self.now) for node in sorted(self.alive)]
        for event in [recovered, *joins] if rows_first else [*joins, recovered]:
            self.handle(event)

    # -- what must hold at any time

    def placed(self, *states: str) -> Iterator[Bundle]:
        """The bundles, on nodes that are there, of allocations in these states."""
        for allocation in self.manager.allocations():
            if allocation.state in states:
                bundles = (*allocation.bundles, *(allocation.spare.bundles if allocation.spare else ()))
                yield from (bundle for bundle in bundles if bundle.node_id in self.in_ledger)

    @property
    def in_ledger(self) -> set[str]:
        """The nodes that are there, and not held for dead."""
        return {node.id for node in self.manager.nodes() if node.state != "dead"}

    @invariant()
    def nothing_is_promised_twice(self) -> None:
        mine = list(self.placed("reserving", "held", "releasing"))
        for node in self.alive:
            there = [bundle for bundle in mine if bundle.node_id == node]
            assert sum(bundle.demand.cpu_units for bundle in there) <= RESOURCES.cpu_units
            for index in range(RESOURCES.gpus):
                assert sum(b.demand.gpu_units for b in there if index in b.gpu_indices) <= UNITS

    @invariant()
    def all_or_nothing(self) -> None:
        for a in self.manager.allocations():
            assert len(a.bundles) == (0 if a.state == "waiting" else len(a.request.bundles))
            assert a.state == "waiting" or [b.demand for b in a.bundles] == list(a.request.bundles)
            if a.request.strategy == "strict-spread":
                assert len(a.node_ids) == len(a.bundles)

    @invariant()
    def the_ledger_is_the_sum_of_the_allocations(self) -> None:
        held = self.manager.totals()["cpus"]["held"]
        known = sum(bundle.demand.cpus for bundle in self.placed("reserving", "held", "releasing"))
        leaving = sum(b.demand.cpus for bundles in self.leaving() for b in bundles if b.node_id in self.in_ledger)
        lost = sum(bundle.demand.cpus for bundle in self.placed("lost"))
        assert known <= held <= known + lost + leaving
        assert {a.id for a in self.manager.allocations()} == set(self.store)

    def leaving(self) -> Iterator[tuple[Bundle, ...]]:
        """What was booked for homes that are not theirs any more, until Ray has let go of them."""
        placed = [a for a in self.manager.allocations() if a.state != "waiting"]
        mine = {name for a in placed for name in (a.group, a.spare_group)}
        pool = self.manager._leases.pool
        for order in {order.group for order in self.pending if isinstance(order, RemoveGroup)} - mine:
            if pool.holds(order):
                yield pool.bundles(order)

    @invariant()
    def who_waits_has_a_place_and_a_reason(self) -> None:
        waiting = [a for a in self.manager.allocations() if a.state == "waiting"]
        assert sorted(a.position or 0 for a in waiting) == list(range(1, len(waiting) + 1))
        assert self.manager.totals()["waiting"] == len(waiting)
        assert all(a.waits_for and a.explanation for a in waiting)

    @invariant()
    def nobody_waits_for_room_that_is_there(self) -> None:
        """Once time has passed: whoever waits does not fit, but for nodes that are kept for the first in the order."""
        if not self.is_settled:
            return
        for waiting in self.manager.allocations():
            if waiting.state == "waiting":
                try:
                    self.manager._leases.planner.plan(waiting.request, waiting.policy, for_id=waiting.id)
                except DoesNotFit:
                    continue
                raise AssertionError(f"{waiting.id} fits and waits: {waiting.waits_for}")

    @invariant()
    def nodes_are_kept_for_the_first_only(self) -> None:
        if self.is_settled:
            first = {a.id for a in self.manager.allocations() if a.position == 1}
            assert set(self.manager._leases.pool.earmarks.values()) <= first

    @invariant()
    def nobody_waits_past_the_deadline(self) -> None:
        if self.is_settled:
            limited = [a for a in self.manager.allocations() if a.wait_until is not None]
            assert all((a.wait_until or 0) > self.now for a in limited if a.state == "waiting")
            known = self.answered | self.before
            never_held = [a for a in limited if a.state == "reserving" and a.id not in known]
            limits = [max(a.wait_until or 0, a.created_at + RESERVING_S, self.forgiven_until) for a in never_held]
            assert all(limit > self.now for limit in limits)

    def teardown(self) -> None:
        """Left alone, everything settles: each held allocation has its group, and there are no others."""
        for _ in range(3):
            self.do_all_that_is_pending()
            self.time_passes(31.0)
        self.do_all_that_is_pending()
        there = {name for name, bundles in self.groups.items() if any(b.node_id in self.alive for b in bundles)}
        allocations = self.manager.allocations()
        homes = {a.group for a in allocations if a.state == "held"}
        assert there == homes | {a.spare_group for a in allocations if a.spare}
        known = sum(bundle.demand.cpus for bundle in self.placed("held"))
        assert self.manager.totals()["cpus"]["held"] == known
        assert {a.state for a in allocations} <= {"held", "lost", "waiting"}
        assert {a.id for a in allocations if a.state == "held"} <= self.answered | set(self.store)
        self.nobody_waits_for_room_that_is_there()

    def do_all_that_is_pending(self) -> None:
        for _ in range(300):
            if not self.pending:
                return
            self.handle(self.outcome(self.pending.pop(0), fails=False))
        raise AssertionError("it does not come to rest")


TestManagerHistory = ManagerHistory.TestCase
TestManagerHistory.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
