"""The manager: nodes and allocations of one cluster as a state machine, events in, instructions out.

An allocation's life: reserving (its intent is kept, its group on its way) → held → releasing (its group on its way
out) → gone. A node's death makes its allocations lost: the holder finds out when it asks, and the row stays until it
is released. Capacity comes back only when Ray has let go of the group, so that nothing is promised twice.
"""

from __future__ import annotations

from functools import singledispatchmethod
from typing import Any

import numpy as np

from noodle_ray.errors import Conflict, DoesNotFit, NoodleError, NotFound, Unavailable
from noodle_ray.nodes import events
from noodle_ray.nodes.instructions import (
    CreateGroup,
    Granted,
    Instruction,
    Keep,
    Notice,
    Refused,
    Released,
    RemoveGroup,
)
from noodle_ray.nodes.membership import SUSPECT_AFTER_HEARTBEATS, Membership, Node, Silence
from noodle_ray.placement.allocation import Allocation
from noodle_ray.placement.ledger import CPUS, MEMORY, Holding, ResourcePool
from noodle_ray.placement.planner import Decision, plan
from noodle_ray.placement.policies import DEFAULT_POLICY, policy_named
from noodle_ray.resources import UNITS
from noodle_ray.settings import Settings
from noodle_ray.store.changes import Delete, Put

HOMES_TRIED = 3
"""Nodes that a request is tried on, where Ray does not reserve what the ledger holds for free."""

Instructions = list[Instruction]


