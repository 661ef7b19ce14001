"""The head: the process around the manager, which performs its instructions on Ray and the store, as its actor does.

It crashes at any moment and comes back from the rows that were written and the groups that Ray has. It may be held up:
then everything that arrives waits, while Ray and the world go on. Its wall clock may jump. While nothing is on its way
its look at Ray is slower than in earnest (`CALM_WATCH_S`): what it would find is nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from noodle_ray.errors import Conflict, NoodleError, NotFound
from noodle_ray.nodes import events
from noodle_ray.nodes import instructions as do
from noodle_ray.nodes.manager import Manager
from noodle_ray.nodes.metrics import ResourceMetrics
from noodle_ray.nodes.peers import Endpoint, Observation
from noodle_ray.placement.allocation import Allocation
from noodle_ray.placement.ledger import ResourcePool
from noodle_ray.settings import Settings
from noodle_ray.simulation.ray_model import RayModel
from noodle_ray.simulation.store import Store
from noodle_ray.simulation.world import Call, World

WATCH_S = 0.5
CALM_WATCH_S = 8.0
COMPARE_S = 10.0
RETIRES_AFTER_S = 1.0
VOTE_TIMEOUT_S = 2.0
"""How much longer than the probe the answer of whoever probes may take."""

TOLD_AGAIN, TOLD_AGAIN_S = 0.1, (0.0, 20.0)
"""How much of the news of Ray comes twice, and how long after."""

POLICY = "best-fit"
STARTED_AT = 1_800_000_000.0
"""The wall clock at the beginning, in seconds since 1970."""

MakeEvent = Callable[[float], events.Event]


@dataclass(slots=True)
class Known:
    """A group that this manager's process knows of, because it asked for it or found its row."""

    is_ready: bool
    is_leaving: bool = False


