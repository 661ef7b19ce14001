"""The lease book: all allocations of a cluster, the ledger they are booked in, and what is on its way out of Ray."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from noodle_ray.errors import Conflict, NotFound
from noodle_ray.nodes import events
from noodle_ray.nodes.instructions import (
    CreateGroup,
    Instructions,
    Keep,
    Notice,
    PinnedBundle,
)
from noodle_ray.nodes.scaling import Scaling
from noodle_ray.nodes.watch import Watch
from noodle_ray.placement.allocation import Allocation, Bundle, Spare
from noodle_ray.placement.earmarking import Earmark
from noodle_ray.placement.ledger import ResourcePool
from noodle_ray.placement.planner import Decision, Planner
from noodle_ray.placement.waiting import WaitingQueue
from noodle_ray.store.changes import Put


@dataclass(frozen=True, slots=True)
class Leaving:
    """A home that Ray was asked to let go of, and under which key it is booked until that is done."""

    key: str
    bundles: tuple[Bundle, ...]
    anti_affinity: str | None


class LeaseBook:
    """Allocations and the ledger. `pool` is the ledger, `queue` those who wait for room, `watch` the figures."""

    def __init__(self, default_policy: str, seed: int = 0) -> None:
        self.pool = ResourcePool()
        self.planner = Planner(self.pool, seed=seed)
        self.queue = WaitingQueue()
        self.scaling = Scaling()
        self.watch = Watch(self.pool, self.planner.chooser.workload)
        self._default_policy = default_policy
        self._allocations: dict[str, Allocation] = {}
        self._tried: dict[str, frozenset[str]] = {}
        self._homes: dict[str, int] = {}
        self._waiting_for_node: dict[str, float] = {}
        self._others: dict[str, events.OthersObserved] = {}
        self._draining: set[str] = set()
        self._spare_tried: dict[str, float] = {}
        self._leaving: dict[str, Leaving] = {}
        self._homeless_since: dict[str, float] = {}
        self._reserve_by: dict[str, float] = {}
        self._may_fit = False
        self._earmark = Earmark(self.pool, self._emptied)

    def __len__(self) -> int:
        return len(self._allocations)

    def in_order(self) -> list[Allocation]:
        """All allocations; those that wait come last, in the order in which room is offered to them."""
        waiting = [self._allocations[turn.allocation_id] for turn in self.queue]
        others = [allocation for allocation in self._allocations.values() if allocation.id not in self.queue]
        return [self._as_seen(allocation) for allocation in (*others, *waiting)]

    def missing(self, allocation_ids: Iterable[str]) -> list[str]:
        """Those of them that hold nothing any more: lost with their nodes, or unknown."""
        known = self._allocations
        return [each for each in allocation_ids if each not in known or known[each].state == "lost"]

    def allocations(self) -> list[Allocation]:
        return [self._as_seen(allocation) for allocation in self._allocations.values()]

    def allocation(self, allocation_id: str, fence: str | None = None) -> Allocation:
        """Raises NotFound, and Conflict where `fence` is not its present home."""
        if allocation_id not in self._allocations:
            raise NotFound("allocation", allocation_id)
        allocation = self._allocations[allocation_id]
        if fence is not None and fence != allocation.group:
            raise Conflict(f"{fence} is not held any more: the allocation's home is {allocation.group} now")
        return self._as_seen(allocation)

    def _as_seen(self, allocation: Allocation) -> Allocation:
        if allocation.state != "waiting":
            return allocation
        return allocation.model_copy(update={"position": self.queue.position(allocation.id)})

    def is_current(self, group: str) -> bool:
        """Whether the group is the home of an allocation that has one, or its second home."""
        allocation = self._allocations.get(group.rpartition(".")[0])
        return (
            allocation is not None
            and group in (allocation.group, allocation.spare_group)
            and allocation.state not in ("waiting", "lost")  # what these had is on its way out
        )

    # -- what is booked

    def _plan(self, allocation: Allocation, excluded: frozenset[str] = frozenset()) -> Decision:
        return self.planner.plan(allocation.request, allocation.policy, excluded, for_id=allocation.id)

    def _reserve(self, allocation: Allocation, decision: Decision) -> Instructions:
        """Books a home for it, in the ledger and in the store, and asks Ray for it."""
        wanted = [(bundle.node_id, bundle.demand) for bundle in decision.bundles]
        epoch = max(allocation.last_epoch, allocation.epoch) + 1
        update = {
            "epoch": epoch,
            "last_epoch": epoch,
            "state": "reserving",
            "bundles": self.pool.allocate(allocation.id, wanted, allocation.request.anti_affinity),
            "waits_for": "",
            "explanation": decision.explanation,
        }
        reserving = self._put(allocation.model_copy(update=update))
        self._earmark.lift(allocation.id)
        return [self._keep(reserving), self._create(reserving)]

    def _create(self, allocation: Allocation) -> CreateGroup:
        return CreateGroup(allocation.id, allocation.epoch, allocation.group, pinned(allocation))

    def _take_back(self, allocation_id: str) -> None:
        """Gives the ledger back what it gave, unless that went with its node."""
        self._waiting_for_node.pop(allocation_id, None)
        if self.pool.holds(allocation_id):
            self.pool.deallocate(allocation_id)

    def _leave(self, allocation: Allocation) -> None:
        """Its home is on its way out, and it has another, or none: what it had there is not free yet."""
        self._take_back(allocation.id)
        self._note_leaving(allocation, allocation.group, allocation.group, allocation.bundles)
        self._book_survivors(allocation.group, allocation.bundles, allocation.request.anti_affinity)

    def _note_leaving(self, allocation: Allocation, group: str, key: str, bundles: tuple[Bundle, ...]) -> None:
        self._leaving[group] = Leaving(key, bundles, allocation.request.anti_affinity)

    def _book_survivors(self, key: str, bundles: Sequence[Bundle], anti_affinity: str | None) -> None:
        """What a gang has on nodes that are still there is free when Ray has let go of its group, not before."""
        survivors = [bundle for bundle in bundles if self.pool.has_node(bundle.node_id)]
        if survivors:
            self.pool.restore(key, survivors, anti_affinity)

    def _emptied(self, node_ids: Sequence[str]) -> ResourcePool:
        """A ledger of these nodes without what is ours on them."""
        pool = ResourcePool()
        for node_id in node_ids:
            pool.add_node(node_id, self.pool.columns.resources(self.pool.columns.require(node_id)))
            others = self._others.get(node_id)
            if others is not None:
                pool.set_foreign(node_id, others.amounts, others.gpu_units)
        return pool

    def is_empty(self, node_id: str) -> bool:
        """Whether nothing of ours is there any more, and nothing is on its way there."""
        return not self.pool.has_node(node_id) or not self.pool.on_node(node_id)

    def _by_priority(self, node_id: str) -> list[Allocation]:
        """The allocations that are on the node, the most important and oldest first."""
        there = [allocation for allocation in self._allocations.values() if node_id in allocation.node_ids]
        return sorted(there, key=lambda allocation: (-allocation.priority, allocation.created_at, allocation.id))

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

    def _forget(self, allocation_id: str) -> None:
        del self._allocations[allocation_id]
        self.queue.remove(allocation_id)
        self._earmark.lift(allocation_id)
        self._forget_attempts(allocation_id)
        self._waiting_for_node.pop(allocation_id, None)
        self._spare_tried.pop(allocation_id, None)
        self._homeless_since.pop(allocation_id, None)
        self._reserve_by.pop(allocation_id, None)

    def _forget_attempts(self, allocation_id: str) -> None:
        self._tried.pop(allocation_id, None)
        self._homes.pop(allocation_id, None)

    def _differs(self, message: str) -> Notice:
        self.watch.differences += 1
        return Notice("ledger_difference", message, {"differences": self.watch.differences}, warns=True)


def pinned(home: Allocation | Spare) -> tuple[PinnedBundle, ...]:
    """What Ray is to reserve for it."""
    return pinned_bundles(home.bundles)


def pinned_bundles(bundles: Sequence[Bundle]) -> tuple[PinnedBundle, ...]:
    return tuple(PinnedBundle(bundle.node_id, bundle.demand.ray_resources()) for bundle in bundles)


def nodes_of(bundles: Sequence[Bundle]) -> frozenset[str]:
    return frozenset(bundle.node_id for bundle in bundles)
