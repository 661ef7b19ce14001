"""The cluster: nodes, head, clients and network of one world put together, with a method for each kind of fault."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations, product

from noodle_ray.nodes import events
from noodle_ray.placement.allocation import Allocation
from noodle_ray.resources import NodeResources
from noodle_ray.settings import Settings
from noodle_ray.simulation.agents import Agents
from noodle_ray.simulation.clients import Clients
from noodle_ray.simulation.faults import LOSS, Fault
from noodle_ray.simulation.head import Head, MakeEvent
from noodle_ray.simulation.network import HEAD, Network
from noodle_ray.simulation.ray_model import RayModel, RayNode
from noodle_ray.simulation.store import Store
from noodle_ray.simulation.world import Call, World

NODE = NodeResources.of(cpus=4, gpus=2)

Ways = frozenset[tuple[int, int]]
"""What is cut together, each from one slot to another."""

HEAD_SLOT = -1

UNHEARD = 0.2
"""How many of the nodes that are told to leave do not hear of it."""


class Cluster:
    """One world's cluster. Machines have slots; each time one comes back it is another node for Ray."""

    def __init__(self, world: World, slots: int, settings: Settings) -> None:
        self.world = world
        self._random = world.stream("cluster")
        self.network = Network(world)
        self.ray = RayModel(world, self.network)
        self.store = Store(world)
        self.head = Head(world, self.ray, self.store, settings)
        self.agents = Agents(world, self.network, self.ray, self.head, settings)
        self.clients = Clients(world, self.head, self.store)
        self.changed: Call = lambda: None
        self._in_slot: dict[int, RayNode] = {}
        self._off_until: dict[int, float] = {}
        self._isolated: list[Ways] = []
        self._count = 0
        self._slots = slots
        self.ray.on_given_up = self._given_up
        self.head.on_retire = self._retire
        self.head.is_busy = self._is_busy

    def start(self) -> None:
        for slot in range(self._slots):
            self._boot(slot)
        self.head.start()
        self.clients.start()

    def node_in(self, slot: int) -> RayNode:
        return self._in_slot[slot]

    def node_ids(self) -> list[str]:
        return [node.id for node in self._in_slot.values()]

    def _is_busy(self) -> bool:
        """Whether the head has something to follow closely."""
        manager = self.head.manager
        return (
            manager is None
            or not self.agents.is_quiet
            or any(node.state != "alive" or node.drain_until for node in manager.nodes())
            or any(_is_on_its_way(one) for one in manager.allocations())
            or not manager.nodes()
        )

    # -- machines

    def _boot(self, slot: int) -> None:
        self._count += 1
        node = RayNode(f"n{slot}-{self._count}", slot, NODE)
        self._in_slot[slot] = node
        self.ray.join(node)
        self._rewire()
        self.agents.start(node)

    def _change(self, call: Call) -> None:
        """Whatever changes what runs, and who is reachable, goes through here."""
        self.agents.before_change()
        call()
        self.ray.look_at_nodes()
        self.changed()
        self.agents.look_if_needed()

    def _given_up(self, node: RayNode) -> None:
        """Ray holds the node for dead: its machine starts another raylet when it can."""
        self.changed()
        at = max(self.world.now + self._random.uniform(3, 15), self._off_until.get(node.slot, 0.0))
        self.world.at(at, lambda: self._boot_when_connected(node))

    def _boot_when_connected(self, old: RayNode) -> None:
        if self._in_slot[old.slot] is not old:
            return
        if self.network.connected(HEAD, old.id):
            self._change(lambda: self._boot(old.slot))
        else:
            self.world.after(2.0, lambda: self._boot_when_connected(old))

    def _retire(self, node_id: str) -> None:
        """Sometimes it does not hear of it."""
        if self._random.random() < UNHEARD:
            return
        self.world.after(1.0, lambda: self._change(lambda: self.ray.give_up(node_id)))

    # -- links: cuts are between slots, so that a machine that comes back is still cut off

    def _rewire(self) -> None:
        ids = {slot: node.id for slot, node in self._in_slot.items()} | {HEAD_SLOT: HEAD}
        cut = [(ids[a], ids[b]) for ways in self._isolated for a, b in sorted(ways) if a in ids and b in ids]
        self.network.rewire(cut)

    def _cut(self, ways: Ways, lasts_s: float) -> None:
        self._change(lambda: self._isolate([*self._isolated, ways]))
        self.world.after(lasts_s, lambda: self._change(lambda: self._isolate(_without(self._isolated, ways))))

    def _isolate(self, cuts: list[Ways]) -> None:
        self._isolated = cuts
        self._rewire()

    # -- faults

    def inject(self, fault: Fault) -> None:
        """Has it happen now, and end when it is over."""
        by_kind: dict[str, Callable[[Fault], None]] = {
            "power-cut": self._power_cut,
            "process-kill": self._process_kill,
            "agent-kill": self._agent_kill,
            "freeze": self._freeze,
            "stall": self._freeze,
            "partition": self._partition,
            "deaf": self._deaf,
            "link-cut": self._link_cut,
            "loss": self._loss,
            "manager-crash": self._manager_crash,
            "manager-pause": self._manager_pause,
            "clock-jump": self._clock_jump,
            "drain": self._drain,
            "cordon": self._cordon,
            "group-lost": self._group_lost,
            "job-end": self._job_end,
        }
        self.world.note(str(fault))
        by_kind[fault.kind](fault)

    def _power_cut(self, fault: Fault) -> None:
        self._kill(fault, ports_closed=False)

    def _process_kill(self, fault: Fault) -> None:
        self._kill(fault, ports_closed=True)

    def _kill(self, fault: Fault, ports_closed: bool) -> None:
        node = self._in_slot[fault.slots[0]]
        if node.exists:
            self._off_until[node.slot] = self.world.now + fault.lasts_s
            self._change(lambda: _stop(node, ports_closed))

    def _agent_kill(self, fault: Fault) -> None:
        node = self._in_slot[fault.slots[0]]
        self._change(lambda: self.agents.stop(node.id))

    def _freeze(self, fault: Fault) -> None:
        nodes = [self._in_slot[slot] for slot in fault.slots]
        self._change(lambda: _count_stops(nodes, +1))
        self.world.after(fault.lasts_s, lambda: self._change(lambda: _count_stops(nodes, -1)))

    def _partition(self, fault: Fault) -> None:
        out = set(product(fault.slots, self._outside(fault)))
        self._cut(frozenset(out | {(b, a) for a, b in out}), fault.lasts_s)

    def _deaf(self, fault: Fault) -> None:
        """It hears nobody, and is heard: what it sends arrives, and no answer to it."""
        self._cut(frozenset(product(self._outside(fault), fault.slots)), fault.lasts_s)

    def _outside(self, fault: Fault) -> set[int]:
        return {HEAD_SLOT, *range(self._slots)} - set(fault.slots)

    def _link_cut(self, fault: Fault) -> None:
        self._cut(frozenset(permutations(fault.slots, 2)), fault.lasts_s)

    def _loss(self, fault: Fault) -> None:
        self._change(lambda: self.network.lose(LOSS))
        self.world.after(fault.lasts_s, lambda: self._change(lambda: self.network.lose_no_more(LOSS)))

    def _manager_crash(self, fault: Fault) -> None:
        self.head.crash()
        life = self.head.life
        self.world.after(fault.lasts_s, lambda: self.head.start() if self.head.life == life else None)

    def _manager_pause(self, fault: Fault) -> None:
        self.head.pause()
        self.world.after(fault.lasts_s, self.head.resume)

    def _clock_jump(self, fault: Fault) -> None:
        self.head.wall_offset_s += fault.amount

    def _drain(self, fault: Fault) -> None:
        node_id = self._in_slot[fault.slots[0]].id
        self._command(lambda at: events.DrainRequested(node_id, at + fault.lasts_s, at))

    def _cordon(self, fault: Fault) -> None:
        node_id = self._in_slot[fault.slots[0]].id
        self._command(lambda at: events.NodeCordoned(node_id, True, at))
        self.world.after(fault.lasts_s, lambda: self._command(lambda at: events.NodeCordoned(node_id, False, at)))

    def _command(self, make: MakeEvent) -> None:
        """An operator's wish, repeated until a manager has heard it and lived on."""
        life = self.head.life
        if self.head.is_up:
            self.head.receive(make)
        else:
            life = -1

        def again() -> None:
            if self.head.manager is None or self.head.life != life:
                self._command(make)

        self.world.after(2.0, again)

    def _group_lost(self, fault: Fault) -> None:
        ready = [name for name, group in sorted(self.ray.groups.items()) if group.is_ready and not group.is_leaving]
        if ready:
            self.ray.lose_group(ready[fault.slots[0] % len(ready)])

    def _job_end(self, fault: Fault) -> None:
        self.clients.end_job(fault.slots[0] % (len(self.clients.clients) // 8 + 1))


def _is_on_its_way(allocation: Allocation) -> bool:
    spare = allocation.spare
    return allocation.state in ("reserving", "releasing") or (spare is not None and not spare.ready)


def _stop(node: RayNode, ports_closed: bool) -> None:
    node.exists = False
    node.ports_closed = ports_closed


def _count_stops(nodes: list[RayNode], more: int) -> None:
    for node in nodes:
        node.stops += more


def _without(cuts: list[Ways], over: Ways) -> list[Ways]:
    left = list(cuts)
    left.remove(over)
    return left