class Manager:
    """Decides where demands go and what becomes of them. `handle` is the one door through which its state changes."""

    def __init__(self, settings: Settings, default_policy: str = DEFAULT_POLICY, seed: int = 0) -> None:
        policy_named(default_policy)
        heartbeat_s = settings.node_heartbeat_interval_ms / 1000
        self._silence = Silence(SUSPECT_AFTER_HEARTBEATS * heartbeat_s, settings.node_timeout_ms / 1000)
        self._default_policy = default_policy
        self._random = np.random.default_rng(seed)
        self._members = Membership(self._silence)
        self._pool = ResourcePool()
        self._allocations: dict[str, Allocation] = {}
        self._tried: dict[str, frozenset[str]] = {}
        self._waiting_for_node: dict[str, float] = {}
        self._cordoned_before: frozenset[str] = frozenset()

    # -- views

    def allocations(self) -> list[Allocation]:
        return list(self._allocations.values())

    def allocation(self, allocation_id: str) -> Allocation:
        """Raises NotFound."""
        if allocation_id not in self._allocations:
            raise NotFound("allocation", allocation_id)
        return self._allocations[allocation_id]

    def nodes(self) -> list[Node]:
        return self._members.nodes()

    def node(self, node_id: str) -> Node:
        """Raises NotFound."""
        return self._members.node(node_id)

    def totals(self) -> dict[str, Any]:
        """The fleet in sums: for each dimension total, held (by allocations), others (used beside us) and free.

        `allocation_ratio` is held ÷ total of the scarcest dimension: GPUs where there are any, else CPUs.
        """
        sums = {
            "memory_bytes" if name == MEMORY else name: _in_a_persons_units(name, *amounts)
            for name, amounts in self._sums().items()
        }
        scarce = sums["gpus"] if sums["gpus"]["total"] else sums["cpus"]
        ratio = scarce["held"] / scarce["total"] if scarce["total"] else 0.0
        counts = {"nodes": len(self._members.nodes()), "allocations": len(self._allocations)}
        return {**counts, "allocation_ratio": ratio, **sums}

    def _sums(self) -> dict[str, tuple[int, int, int]]:
        """Total, held and free over all nodes, in integer units."""
        pool = self._pool
        sums = {
            dimension: (
                int(pool.total(dimension).sum()),
                int(pool.held(dimension).sum()),
                int(pool.free(dimension).sum()),
            )
            for dimension in pool.dimensions or (CPUS, MEMORY)
        }
        return sums | {"gpus": (int(pool.gpu_total.sum()), int(pool.gpu_held.sum()), int(pool.gpu_free.sum()))}

    # -- the door

    @singledispatchmethod
    def handle(self, event: events.Event) -> Instructions:
        """Takes what happened in and gives what is to be done, in that order."""
        raise TypeError(f"no event of a manager: {event!r}")

    # -- nodes

    @handle.register
    def _(self, event: events.NodeJoined) -> Instructions:
        if self._members.knows(event.node_id):
            return []
        node = Node(
            id=event.node_id,
            name=event.name,
            address=event.address,
            resources=event.resources,
            pretended=event.pretended,
            cordoned=event.node_id in self._cordoned_before,
            joined_at=event.at,
            heard_at=event.at,
        )
        self._members.put(node)
        self._pool.add_node(node.id, node.resources)
        self._restore_holdings(node.id)
        return [*self._keep_node(node), Notice("node_joined", f"{node.name} joined", {"node": node.id})]

    def _restore_holdings(self, node_id: str) -> None:
        """Books what allocations from before a restart hold on a node that is back in sight."""
        for allocation in self._allocations.values():
            if allocation.node_id == node_id and self._waiting_for_node.pop(allocation.id, None) is not None:
                self._pool.restore(allocation.id, Holding(node_id, allocation.demand, allocation.gpu_indices))

    @handle.register
    def _(self, event: events.NodeLeft) -> Instructions:
        if not self._members.knows(event.node_id):
            return []
        name = self._members.node(event.node_id).name
        self._members.forget(event.node_id)
        return [
            Keep(Delete("nodes", event.node_id)),
            Notice("node_left", f"{name} left", {"node": event.node_id}),
            *self._lose_node(event.node_id),
        ]

    def _lose_node(self, node_id: str) -> Instructions:
        """Takes a node out of the ledger: its holders have lost theirs, its requests look for another home."""
        if node_id in self._pool.node_ids:
            self._pool.remove_node(node_id)
        there = [allocation for allocation in self._allocations.values() if allocation.node_id == node_id]
        return [instruction for allocation in there for instruction in self._lose(allocation)]

    def _lose(self, allocation: Allocation) -> Instructions:
        self._waiting_for_node.pop(allocation.id, None)
        if allocation.state == "reserving":
            return self._find_another_home(allocation, "its node left")
        if allocation.state != "held":
            return []
        lost = self._put(allocation.model_copy(update={"state": "lost"}))
        return [
            self._keep(lost),
            RemoveGroup(lost.id, lost.epoch, lost.group),
            Notice("allocation_lost", f"{lost.id} was lost with its node", {"allocation": lost.id}),
        ]

    @handle.register
    def _(self, event: events.NodeReported) -> Instructions:
        if not self._members.knows(event.node_id):
            return []
        was = self._members.node(event.node_id).state
        node = self._members.change(event.node_id, metrics=event.metrics, heard_at=event.at, state="alive")
        if was == "dead":  # it was only silent: it comes back empty, for its allocations were given up
            self._pool.add_node(node.id, node.resources)
        self._open_or_close(node.id)
        return [] if was == "alive" else [Notice("node_alive", f"{node.name} is back", {"node": node.id})]

    @handle.register
    def _(self, event: events.NodeCordoned) -> Instructions:
        if not self._members.knows(event.node_id):
            return []
        return self._keep_node(self._members.change(event.node_id, cordoned=event.cordoned))

    def _open_or_close(self, node_id: str) -> None:
        if node_id in self._pool.node_ids:
            self._pool.cordon(node_id, not self._members.node(node_id).is_open)

    def _keep_node(self, node: Node) -> Instructions:
        self._open_or_close(node.id)
        document = {"id": node.id, "name": node.name, "cordoned": node.cordoned, "joined_at": node.joined_at}
        return [Keep(Put("nodes", node.id, document))]

    @handle.register
    def _(self, event: events.FreeObserved) -> Instructions:
        """What is neither free nor ours is others'."""
        if event.node_id not in self._pool.node_ids:
            return []
        row = self._pool.node_ids.index(event.node_id)
        free = {CPUS: event.cpu_units, MEMORY: event.memory_bytes, **event.custom_units}
        others = {
            dimension: int(self._pool.total(dimension)[row] - self._pool.held(dimension)[row]) - free.get(dimension, 0)
            for dimension in self._pool.dimensions
        }
        gpus = int(self._pool.gpu_total[row].sum() - self._pool.gpu_held[row].sum()) - event.gpu_units
        self._pool.set_foreign(event.node_id, others, gpus)
        return []

    # -- allocations

    @handle.register
    def _(self, event: events.AllocationRequested) -> Instructions:
        if event.allocation_id in self._allocations:
            known = self._allocations[event.allocation_id]
            return [Granted(known)] if known.state == "held" else []
        try:
            decision = self._plan(event.demand, event.policy or self._default_policy, frozenset())
        except (DoesNotFit, NotFound) as error:
            return [Refused(event.allocation_id, error)]
        allocation = Allocation(
            id=event.allocation_id,
            epoch=1,
            state="reserving",
            demand=event.demand,
            policy=event.policy or self._default_policy,
            node_id=decision.node_id,
            gpu_indices=decision.gpu_indices,
            owner=event.owner,
            lease_s=event.lease_s,
            expires_at=None if event.lease_s is None else event.at + event.lease_s,
            created_at=event.at,
            explanation=decision.explanation,
        )
        return self._reserve(allocation)

    def _plan(self, demand: Any, policy: str, excluded: frozenset[str]) -> Decision:
        return plan(self._pool, demand, policy, excluded, self._random)

    def _reserve(self, allocation: Allocation) -> Instructions:
        self._pool.allocate(allocation.id, allocation.node_id, allocation.demand)
        self._put(allocation)
        return [self._keep(allocation), self._create(allocation)]

    def _create(self, allocation: Allocation) -> CreateGroup:
        bundle = allocation.demand.ray_resources()
        return CreateGroup(allocation.id, allocation.epoch, allocation.group, bundle, allocation.node_id)

    @handle.register
    def _(self, event: events.GroupCreated) -> Instructions:
        allocation = self._current(event.allocation_id, event.epoch)
        if allocation is None or allocation.state != "reserving":
            return self._remove_stale(event)
        self._tried.pop(allocation.id, None)
        held = self._put(allocation.model_copy(update={"state": "held"}))
        return [self._keep(held), Granted(held)]

    def _remove_stale(self, event: events.GroupCreated) -> Instructions:
        """A group that came to be after we gave it up must not stay."""
        current = self._current(event.allocation_id, event.epoch)
        if current is not None and current.state == "held":
            return []
        return [RemoveGroup(event.allocation_id, event.epoch, f"{event.allocation_id}.{event.epoch}")]

    @handle.register
    def _(self, event: events.GroupFailed) -> Instructions:
        allocation = self._current(event.allocation_id, event.epoch)
        if allocation is None or allocation.state != "reserving":
            return []
        self._take_back(allocation.id)
        return self._find_another_home(allocation, event.reason)

    def _find_another_home(self, allocation: Allocation, reason: str) -> Instructions:
        """Gives the home up and reserves another, or refuses when enough were tried."""
        given_up = RemoveGroup(allocation.id, allocation.epoch, allocation.group)
        tried = self._tried.get(allocation.id, frozenset()) | {allocation.node_id}
        self._tried[allocation.id] = tried
        notice = Notice("home_failed", f"{allocation.id}: {reason}", {"node": allocation.node_id})
        try:
            if len(tried) > HOMES_TRIED - 1:
                raise Unavailable(f"Ray did not reserve it on {len(tried)} nodes, last: {reason}")
            decision = self._plan(allocation.demand, allocation.policy, tried)
        except (DoesNotFit, Unavailable) as error:
            return [given_up, notice, *self._refuse(allocation, error)]
        moved = allocation.model_copy(
            update={
                "epoch": allocation.epoch + 1,
                "node_id": decision.node_id,
                "gpu_indices": decision.gpu_indices,
                "explanation": decision.explanation,
            }
        )
        return [given_up, notice, *self._reserve(moved)]

    def _refuse(self, allocation: Allocation, error: NoodleError) -> Instructions:
        self._forget(allocation.id)
        return [Keep(Delete("allocations", allocation.id)), Refused(allocation.id, error)]

    @handle.register
    def _(self, event: events.ReleaseRequested) -> Instructions:
        allocation = self._allocations.get(event.allocation_id)
        if allocation is None:
            return [Released(event.allocation_id)]
        return self._release(allocation)

    def _release(self, allocation: Allocation) -> Instructions:
        if allocation.state == "releasing":
            return []
        if allocation.state == "lost":
            self._forget(allocation.id)
            return [Keep(Delete("allocations", allocation.id)), Released(allocation.id)]
        leaving = self._put(allocation.model_copy(update={"state": "releasing"}))
        refused = Conflict(f"allocation {allocation.id} was released before it was held")
        told: Instructions = [Refused(allocation.id, refused)] if allocation.state == "reserving" else []
        return [self._keep(leaving), *told, RemoveGroup(leaving.id, leaving.epoch, leaving.group)]

    @handle.register
    def _(self, event: events.GroupRemoved) -> Instructions:
        allocation = self._current(event.allocation_id, event.epoch)
        if allocation is None or allocation.state != "releasing":
            return []
        self._take_back(allocation.id)
        self._forget(allocation.id)
        return [Keep(Delete("allocations", allocation.id)), Released(allocation.id)]

    @handle.register
    def _(self, event: events.LeaseRenewed) -> Instructions:
        allocation = self._allocations.get(event.allocation_id)
        if allocation is None or allocation.lease_s is None or allocation.state not in ("reserving", "held"):
            return []
        renewed = self._put(allocation.model_copy(update={"expires_at": event.at + allocation.lease_s}))
        return [self._keep(renewed)]

    @handle.register
    def _(self, event: events.OwnerGone) -> Instructions:
        left = [allocation for allocation in self._allocations.values() if allocation.owner == event.owner]
        return [instruction for allocation in left for instruction in self._release(allocation)]

    # -- time

    @handle.register
    def _(self, event: events.Tick) -> Instructions:
        return [*self._judge_silence(event.at), *self._expire(event.at), *self._give_up_waiting(event.at)]

    def _judge_silence(self, now: float) -> Instructions:
        done: Instructions = []
        for node, health in self._members.overdue(now):
            self._members.change(node.id, state=health)
            self._open_or_close(node.id)
            done.append(Notice(f"node_{health}", f"{node.name} is {health}", {"node": node.id}))
            if health == "dead":
                done += self._lose_node(node.id)
        return done

    def _expire(self, now: float) -> Instructions:
        late = [a for a in self._allocations.values() if a.expires_at is not None and a.expires_at < now]
        return [instruction for allocation in late for instruction in self._release(allocation)]

    def _give_up_waiting(self, now: float) -> Instructions:
        """Allocations of before a restart, whose node did not show itself in time, are lost."""
        late = [key for key, since in self._waiting_for_node.items() if now - since > self._silence.dead_after_s]
        return [instruction for key in late for instruction in self._lose(self._allocations[key])]

    # -- starting again

    @handle.register
    def _(self, event: events.Recovered) -> Instructions:
        """Rows with their group are held as before; rows without are planned anew; groups without a row are removed."""
        self._cordoned_before = frozenset(row["id"] for row in event.nodes if row["cordoned"])
        done: Instructions = []
        for document in event.allocations:
            allocation = self._put(Allocation.parse(document))
            if allocation.state != "lost":
                self._waiting_for_node[allocation.id] = event.at
            done += self._resume(allocation, allocation.group in event.groups)
        for node_id in self._pool.node_ids:  # those that were seen before the rows were read
            self._restore_holdings(node_id)
            if node_id in self._cordoned_before:
                done += self._keep_node(self._members.change(node_id, cordoned=True))
        ours = {allocation.group for allocation in self._allocations.values() if allocation.state != "lost"}
        for group in sorted(event.groups - ours):
            allocation_id, _, epoch = group.rpartition(".")
            done.append(RemoveGroup(allocation_id, int(epoch), group))
        return done

    def _resume(self, allocation: Allocation, has_group: bool) -> Instructions:
        match allocation.state:
            case "releasing":
                return [RemoveGroup(allocation.id, allocation.epoch, allocation.group)]
            case "reserving" | "held" if not has_group:
                # The same home first: its group fails there if the node is gone, and then another is found.
                again = self._put(allocation.model_copy(update={"state": "reserving", "epoch": allocation.epoch + 1}))
                return [self._keep(again), self._create(again)]
            case "reserving":
                held = self._put(allocation.model_copy(update={"state": "held"}))
                return [self._keep(held)]
        return []

    # -- small things

    def _current(self, allocation_id: str, epoch: int) -> Allocation | None:
        """The allocation, if news of this epoch is news of its present home."""
        allocation = self._allocations.get(allocation_id)
        return allocation if allocation is not None and allocation.epoch == epoch else None

    def _put(self, allocation: Allocation) -> Allocation:
        self._allocations[allocation.id] = allocation
        return allocation

    def _keep(self, allocation: Allocation) -> Keep:
        return Keep(Put("allocations", allocation.id, allocation.to_json()))

    def _take_back(self, allocation_id: str) -> None:
        """Gives the ledger back what it gave, unless that went with its node."""
        self._waiting_for_node.pop(allocation_id, None)
        if self._pool.holds(allocation_id):
            self._pool.deallocate(allocation_id)

    def _forget(self, allocation_id: str) -> None:
        del self._allocations[allocation_id]
        self._tried.pop(allocation_id, None)
        self._waiting_for_node.pop(allocation_id, None)


def _in_a_persons_units(dimension: str, total: int, held: int, free: int) -> dict[str, float]:
    """Bytes stay bytes; everything else is counted in whole CPUs, GPUs or custom resources."""
    parts = 1 if dimension == MEMORY else UNITS
    others = max(total - held - free, 0)
    return {"total": total / parts, "held": held / parts, "others": others / parts, "free": free / parts}
