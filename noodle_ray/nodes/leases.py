"""Leases: every allocation of a cluster as a state machine, from its claim to its end, with the ledger and the queue.

An allocation's life: waiting (it fits nowhere now) → reserving (its intent is kept, its group on its way) → held →
releasing (its group on its way out) → gone. The death of any of its nodes makes it lost: the holder finds out when it
asks, and the row stays until it is released. Capacity comes back only when Ray has let go of the group, so that
nothing is promised twice; then it is offered to those who wait, in their order.
"""

from __future__ import annotations

from collections.abc import Sequence

from noodle_ray.errors import Conflict, DoesNotFit, NoodleError, NotFound, Unavailable
from noodle_ray.nodes import events
from noodle_ray.nodes.instructions import (
    AskForNodes,
    CreateGroup,
    Granted,
    Instruction,
    Keep,
    Notice,
    PinnedBundle,
    Queued,
    Refused,
    Released,
    RemoveGroup,
)
from noodle_ray.nodes.scaling import Scaling
from noodle_ray.nodes.watch import Watch
from noodle_ray.placement.allocation import Allocation
from noodle_ray.placement.claim import Claim
from noodle_ray.placement.earmarking import Earmark
from noodle_ray.placement.explanation import Explanation
from noodle_ray.placement.ledger import ResourcePool
from noodle_ray.placement.planner import Decision, Planner
from noodle_ray.placement.refusal import Refusal
from noodle_ray.placement.waiting import WaitingQueue
from noodle_ray.store.changes import Delete, Put

HOMES_TRIED = 3
"""Homes that a request is tried in, where Ray does not reserve what the ledger holds for free."""

Instructions = list[Instruction]


