"""Ray, as the manager sees it: nodes with capacity, and placement groups by name whose bundles are pinned to nodes.

A bundle is reserved when its node has room, runs and is reachable from the head, all bundles of a group at once. Where
the view shows no room, nothing is asked of Ray (as `actors/groups.py` does); a group that was asked for and not
reserved in time stays pending in Ray, and may be reserved later. Removing one frees its amounts node by node. Ray
notices a closed port at once, but gives a silent node up only after half a minute; its groups then miss bundles.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from noodle_ray.nodes.instructions import PinnedBundle
from noodle_ray.resources import NodeResources, to_units
from noodle_ray.simulation.network import HEAD, Network
from noodle_ray.simulation.world import World

LOOK_S = 0.2
ROOM_TIMEOUT_S = 2.0
GROUP_TIMEOUT_S = 5.0
GIVEN_UP_AFTER_S = 30.0
"""For how long a node may be silent before Ray holds it for dead."""

Created = Callable[[str | None, tuple[str, ...]], None]
"""Takes why a group was not reserved (None: it was), and the nodes that lack room."""

Removed = Callable[[bool], None]
"""Takes whether all that the group held is free."""


@dataclass(slots=True)
class RayNode:
    """A node. `exists`: there is a raylet; `stops` of it are going on, and it runs when there are none."""

    id: str
    slot: int
    resources: NodeResources
    exists: bool = True
    stops: int = 0
    ports_closed: bool = False
    silent_since: float | None = None

    @property
    def runs(self) -> bool:
        return self.exists and not self.stops

    @property
    def capacity(self) -> Mapping[str, int]:
        return {"CPU": self.resources.cpu_units, "GPU": to_units(self.resources.gpus)}


@dataclass(slots=True)
class RayGroup:
    """A group. `on`: the nodes where its bundles are reserved now."""

    name: str
    bundles: tuple[PinnedBundle, ...]
    is_ready: bool = False
    is_leaving: bool = False
    on: set[str] = field(default_factory=set)
    node_ids: tuple[str, ...] = field(init=False)
    _units: dict[str, Counter[str]] = field(init=False)

    def __post_init__(self) -> None:
        self.node_ids = tuple(dict.fromkeys(bundle.node_id for bundle in self.bundles))
        self._units = {node_id: Counter() for node_id in self.node_ids}
        for bundle in self.bundles:
            self._units[bundle.node_id].update({name: to_units(amount) for name, amount in bundle.amounts.items()})

    def units_on(self, node_id: str) -> Mapping[str, int]:
        return self._units[node_id]


class RayModel:
    """Nodes and groups. `changes` grows whenever what is reserved changes."""

    def __init__(self, world: World, network: Network) -> None:
        self._world, self._network = world, network
        self._random = world.stream("ray")
        self.nodes: dict[str, RayNode] = {}
        self.groups: dict[str, RayGroup] = {}
        self._asked: dict[str, RayGroup] = {}
        self.changes = 0
        self.on_given_up: Callable[[RayNode], None] = lambda node: None

    # -- nodes

    def join(self, node: RayNode) -> None:
        self.nodes[node.id] = node

    def responds(self, node_id: str) -> bool:
        node = self.nodes.get(node_id)
        return node is not None and node.runs and self._network.connected(HEAD, node_id)

    def look_at_nodes(self) -> None:
        """What Ray's health checks find: to be called after each change of what runs and who is reachable."""
        for node in list(self.nodes.values()):
            if self.responds(node.id):
                node.silent_since = None
            elif node.ports_closed and self._network.connected(HEAD, node.id):
                self._world.after(self._random.uniform(0.1, 1.0), lambda node=node: self.give_up(node.id))  # type: ignore[misc]
            elif node.silent_since is None:
                node.silent_since = self._world.now
                self._world.after(GIVEN_UP_AFTER_S, lambda node=node: self._give_up_if_silent(node))  # type: ignore[misc]

    def _give_up_if_silent(self, node: RayNode) -> None:
        since = node.silent_since
        if node.id in self.nodes and since is not None and self._world.now - since >= GIVEN_UP_AFTER_S - 1e-6:
            self.give_up(node.id)

    def give_up(self, node_id: str) -> None:
        """The node is dead for Ray: its raylet ends when it hears of it, and groups miss what they had there."""
        node = self.nodes.pop(node_id, None)
        if node is None:
            return
        node.exists = False
        self.changes += 1
        for group in list(self.groups.values()):
            if node_id in group.on:
                group.on.discard(node_id)
                group.is_ready = False
                self._drop_if_gone(group)
        self.on_given_up(node)

    # -- what is reserved

    def used(self, node_id: str) -> Counter[str]:
        units: Counter[str] = Counter()
        for group in self.groups.values():
            if node_id in group.on:
                units.update(group.units_on(node_id))
        return units

    def has_room(self, group: RayGroup, node_id: str) -> bool:
        node = self.nodes.get(node_id)
        if node is None:
            return False
        used = self.used(node_id)
        return all(used[name] + units <= node.capacity[name] for name, units in group.units_on(node_id).items())

    def create(self, name: str, bundles: Sequence[PinnedBundle], done: Created) -> None:
        """Reserves all bundles or none; says how that went, by the time-outs at the latest."""
        group = self._asked[name] = RayGroup(name, tuple(bundles))
        self._wait_for_room(group, self._world.now + ROOM_TIMEOUT_S, done)

    def _wait_for_room(self, group: RayGroup, until: float, done: Created) -> None:
        lacking = tuple(node_id for node_id in group.node_ids if not self.has_room(group, node_id))
        if not lacking and not group.is_leaving:
            self._asked.pop(group.name, None)
            self.groups[group.name] = group
            delay = self._random.uniform(0.002, 0.03)
            self._world.after(delay, lambda: self._reserve(group, self._world.now + GROUP_TIMEOUT_S, done))
        elif self._world.now >= until or group.is_leaving:
            self._asked.pop(group.name, None)
            done("there is no room for it", lacking)
        else:
            self._world.after(LOOK_S, lambda: self._wait_for_room(group, until, done))

    def _reserve(self, group: RayGroup, until: float, done: Created | None) -> None:
        """Tries it now and again; after the time-out it is tried on, every second, but nobody waits for it."""
        if self.groups.get(group.name) is not group or group.is_leaving:
            if done is not None:
                done("it was removed meanwhile", ())
            return
        if all(self.responds(node) and self.has_room(group, node) for node in group.node_ids):
            group.on, group.is_ready = set(group.node_ids), True
            self.changes += 1
            if done is not None:
                self._world.after(self._random.uniform(0.001, 0.02), partial(done, None, ()))
            return
        if done is not None and self._world.now >= until:
            done("it was not reserved in time", ())
            done = None
        if all(node in self.nodes for node in group.node_ids):  # else it stays pending for ever
            self._world.after(LOOK_S if done else 1.0, lambda: self._reserve(group, until, done))
        elif done is not None:
            self._world.at(until, partial(done, "it was not reserved in time", ()))

    def remove(self, name: str, done: Removed) -> None:
        """Frees the group; says when that is done, or that it took too long."""
        group = self.groups.get(name)
        if group is None:
            if name in self._asked:
                self._asked[name].is_leaving = True
            self._world.after(self._random.uniform(0.001, 0.01), lambda: done(True))
            return
        group.is_leaving = True
        delay = self._random.uniform(0.01, 0.1)
        self._world.after(delay, lambda: self._free(group, self._world.now + GROUP_TIMEOUT_S, done))

    def _free(self, group: RayGroup, until: float, done: Removed | None) -> None:
        for node_id in [node for node in group.on if self.responds(node)]:
            group.on.discard(node_id)
            self.changes += 1
        self._drop_if_gone(group)
        if done is not None and (not group.on or self._world.now >= until):
            done(not group.on)
            done = None
        if group.on:
            self._world.after(LOOK_S if done else 1.0, lambda: self._free(group, until, done))

    def _drop_if_gone(self, group: RayGroup) -> None:
        if group.is_leaving and not group.on and self.groups.get(group.name) is group:
            del self.groups[group.name]
            self.changes += 1

    def forget_what_waits(self) -> None:
        """Whoever waited for room to ask Ray for a group is gone."""
        for group in self._asked.values():
            group.is_leaving = True
        self._asked.clear()

    def lose_group(self, name: str) -> None:
        """Somebody else removes the group at once."""
        self.groups.pop(name, None)
        self.changes += 1
