"""Our placement groups: created where Ray's own view has room, and gone when that view shows their amounts free again.

Ray's head schedules from reports of its nodes. A group that was just created is not in them yet, and one that was just
removed still is; what it cannot place at once it looks at again only a second later. So nothing is asked for before
the view has room for it beside all that is not in the reports yet, and a group is removed only after it was seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import ray
import structlog

from noodle_ray.actors import ray_state
from noodle_ray.actors.ray_view import RayView
from noodle_ray.nodes.instructions import PinnedBundle
from noodle_ray.nodes.turns import Turns

log = structlog.get_logger()

A = TypeVar("A")
T = TypeVar("T")

GROUP_TIMEOUT_S = 5.0
ROOM_TIMEOUT_S = 2.0
"""How long Ray's view may lack room that our ledger holds for free; then another home is looked for."""

SEEN_TIMEOUT_S = 0.5
"""How long the nodes' reports of a new group may take: several of Ray's report periods, tuned (10 ms) or not (100)."""

GROUPS_AT_ONCE = 4
"""Groups created or removed side by side. Ray's head schedules one at a time: more gains nothing."""

_EXACT = 1e-6


@dataclass(slots=True)
class Group:
    """One group of ours. Its id is "" until Ray has given it one.

    is_asked: Ray may know of it; is_seen: it was in the nodes' reports.
    """

    name: str
    bundles: tuple[PinnedBundle, ...]
    id: str = ""
    is_asked: bool = False
    is_ready: bool = False
    is_seen: bool = False
    is_leaving: bool = False
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    nodes: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.nodes = tuple(dict.fromkeys(bundle.node_id for bundle in self.bundles))

    def amounts_on(self, node_id: str) -> dict[str, float]:
        return _sum(bundle.amounts.items() for bundle in self.bundles if bundle.node_id == node_id)

    @property
    def gpu_nodes(self) -> list[str]:
        return sorted({bundle.node_id for bundle in self.bundles if bundle.amounts.get("GPU")})


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a group was not created; `lacking` are the nodes without room, where that is the reason."""

    reason: str
    lacking: tuple[str, ...] = ()


class Groups:
    """Creates and removes groups, a few side by side; on one node, those with GPUs one after another.

    Ray gives a bundle its GPUs by what is free at that moment: in the order of our decisions, they are those that the
    ledger expects.
    """

    def __init__(self, view: RayView) -> None:
        self._view = view
        self._turns = Turns(GROUPS_AT_ONCE)
        self._threads = ThreadPoolExecutor(GROUPS_AT_ONCE, thread_name_prefix="groups")
        self._groups: dict[str, Group] = {}
        self._by_id: dict[str, Group] = {}
        self._unseen: dict[str, Group] = {}
        self._lanes: dict[str, asyncio.Lock] = {}

    def adopt(self, group: ray_state.RayGroup, bundles: Sequence[PinnedBundle]) -> None:
        """Takes over a group that a manager before this one has made."""
        adopted = Group(group.name, tuple(bundles), group.id, is_asked=True, is_ready=group.is_ready, is_seen=True)
        adopted.settled.set()
        self._groups[group.name] = self._by_id[group.id] = adopted

    def name_of(self, group_id: str) -> str | None:
        group = self._by_id.get(group_id)
        return None if group is None else group.name

    # -- creating

    async def create(self, name: str, bundles: Sequence[PinnedBundle]) -> Problem | None:
        """Reserves all bundles, each on its node; None when that is done. A group with a problem is to be removed."""
        group = self._groups[name] = Group(name, tuple(bundles))
        try:
            async with self._alone_on(group.gpu_nodes):
                return await self._wait_for_room(group) or await self._create(group)
        finally:
            group.settled.set()

    async def _wait_for_room(self, group: Group) -> Problem | None:
        if not self._take_room(group):
            await self._view.until(lambda: group.is_leaving or self._take_room(group), ROOM_TIMEOUT_S)
        if group.name in self._unseen:
            return None
        lacking = tuple(node for node in group.nodes if not self._has_room(group, node))
        return Problem(f"Ray shows no room for it on {len(lacking)} of {len(group.nodes)} nodes", lacking)

    async def _create(self, group: Group) -> Problem | None:
        try:
            async with self._turns.turn(group.name) as is_ours:
                created = await self._in_thread(_create_unless_leaving, group) if is_ours else None
        except (ray.exceptions.RayError, ValueError) as error:
            self._unseen.pop(group.name, None)
            return Problem(str(error))
        if created is None:
            self._unseen.pop(group.name, None)
            return Problem("it was given up before Ray was asked for it")
        group.id, group.is_ready = created
        self._by_id[group.id] = group
        return None if group.is_ready else Problem(f"Ray did not reserve it within {GROUP_TIMEOUT_S:g} s")

    def _take_room(self, group: Group) -> bool:
        """Whether there is room for all of it; from then on that counts as taken."""
        self._notice_seen()
        if not all(self._has_room(group, node_id) for node_id in group.nodes):
            return False
        self._unseen[group.name] = group
        return True

    def _has_room(self, group: Group, node_id: str) -> bool:
        free = self._view.free.get(node_id, {})
        taken = _sum(other.amounts_on(node_id).items() for other in self._unseen.values())
        return all(
            free.get(name, 0.0) - taken.get(name, 0.0) >= amount - _EXACT
            for name, amount in group.amounts_on(node_id).items()
        )

    def _notice_seen(self) -> None:
        """Groups that the reports have by now do not count beside them any more."""
        for group in list(self._unseen.values()):
            if group.id and self._is_reported(group):
                group.is_seen = True
                del self._unseen[group.name]

    def _is_reported(self, group: Group) -> bool:
        """Whether each of its nodes that is still there has reported it."""
        free = self._view.free
        return all(f"bundle_group_{group.id}" in free[node] for node in group.nodes if node in free)

    # -- removing

    async def remove(self, name: str) -> bool:
        """Removes the group; returns when what it held is free in Ray's view. False where that took too long."""
        group = await self._find(name)
        if group is None:
            return True
        if group.is_ready and not group.is_seen:
            await self._view.until(lambda: self._is_seen(group), SEEN_TIMEOUT_S)
        async with self._alone_on(group.gpu_nodes):
            freed = await self._remove(group)
        self.forget(name)
        return freed

    def forget(self, name: str) -> None:
        """The group is gone."""
        self._unseen.pop(name, None)
        group = self._groups.pop(name, None)
        if group is not None:
            self._by_id.pop(group.id, None)

    async def _remove(self, group: Group) -> bool:
        async with self._turns.turn(group.name, frees=True):
            await self._in_thread(ray_state.remove_group, group.id)
        return await self._view.until(lambda: not self._is_there(group), GROUP_TIMEOUT_S)

    async def _find(self, name: str) -> Group | None:
        group = self._groups.get(name)
        if group is not None:
            group.is_leaving = True
            self._turns.call_off(name)
            await group.settled.wait()
            if group.id:
                return group
            if not group.is_asked:
                self.forget(name)
                return None
        found = await self._in_thread(ray_state.group_named, name)
        if found is None:
            self.forget(name)
            return None
        self.adopt(found, group.bundles if group else ())
        self._groups[name].is_leaving = True
        return self._groups[name]

    async def _in_thread(self, function: Callable[[A], T], argument: A) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, argument)

    def _is_seen(self, group: Group) -> bool:
        self._notice_seen()
        return group.is_seen

    def _is_there(self, group: Group) -> bool:
        """Whether any node still reports it."""
        free = self._view.free
        nodes = group.nodes or tuple(free)
        return any(f"bundle_group_{group.id}" in free.get(node, {}) for node in nodes)

    @asynccontextmanager
    async def _alone_on(self, nodes: Iterable[str]) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for node in nodes:
                await stack.enter_async_context(self._lanes.setdefault(node, asyncio.Lock()))
            yield

    # -- comparing

    def used_by_us(self, node_id: str) -> dict[str, float] | None:
        """What our groups take of the node's amounts in the present view; None while some may or may not be in it."""
        self._notice_seen()
        if any(node_id in group.nodes for group in self._unseen.values()):
            return None
        reported = self._reported_on(node_id)
        return _sum(group.amounts_on(node_id).items() for id_, group in self._by_id.items() if id_ in reported)

    def _reported_on(self, node_id: str) -> set[str]:
        """The ids of all groups, ours and others', that the node has reported."""
        prefix = "bundle_group_"
        names = [name.removeprefix(prefix) for name in self._view.free.get(node_id, {}) if name.startswith(prefix)]
        return {name for name in names if "_" not in name}

    def unknown(self) -> set[str]:
        """The ids of groups in Ray's view that we did not make, or have forgotten."""
        return {id_ for node in self._view.free for id_ in self._reported_on(node)} - self._by_id.keys()

    def vanished(self) -> list[str]:
        """The names of ready groups that Ray's view has had and has no more, although nobody here removed them."""
        free = self._view.free
        return [
            group.name
            for group in self._by_id.values()
            if group.is_ready and group.is_seen and not group.is_leaving
            if all(node in free for node in group.nodes) and not self._is_there(group)
        ]


def _create_unless_leaving(group: Group) -> tuple[str, bool] | None:
    """In a thread. Those that wait for one may be for a node that is dead by now, and would keep the others from it."""
    if group.is_leaving:
        return None
    group.is_asked = True
    return ray_state.create_group(group.name, group.bundles, GROUP_TIMEOUT_S, lambda: group.is_leaving)


def _sum(parts: Iterable[Iterable[tuple[str, float]]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for part in parts:
        for name, amount in part:
            total[name] = total.get(name, 0.0) + amount
    return total