class Leases:
    """Who holds what, who waits, and what is to be done about it. `pool` is the ledger, `queue` those who wait."""

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
        self._may_fit = False
        self._earmark = Earmark(self.pool, self._emptied)

    # -- views

    def __len__(self) -> int:
        return len(self._allocations)

    def in_order(self) -> list[Allocation]:
        """All allocations; those that wait come last, in the order in which room is offered to them."""
        waiting = [self._allocations[turn.allocation_id] for turn in self.queue]
        others = [allocation for allocation in self._allocations.values() if allocation.id not in self.queue]
        return [self._as_seen(allocation) for allocation in (*others, *waiting)]

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
        """Whether the group is the home of an allocation that is not lost."""
        allocation = self._allocations.get(group.rpartition(".")[0])
        return allocation is not None and allocation.group == group and allocation.state != "lost"

    # -- nodes

    def restore_holdings(self, node_id: str) -> None:
        """Books what allocations from before a restart hold on a node that is back in sight."""
        for allocation in self._allocations.values():
            if allocation.id in self._waiting_for_node and node_id in allocation.node_ids:
                self._restore(allocation)

    def _restore(self, allocation: Allocation) -> None:
        """Books as much of it as there are nodes: what is on the others is not theirs to give away either."""
        seen = [bundle for bundle in allocation.bundles if self.pool.has_node(bundle.node_id)]
        if self.pool.holds(allocation.id):
            self.pool.deallocate(allocation.id)
        self.pool.restore(allocation.id, seen, allocation.request.anti_affinity)
        if len(seen) == len(allocation.bundles):
            del self._waiting_for_node[allocation.id]

    def lose_node(self, node_id: str) -> Instructions:
        """Takes a node out of the ledger: its holders have lost theirs, its requests look for another home."""
        if self.pool.has_node(node_id):
            self.pool.remove_node(node_id)
        self._others.pop(node_id, None)
        there = [allocation for allocation in self._allocations.values() if node_id in allocation.node_ids]
        self._may_fit = True  # a gang that was on its way there gives up what it had elsewhere
        return [instruction for allocation in there for instruction in self._lose(allocation, (node_id,))]

    def _lose(self, allocation: Allocation, node_ids: Sequence[str]) -> Instructions:
        self._take_back(allocation.id)
        if allocation.state == "reserving":
            return self._find_another_home(allocation, "its node left", node_ids)
        self._keep_survivors(allocation)
        if allocation.state != "held":
            return []
        lost = self._put(allocation.model_copy(update={"state": "lost"}))
        return [
            self._keep(lost),
            RemoveGroup(lost.id, lost.epoch, lost.group),
            Notice("allocation_lost", f"{lost.id} was lost with its node", {"allocation": lost.id}),
        ]

    def _keep_survivors(self, allocation: Allocation) -> None:
        """What a gang has on nodes that are still there is free when Ray has let go of its group, not before."""
        survivors = [bundle for bundle in allocation.bundles if self.pool.has_node(bundle.node_id)]
        if survivors:
            self.pool.restore(allocation.id, survivors, allocation.request.anti_affinity)

    def others_observed(self, event: events.OthersObserved) -> Instructions:
        before = self._others.get(event.node_id)
        if not self.pool.has_node(event.node_id) or _same_use(before, event):
            return []
        self._others[event.node_id] = event
        self.pool.set_foreign(event.node_id, event.amounts, event.gpu_units)
        return self.serve(event.at) if before is not None else []

    def gpus_observed(self, event: events.GpusObserved) -> Instructions:
        """The ledger follows what Ray picked: the next share must go where there really is room."""
        allocation = self._current(event.allocation_id, event.epoch)
        if (
            allocation is None
            or allocation.state not in ("reserving", "held")
            or allocation.id in self._waiting_for_node
        ):
            return []
        bundle = allocation.bundles[event.bundle]
        if bundle.gpu_indices == event.gpu_indices:
            return []
        self.watch.corrections += 1
        self.pool.correct_gpus(allocation.id, event.bundle, event.gpu_indices)
        corrected = self._put(allocation.model_copy(update={"bundles": self.pool.bundles(allocation.id)}))
        details = {"allocation": allocation.id, "expected": bundle.gpu_indices, "picked": event.gpu_indices}
        notice = Notice("gpus_corrected", f"Ray gave {allocation.id} other GPUs than expected", details)
        return [self._keep(corrected), notice, *self.serve(event.at)]

    # -- claims

    def claimed(self, event: events.Claimed) -> Instructions:
        claim = event.claim
        if claim.id in self._allocations:
            return self._claimed_again(self._allocations[claim.id], claim)
        allocation = self._new(claim, event.at)
        self.planner.note(claim.request)
        ahead = self.queue.ahead(_shape(allocation), allocation.priority, event.at)
        if ahead is not None:
            return self._line_up_behind(allocation, self._allocations[ahead], event.at)
        try:
            return self._reserve(allocation, self._plan(allocation))
        except DoesNotFit as error:
            return self._wait_or_refuse(allocation, error, event.at)
        except NotFound as error:  # the policy
            return self._refuse(allocation, error)

    def _new(self, claim: Claim, at: float) -> Allocation:
        return Allocation(
            id=claim.id,
            epoch=0,
            state="waiting",
            request=claim.request,
            policy=claim.policy or self._default_policy,
            priority=claim.priority,
            owner=claim.owner,
            lease_s=claim.lease_s,
            expires_at=None if claim.lease_s is None else at + claim.lease_s,
            wait_until=None if claim.wait_s is None else at + claim.wait_s,
            created_at=at,
        )

    def _claimed_again(self, known: Allocation, claim: Claim) -> Instructions:
        """The asker did not hear the answer, or asks before it came."""
        if (known.request, known.owner) != (claim.request, claim.owner):
            raise Conflict(f"the id {claim.id} belongs to another claim")
        match known.state:
            case "held":
                return [Granted(known)]
            case "waiting":
                return [Queued(self._as_seen(known))]
            case "lost" | "releasing":
                return [Refused(known.id, Conflict(f"allocation {known.id} is {known.state}"))]
        return []

    def _line_up_behind(self, allocation: Allocation, ahead: Allocation, now: float) -> Instructions:
        """One of the same shape waits already and comes first: it is not overtaken."""
        assert ahead.explanation is not None
        why = ahead.explanation
        refusal = Refusal(str(allocation.request), why.considered, why.filtered, {}, never=False)
        return self._wait_or_refuse(allocation, DoesNotFit(refusal), now)

    def _wait_or_refuse(self, allocation: Allocation, error: DoesNotFit, now: float) -> Instructions:
        """Lines it up where it may wait and there is something to wait for."""
        if allocation.wait_until is not None and allocation.wait_until <= now:
            return self._refuse(allocation, error)
        if error.refusal.never and not self._could_launch(allocation):
            return self._refuse(allocation, error)
        waiting = self._note_refusal(allocation, error.refusal)
        self.queue.add(waiting.id, _shape(waiting), waiting.priority, waiting.created_at)
        queued: Instructions = [self._keep(waiting), Queued(self._as_seen(waiting))]
        return [*queued, *(self._round(now) if self._move_earmark(now) else [])]

    def _could_launch(self, allocation: Allocation) -> bool:
        columns = self.pool.columns
        fleet = [(node_id, columns.resources(row)) for node_id, row in columns.row.items()]
        return self.scaling.could_launch(allocation.request, fleet)

    def _note_refusal(self, allocation: Allocation, refusal: Refusal) -> Allocation:
        why = Explanation(
            policy=allocation.policy,
            considered=refusal.nodes,
            filtered=dict(refusal.failed_on),
            candidates=(),
            chosen="",
        )
        update = {"state": "waiting", "bundles": (), "waits_for": refusal.reasons, "explanation": why}
        return self._put(allocation.model_copy(update=update))

    def _plan(self, allocation: Allocation, excluded: frozenset[str] = frozenset()) -> Decision:
        return self.planner.plan(allocation.request, allocation.policy, excluded, for_id=allocation.id)

    def _reserve(self, allocation: Allocation, decision: Decision) -> Instructions:
        """Books a home for it, in the ledger and in the store, and asks Ray for it."""
        wanted = [(bundle.node_id, bundle.demand) for bundle in decision.bundles]
        update = {
            "epoch": allocation.epoch + 1,
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

    # -- what Ray says of groups

    def group_created(self, event: events.GroupCreated) -> Instructions:
        allocation = self._current(event.allocation_id, event.epoch)
        if allocation is None or allocation.state != "reserving":
            return self._remove_stale(event)
        self._forget_attempts(allocation.id)
        held = self._put(allocation.model_copy(update={"state": "held"}))
        return [self._keep(held), Granted(held)]

    def _remove_stale(self, event: events.GroupCreated) -> Instructions:
        """A group that came to be after we gave it up must not stay."""
        current = self._current(event.allocation_id, event.epoch)
        if current is not None and current.state == "held":
            return []
        return [RemoveGroup(event.allocation_id, event.epoch, f"{event.allocation_id}.{event.epoch}")]

    def group_failed(self, event: events.GroupFailed) -> Instructions:
        """What it had booked is offered to others with the next tick: Ray has just said that there is no such room."""
        allocation = self._current(event.allocation_id, event.epoch)
        if allocation is None or allocation.state != "reserving":
            return []
        self._take_back(allocation.id)
        done = self._find_another_home(allocation, event.reason, event.node_ids)
        self._may_fit = True
        return [*done, *self._follow_deadline(event.at)]

    def _find_another_home(self, allocation: Allocation, reason: str, lacking: Sequence[str]) -> Instructions:
        """Gives the home up and reserves another, or has it wait, or refuses when enough were tried."""
        given_up = RemoveGroup(allocation.id, allocation.epoch, allocation.group)
        notice = Notice("home_failed", f"{allocation.id}: {reason}", {"nodes": allocation.node_ids})
        tried = self._tried.get(allocation.id, frozenset()) | frozenset(lacking or allocation.node_ids)
        homes = self._homes.get(allocation.id, 0) + 1
        self._tried[allocation.id], self._homes[allocation.id] = tried, homes
        try:
            if homes >= HOMES_TRIED:
                raise Unavailable(f"Ray did not reserve it in {homes} homes, last: {reason}")
            again = self._reserve(allocation, self._plan(allocation, tried))
        except (DoesNotFit, Unavailable) as error:
            again = self._wait_again(allocation, error)
        return [given_up, notice, *again]

    def _wait_again(self, allocation: Allocation, error: DoesNotFit | Unavailable) -> Instructions:
        """Whoever may wait does, at its old place; after the next tick the homes tried in vain are tried again."""
        if allocation.wait_until is not None and allocation.wait_until <= allocation.created_at:
            return self._refuse(allocation, error)
        self._forget_attempts(allocation.id)
        if isinstance(error, DoesNotFit):
            waiting = self._note_refusal(allocation, error.refusal)
        else:
            update = {"state": "waiting", "bundles": (), "waits_for": str(error)}
            waiting = self._put(allocation.model_copy(update=update))
        self.queue.add(waiting.id, _shape(waiting), waiting.priority, waiting.created_at)
        return [self._keep(waiting), Queued(self._as_seen(waiting))]

    def _refuse(self, allocation: Allocation, error: NoodleError) -> Instructions:
        if allocation.id not in self._allocations:
            return [Refused(allocation.id, error)]
        self._forget(allocation.id)
        return [Keep(Delete("allocations", allocation.id)), Refused(allocation.id, error)]

    def group_removed(self, event: events.GroupRemoved) -> Instructions:
        allocation = self._current(event.allocation_id, event.epoch)
        if allocation is None or allocation.state not in ("releasing", "lost"):
            return []
        self._take_back(allocation.id)
        gone = self._free(allocation) if allocation.state == "releasing" else []
        return [*gone, *self.serve(event.at)]

    def _free(self, allocation: Allocation) -> Instructions:
        self._take_back(allocation.id)
        self._forget(allocation.id)
        return [Keep(Delete("allocations", allocation.id)), Released(allocation.id)]

    def group_vanished(self, event: events.GroupVanished) -> Instructions:
        allocation = self._current(event.allocation_id, event.epoch)
        if allocation is None or allocation.state != "held":
            return []
        return [self._differs(f"the group of {allocation.id} was gone: made anew"), *self._resume(allocation, False)]

    def group_found(self, event: events.GroupFound) -> Instructions:
        if self.is_current(event.group):
            return []
        return [self._differs(f"{event.group} belongs to no allocation: removed"), _remove_unknown(event.group)]

    def _differs(self, message: str) -> Notice:
        self.watch.differences += 1
        return Notice("ledger_difference", message, {"differences": self.watch.differences}, warns=True)

    # -- leases and ends

    def release_requested(self, event: events.ReleaseRequested) -> Instructions:
        if event.allocation_id not in self._allocations:
            return [Released(event.allocation_id)]
        self.allocation(event.allocation_id, event.fence)
        done = self._release(self._allocations[event.allocation_id])
        return [*done, *self.serve(event.at)]

    def _release(self, allocation: Allocation) -> Instructions:
        if allocation.state == "releasing":
            return []
        refused = Refused(allocation.id, Conflict(f"allocation {allocation.id} was released before it was held"))
        if allocation.state == "waiting":
            return [refused, *self._free(allocation)]
        if allocation.state == "lost":
            return self._free(allocation)
        leaving = self._put(allocation.model_copy(update={"state": "releasing"}))
        told: Instructions = [refused] if allocation.state == "reserving" else []
        return [self._keep(leaving), *told, RemoveGroup(leaving.id, leaving.epoch, leaving.group)]

    def lease_renewed(self, event: events.LeaseRenewed) -> Instructions:
        if event.allocation_id not in self._allocations:
            return []
        allocation = self.allocation(event.allocation_id, event.fence)
        if allocation.lease_s is None or allocation.state not in ("waiting", "reserving", "held"):
            return []
        update = {"expires_at": event.at + allocation.lease_s}
        return [self._keep(self._put(self._allocations[allocation.id].model_copy(update=update)))]

    def owner_gone(self, event: events.OwnerGone) -> Instructions:
        left = [allocation for allocation in self._allocations.values() if allocation.owner == event.owner]
        done = [instruction for allocation in left for instruction in self._release(allocation)]
        return [*done, *self.serve(event.at)]

    # -- those who wait

    def serve(self, now: float) -> Instructions:
        """Offers room to those who wait, wherever there may be more of it than before."""
        done = self._round(now)
        return [*done, *(self._round(now) if self._move_earmark(now) else [])]

    def _round(self, now: float) -> Instructions:
        done: Instructions = []
        self._may_fit = False

        def place(allocation_id: str) -> bool:
            allocation = self._allocations[allocation_id]
            try:
                done.extend(self._reserve(allocation, self._plan(allocation)))
            except DoesNotFit as error:
                self._note_refusal(allocation, error.refusal)
                return False
            return True

        self.queue.serve(place)
        return done

    def _move_earmark(self, now: float) -> bool:
        """Keeps nodes for the first who waits once its patience is over. Says whether others may now have some back."""
        first = self.queue.first
        if first is None:
            return self._earmark.lift_any()
        return self._earmark.follow(first, self._allocations[first.allocation_id].request, now)

    def _emptied(self, node_ids: Sequence[str]) -> ResourcePool:
        """A ledger of these nodes without what is ours on them."""
        pool = ResourcePool()
        for node_id in node_ids:
            pool.add_node(node_id, self.pool.columns.resources(self.pool.columns.require(node_id)))
            others = self._others.get(node_id)
            if others is not None:
                pool.set_foreign(node_id, others.amounts, others.gpu_units)
        return pool

    # -- time

    def tick(self, now: float, patience_s: float) -> Instructions:
        """Ends what is overdue, serves those who wait. `patience_s`: how long a restarted manager waits for nodes."""
        done = [*self._expire(now), *self._give_up_nodes(now, patience_s), *self._follow_deadline(now)]
        if self._may_fit:
            done += self.serve(now)
        elif self._move_earmark(now):
            done += self._round(now)
        return [*done, *self._ask_for_nodes(now), *self._warn(now)]

    def _expire(self, now: float) -> Instructions:
        late = [a for a in self._allocations.values() if a.expires_at is not None and a.expires_at < now]
        self._may_fit |= bool(late)  # one that waited may have had nodes kept for it
        return [instruction for allocation in late for instruction in self._release(allocation)]

    def _give_up_nodes(self, now: float, patience_s: float) -> Instructions:
        """Allocations of before a restart, whose nodes did not all show themselves in time, are lost."""
        late = [key for key, since in self._waiting_for_node.items() if now - since > patience_s]
        self._may_fit |= bool(late)
        return [instruction for key in late for instruction in self._lose(self._allocations[key], ())]

    def _follow_deadline(self, now: float) -> Instructions:
        """Refuses those who would not wait any longer, with the reason why they still do not fit."""
        late = [self._allocations[turn.allocation_id] for turn in self.queue]
        late = [allocation for allocation in late if allocation.wait_until is not None and allocation.wait_until <= now]
        self._may_fit |= bool(late)
        return [instruction for allocation in late for instruction in self._refuse(allocation, _too_late(allocation))]

    def _ask_for_nodes(self, now: float) -> Instructions:
        """Shows the autoscaler what waits, and takes it back when nothing waits."""
        rooms = self.scaling.ask([self._allocations[turn.allocation_id] for turn in self.queue], self.pool, now)
        return [] if rooms is None else [AskForNodes(rooms)]

    def _warn(self, now: float) -> Instructions:
        warning = self.watch.warning(len(self.queue), now)
        return [] if warning is None else [warning]

    # -- starting again

    def recovered(self, event: events.Recovered) -> Instructions:
        """Rows with their group are held as before; rows without are planned anew; groups without a row are removed."""
        if event.asked:
            self.scaling.forget_what_was_asked()
        done: Instructions = []
        rows = [Allocation.parse(document) for document in event.allocations]
        for allocation in sorted(rows, key=lambda row: (row.created_at, row.id)):
            done += self._recover(self._put(allocation), event)
        for node_id in self.pool.node_ids:  # those that were seen before the rows were read
            self.restore_holdings(node_id)
        unknown = sorted(group for group in event.groups if not self.is_current(group))
        return [*done, *(_remove_unknown(group) for group in unknown)]

    def _recover(self, allocation: Allocation, event: events.Recovered) -> Instructions:
        if allocation.state == "waiting":
            self.queue.add(allocation.id, _shape(allocation), allocation.priority, allocation.created_at)
            return []
        if allocation.state != "lost":
            self._waiting_for_node[allocation.id] = event.at
        has_group = allocation.group in event.groups
        if allocation.state == "reserving" and allocation.group in event.unready:
            has_group = False  # asked for, but not reserved: asked for anew, under another name
        return self._resume(allocation, has_group)

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
        if self.pool.holds(allocation_id):
            self.pool.deallocate(allocation_id)

    def _forget(self, allocation_id: str) -> None:
        del self._allocations[allocation_id]
        self.queue.remove(allocation_id)
        self._earmark.lift(allocation_id)
        self._forget_attempts(allocation_id)
        self._waiting_for_node.pop(allocation_id, None)

    def _forget_attempts(self, allocation_id: str) -> None:
        self._tried.pop(allocation_id, None)
        self._homes.pop(allocation_id, None)


def pinned(allocation: Allocation) -> tuple[PinnedBundle, ...]:
    """What Ray is to reserve for it."""
    return tuple(PinnedBundle(bundle.node_id, bundle.demand.ray_resources()) for bundle in allocation.bundles)


def _shape(allocation: Allocation) -> str:
    """The same for allocations of which none fits unless the other does."""
    return f"{allocation.policy} {allocation.request.model_dump_json(exclude={'movable'})}"


def _same_use(before: events.OthersObserved | None, now: events.OthersObserved) -> bool:
    return before is not None and (before.amounts, before.gpu_units) == (now.amounts, now.gpu_units)


def _too_late(allocation: Allocation) -> DoesNotFit:
    assert allocation.explanation is not None
    why = allocation.explanation
    return DoesNotFit(Refusal(str(allocation.request), why.considered, why.filtered, {}, never=False))


def _remove_unknown(group: str) -> RemoveGroup:
    allocation_id, _, epoch = group.rpartition(".")
    return RemoveGroup(allocation_id, int(epoch), group)
