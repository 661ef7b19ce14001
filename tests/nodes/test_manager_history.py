"""Any history: requests, failures, duplicates, nodes coming and going, and crashes at any point, keep the promises."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from noodle_ray.nodes import events as ev
from noodle_ray.nodes.instructions import CreateGroup, Instruction, Keep, RemoveGroup
from noodle_ray.nodes.manager import Manager
from noodle_ray.nodes.metrics import ResourceMetrics
from noodle_ray.resources import UNITS, Demand, NodeResources
from noodle_ray.settings import Settings
from noodle_ray.store.changes import Put

SETTINGS = Settings(node_heartbeat_interval_ms=10_000, node_timeout_ms=60_000)
RESOURCES = NodeResources.of(cpus=4, gpus=2)
METRICS = ResourceMetrics(
    cpu_count=2,
    cpu_used_ratio=0.5,
    memory_total_bytes=100,
    memory_used_bytes=50,
    disk_total_bytes=100,
    disk_used_bytes=20,
    network_sent_bytes=0,
    network_received_bytes=0,
    taken_at=0.0,
)
DEMANDS = st.sampled_from(
    [Demand(cpus=1), Demand(cpus=2), Demand(gpu_share=0.3), Demand(gpu_share=0.6), Demand(gpus=1)]
)


class ManagerHistory(RuleBasedStateMachine):
    """The manager between a store that keeps rows and a Ray that has groups, either of which may lag behind."""

    def __init__(self) -> None:
        super().__init__()
        self.manager = Manager(SETTINGS)
        self.store: dict[str, Any] = {}
        self.groups: dict[str, tuple[str, Demand]] = {}  # what Ray has reserved: group → node, demand
        self.pending: list[CreateGroup | RemoveGroup] = []
        self.alive: set[str] = set()
        self.count = 0
        self.now = 0.0

    @initialize()
    def a_fleet(self) -> None:
        self.add_node()
        self.add_node()

    def handle(self, event: Any) -> None:
        self.perform(self.manager.handle(event))

    def perform(self, todo: list[Instruction]) -> None:
        for instruction in todo:
            match instruction:
                case Keep(Put("allocations", key, document)):
                    self.store[key] = document
                case Keep(change) if change.table == "allocations":
                    self.store.pop(change.key, None)
                case CreateGroup() | RemoveGroup():
                    self.pending.append(instruction)

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

    @rule(demand=DEMANDS, lease=st.sampled_from([None, 5.0]), owner=st.sampled_from(["", "job:1"]))
    def request(self, demand: Demand, lease: float | None, owner: str) -> None:
        self.count += 1
        self.handle(ev.AllocationRequested(f"a{self.count}", demand, None, owner, lease, self.now))

    @rule(data=st.data(), fails=st.booleans(), twice=st.booleans())
    def ray_does_one_thing(self, data: st.DataObject, fails: bool, twice: bool) -> None:
        if not self.pending:
            return
        order = self.pending.pop(data.draw(st.integers(0, len(self.pending) - 1)))
        for _ in range(1 + twice):
            self.handle(self.outcome(order, fails))

    def outcome(self, order: CreateGroup | RemoveGroup, fails: bool) -> Any:
        if isinstance(order, RemoveGroup):
            self.groups.pop(order.group, None)
            return ev.GroupRemoved(order.allocation_id, order.epoch, self.now)
        if order.node_id not in self.alive or fails:
            return ev.GroupFailed(order.allocation_id, order.epoch, "no", self.now)
        demand = Demand.parse(self.store[order.allocation_id]["demand"]) if order.allocation_id in self.store else None
        if demand is not None:
            self.groups[order.group] = (order.node_id, demand)
        return ev.GroupCreated(order.allocation_id, order.epoch, self.now)

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if self.store:
            self.handle(ev.ReleaseRequested(data.draw(st.sampled_from(sorted(self.store))), self.now))

    @rule(seconds=st.sampled_from([1.0, 6.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for node in sorted(self.alive):
            self.manager.handle(ev.NodeReported(node, METRICS, self.now))
        self.handle(ev.Tick(self.now))

    @rule()
    def owner_ends(self) -> None:
        self.handle(ev.OwnerGone("job:1", self.now))

    @rule(rows_first=st.booleans())
    def crash(self, rows_first: bool) -> None:
        """Whatever was on its way is forgotten; the store and Ray stay as they are."""
        self.manager, self.pending = Manager(SETTINGS), []
        recovered = ev.Recovered(tuple(self.store.values()), (), frozenset(self.groups), self.now)
        joins = [ev.NodeJoined(node, "n", "x", RESOURCES, False, self.now) for node in sorted(self.alive)]
        for event in [recovered, *joins] if rows_first else [*joins, recovered]:
            self.handle(event)

    @invariant()
    def nothing_is_promised_twice(self) -> None:
        for node in self.alive:
            mine = [a for a in self.manager.allocations() if a.node_id == node and a.state != "lost"]
            assert sum(a.demand.cpu_units for a in mine) <= RESOURCES.cpu_units
            for index in range(RESOURCES.gpus):
                assert sum(a.demand.gpu_units for a in mine if index in a.gpu_indices) <= UNITS

    @invariant()
    def the_ledger_is_the_sum_of_the_allocations(self) -> None:
        mine = [a for a in self.manager.allocations() if a.node_id in self.alive and a.state != "lost"]
        assert self.manager.totals()["cpus"]["held"] == sum(a.demand.cpus for a in mine)
        assert {a.id for a in self.manager.allocations()} == set(self.store)

    def teardown(self) -> None:
        """Left alone, everything settles: each held allocation has its group, and there are no others."""
        for _ in range(100):
            if not self.pending:
                break
            order = self.pending.pop(0)
            self.handle(self.outcome(order, fails=False))
        self.now += 100
        for node in sorted(self.alive):
            self.manager.handle(ev.NodeReported(node, METRICS, self.now))
        self.handle(ev.Tick(self.now))
        while self.pending:
            self.handle(self.outcome(self.pending.pop(0), fails=False))
        there = {group for group, (node, _) in self.groups.items() if node in self.alive}
        held = {a.group for a in self.manager.allocations() if a.state == "held"}
        assert there == held
        assert {a.state for a in self.manager.allocations()} <= {"held", "lost"}


TestManagerHistory = ManagerHistory.TestCase
TestManagerHistory.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