class Head:
    """The manager's process. `life` counts its starts: what was begun in an earlier one comes to nothing."""

    def __init__(self, world: World, ray: RayModel, store: Store, settings: Settings) -> None:
        self._world, self._ray, self._store, self._settings = world, ray, store, settings
        self._random = world.stream("head")
        self.manager: Manager | None = None
        self.pool = ResourcePool()
        self.life = 0
        self.wall_offset_s = STARTED_AT
        self._paused, self._paused_at = 0, 0.0
        self.last_pause = (0.0, 0.0)
        self._inbox: list[Call] = []
        self._greeted: set[str] = set()
        self.known: dict[str, Known] = {}
        self._compared_at = 0.0
        self.on_watch: Callable[[do.WatchPeers], None] = lambda order: None
        self.on_probe: Callable[[do.ProbeNode], None] = lambda order: None
        self.on_greet: Callable[[str], None] = lambda node_id: None
        self.on_retire: Callable[[str], None] = lambda node_id: None
        self.hear: Callable[[do.Instruction], None] = lambda instruction: None
        self.heard: Callable[[events.Event], None] = lambda event: None
        self.on_create: Callable[[do.CreateGroup], None] = lambda order: None
        self.on_not_freed: Callable[[str], None] = lambda group: None
        self.ended_jobs: Callable[[], frozenset[str]] = frozenset
        self.is_busy: Callable[[], bool] = lambda: True
        self.removing: set[str] = set()
        self._others: dict[str, Counter[str]] = {}
        self.decisions = 0

    # -- its life

    def start(self) -> None:
        """Recovers from rows and groups, as a manager does that comes after another, or after none."""
        if self.manager is not None:
            return
        self.life += 1
        self._inbox, self._greeted, self.removing, self._others = [], set(), set(), {}
        self.manager = Manager(self._settings, POLICY)
        self.pool = self.manager.snapshot(0.0).pool
        groups = self._ray.groups
        rows = self._store.tables
        homes = {name for row in rows["allocations"].values() for name in _homes(Allocation.parse(row))}
        self.known = {name: Known(groups[name].is_ready) for name in sorted(homes & groups.keys())}
        self._handle(
            events.Recovered(
                tuple(rows["allocations"].values()),
                tuple(rows["nodes"].values()),
                frozenset(groups),
                self.wall(),
                frozenset(name for name, group in groups.items() if not group.is_ready),
            )
        )
        self._watch(self.life)

    def crash(self) -> None:
        """Whatever it had not written, and all that was on its way to it, is gone."""
        self.manager = None
        self._store.crash()
        self._ray.forget_what_waits()

    def pause(self) -> None:
        self._paused_at = self._paused_at if self._paused else self._world.now
        self._paused += 1

    def resume(self) -> None:
        self._paused -= 1
        if not self._paused:
            self.last_pause = (self._paused_at, self._world.now)
            inbox, self._inbox = self._inbox, []
            for call in inbox:
                call()

    def wall(self) -> float:
        """Its wall clock."""
        return self._world.now + self.wall_offset_s

    @property
    def is_up(self) -> bool:
        return self.manager is not None and not self._paused

    def _in_life(self, call: Call) -> Call:
        """The call, as long as this life lasts; held up while the process is."""
        life = self.life

        def run() -> None:
            if life != self.life or self.manager is None:
                return
            if self._paused:
                self._inbox.append(run)
            else:
                call()

        return run

    # -- what others tell it

    def receive(self, make: MakeEvent, failed: Callable[[NoodleError], None] | None = None) -> None:
        """Handles the event as soon as it runs; nothing hears it while there is no manager."""

        def take() -> None:
            try:
                self._handle(make(self.wall()))
            except (Conflict, NotFound) as error:
                if failed is not None:
                    failed(error)

        self._in_life(take)()

    def reported(self, node_id: str, metrics: ResourceMetrics, endpoint: Endpoint) -> None:
        self.receive(lambda at: events.NodeReported(node_id, metrics, at, endpoint))

    def agent_started(self, node_id: str, endpoint: Endpoint) -> None:
        self._greeted.add(node_id)
        self.receive(lambda at: events.AgentStarted(node_id, endpoint, at))

    def peers_observed(self, by: str, seen: tuple[Observation, ...]) -> None:
        self.receive(lambda at: events.PeersObserved(by, seen, at))

    def probed(self, node_id: str, by: str, reached: bool, asked_at: float, life: int) -> None:
        too_late = asked_at + self._settings.node_confirm_ms / 1000 + VOTE_TIMEOUT_S
        if life == self.life and self._world.now <= too_late:
            self.receive(lambda at: events.NodeProbed(node_id, by, reached, at))

    # -- performing

    def _handle(self, event: events.Event) -> None:
        assert self.manager is not None
        self.heard(event)
        self._world.note(type(event).__name__)
        orders = self.manager.handle(event)
        self.decisions += bool(orders)
        for instruction in orders:
            self._world.note(_word(instruction))
            self.hear(instruction)
            self._perform(instruction)

    def _perform(self, instruction: do.Instruction) -> None:
        match instruction:
            case do.Keep(change):
                self._store.add(change)
            case do.CreateGroup():
                self._store.kept(self._in_life(lambda: self._create(instruction)))
            case do.RemoveGroup():
                self._leaves(instruction.group)
                self._store.kept(self._in_life(lambda: self._remove(instruction)))
            case do.WatchPeers():
                self.on_watch(instruction)
            case do.ProbeNode():
                self.on_probe(instruction)
            case do.RetireNode(node_id):
                self._store.kept(self._in_life(lambda: self.on_retire(node_id)))
            case _:
                pass  # clients and the checker hear of the others

    def _leaves(self, group: str) -> None:
        self.removing.add(group)
        if group in self.known:
            self.known[group].is_leaving = True

    def _create(self, order: do.CreateGroup) -> None:
        self.on_create(order)
        self.known[order.group] = known = Known(is_ready=False)

        def created(problem: str | None, lacking: tuple[str, ...]) -> None:
            known.is_ready = problem is None
            if problem is None:
                self._confirm(lambda at: events.GroupCreated(order.allocation_id, order.epoch, at))
            else:
                self._confirm(lambda at: events.GroupFailed(order.allocation_id, order.epoch, problem, at, lacking))

        self._ray.create(order.group, order.bundles, self._outcome(created))

    def _outcome(self, created: Callable[[str | None, tuple[str, ...]], None]) -> Callable[..., None]:
        life = self.life

        def done(problem: str | None, lacking: tuple[str, ...]) -> None:
            if life == self.life:
                self._in_life(lambda: created(problem, lacking))()

        return done

    def _remove(self, order: do.RemoveGroup) -> None:
        life = self.life

        def removed(freed: bool) -> None:
            if life == self.life:
                if not freed:
                    self.on_not_freed(order.group)
                self.known.pop(order.group, None)
                self.removing.discard(order.group)
                self._confirm(lambda at: events.GroupRemoved(order.allocation_id, order.epoch, at))

        self._ray.remove(order.group, removed)

    def _confirm(self, make: MakeEvent) -> None:
        """News of Ray, a moment late; some of it comes again, long after."""
        again = self._in_life(lambda: self.receive(make))
        self.receive(make)
        if self._random.random() < TOLD_AGAIN:
            self._world.after(self._random.uniform(*TOLD_AGAIN_S), again)

    # -- watching Ray

    def _watch(self, life: int) -> None:
        if life != self.life or self.manager is None:
            return
        if not self._paused:
            self._watch_once(self.manager)
        self._world.after(WATCH_S if self.is_busy() else CALM_WATCH_S, lambda: self._watch(life))

    def _watch_once(self, manager: Manager) -> None:
        self._follow_nodes(manager)
        if self.is_busy():
            self._observe_others()
        self._end_jobs(manager)
        if self._world.now - self._compared_at >= COMPARE_S:
            self._compared_at = self._world.now
            self._compare()
        self.tick()

    def tick(self) -> None:
        self.receive(events.Tick)

    def _follow_nodes(self, manager: Manager) -> None:
        live = self._ray.nodes
        known = {node.id for node in manager.nodes()}
        for node_id in sorted(known - live.keys()):
            self._greeted.discard(node_id)
            self._others.pop(node_id, None)
            self.receive(lambda at, node_id=node_id: events.NodeLeft(node_id, at))  # type: ignore[misc]
        for node_id in sorted(live.keys() - known):
            node = live[node_id]
            self.receive(
                lambda at, node=node: events.NodeJoined(node.id, f"n{node.slot}", "10.0.0.1", node.resources, False, at)  # type: ignore[misc]
            )
        for node_id in sorted(live.keys() - self._greeted):
            self.on_greet(node_id)

    def _observe_others(self) -> None:
        """What Ray holds that this process knows nothing of counts as others'. Told where it is another than before."""
        strange = [group for name, group in self._ray.groups.items() if name not in self.known]
        for node_id in self._ray.nodes:
            units: Counter[str] = Counter()
            for group in strange:
                if node_id in group.on:
                    units.update(group.units_on(node_id))
            if self._others.get(node_id) != units:
                self._others[node_id] = units
                self._tell_of_others(node_id, units["CPU"], units["GPU"])

    def _tell_of_others(self, node_id: str, cpus: int, gpu_units: int) -> None:
        self.receive(lambda at: events.OthersObserved(node_id, {"cpus": cpus}, gpu_units, at))

    def _end_jobs(self, manager: Manager) -> None:
        ended = self.ended_jobs()
        owners = ended and {allocation.owner for allocation in manager.allocations()} & ended
        for owner in sorted(owners):
            self.receive(lambda at, owner=owner: events.OwnerGone(owner, at))  # type: ignore[misc]

    def _compare(self) -> None:
        for name, known in list(self.known.items()):
            if known.is_ready and not known.is_leaving and name not in self._ray.groups:
                allocation_id, _, epoch = name.rpartition(".")
                self.known.pop(name)
                self.receive(lambda at, key=allocation_id, n=int(epoch): events.GroupVanished(key, n, at))  # type: ignore[misc]
        for name in sorted(self._ray.groups.keys() - self.known.keys()):
            self.receive(lambda at, name=name: events.GroupFound(name, at))  # type: ignore[misc]


def _homes(allocation: Allocation) -> tuple[str, ...]:
    return (allocation.group, allocation.spare_group)


def _word(instruction: do.Instruction) -> str:
    match instruction:
        case do.CreateGroup() | do.RemoveGroup():
            return f"{type(instruction).__name__} {instruction.group}"
        case do.Notice(kind, message):
            return f"{kind} {message}"
        case do.Keep(change):
            return f"Keep {change.table} {change.key}"
    return type(instruction).__name__
