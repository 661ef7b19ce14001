"""Leases: every allocation of a cluster as a state machine, from its claim to its end, with the ledger and the queue.

An allocation's life: waiting (it fits nowhere now) → reserving (its intent is kept, its group on its way) → held →
releasing (its group on its way out) → gone. The death of any of its nodes makes it lost: the holder finds out when it
asks, and the row stays until it is released. Capacity comes back only when Ray has let go of the group, so that
nothing is promised twice; then it is offered to those who wait, in their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
from noodle_ray.placement.allocation import Allocation, Bundle, Spare
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

SPARE_AGAIN_S = 5.0
"""How often a second home is looked for that there was no room for."""

Instructions = list[Instruction]


@dataclass(frozen=True, slots=True)
class _Leaving:
    """A home that Ray was asked to let go of, and under which key it is booked until that is done."""

    key: str
    bundles: tuple[Bundle, ...]
    anti_affinity: str | None


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
        self._draining: set[str] = set()
        self._spare_tried: dict[str, float] = {}
        self._leaving: dict[str, _Leaving] = {}
        self._homeless_since: dict[str, float] = {}
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
        """Whether the group is the home of an allocation that has one, or its second home."""
        allocation = self._allocations.get(group.rpartition(".")[0])
        return (
            allocation is not None
            and group in (allocation.group, allocation.spare_group)
            and allocation.state not in ("waiting", "lost")  # what these had is on its way out
        )

    # -- nodes

    def restore_holdings(self, node_id: str) -> None:
        """Books what allocations from before a restart hold on a node that is back in sight."""
        for allocation in self._allocations.values():
            if allocation.id in self._waiting_for_node and node_id in allocation.node_ids:
                self._restore(allocation)
            if allocation.spare is not None and node_id in _nodes(allocation.spare.bundles):
                self._restore_spare(allocation, allocation.spare)

    def _restore(self, allocation: Allocation) -> None:
        """Books as much of it as there are nodes: what is on the others is not theirs to give away either."""
        seen = [bundle for bundle in allocation.bundles if self.pool.has_node(bundle.node_id)]
        if self.pool.holds(allocation.id):
            self.pool.deallocate(allocation.id)
        self.pool.restore(allocation.id, seen, allocation.request.anti_affinity)
        if len(seen) == len(allocation.bundles):
            del self._waiting_for_node[allocation.id]

    def _restore_spare(self, allocation: Allocation, spare: Spare) -> None:
        if self.pool.holds(allocation.spare_group):
            self.pool.deallocate(allocation.spare_group)
        self._book_survivors(allocation.spare_group, spare.bundles, allocation.request.anti_affinity)

    def lose_node(self, node_id: str, now: float) -> Instructions:
        """Takes a node out of the ledger: what was there is lost, or goes on elsewhere, by priority."""
        self._take_out(node_id)
        self._others.pop(node_id, None)
        self._draining.discard(node_id)
        self._may_fit = True  # a gang that was on its way there gives up what it had elsewhere
        done = [step for one in self._with_spare_on(node_id) for step in self._drop_spare(one)]
        return [*done, *(step for one in self._by_priority(node_id) for step in self._lose(one, (node_id,), now))]

    def _take_out(self, node_id: str) -> None:
        """What gangs on it have on other nodes stays booked, before a new home is looked for for any of them."""
        if not self.pool.has_node(node_id):
            return
        there = {key: self.pool.bundles(key) for key in self.pool.on_node(node_id)}
        self.pool.remove_node(node_id)
        for key, bundles in there.items():
            allocation = self._allocations.get(key.partition(".")[0])
            self._book_survivors(key, bundles, allocation.request.anti_affinity if allocation else None)

    def _by_priority(self, node_id: str) -> list[Allocation]:
        """The allocations that are on the node, the most important and oldest first."""
        there = [allocation for allocation in self._allocations.values() if node_id in allocation.node_ids]
        return sorted(there, key=lambda allocation: (-allocation.priority, allocation.created_at, allocation.id))

    def _lose(self, allocation: Allocation, node_ids: Sequence[str], now: float) -> Instructions:
        if allocation.state == "reserving":
            self._take_back(allocation.id)
            return self._find_another_home(allocation, "its node left", node_ids)
        if allocation.state == "held" and allocation.on_loss != "fail":
            return self._fail_over(allocation, now)
        self._waiting_for_node.pop(allocation.id, None)
        if allocation.state != "held":
            return []
        unspared = self._drop_spare(allocation)
        self._leave(allocation)
        self.watch.lost += 1
        lost = self._put(self._allocations[allocation.id].model_copy(update={"state": "lost"}))
        return [
            *unspared,
            self._keep(lost),
            RemoveGroup(lost.id, lost.epoch, lost.group),
            Notice("allocation_lost", f"{lost.id} was lost with its node", {"allocation": lost.id}),
        ]

    # -- failing over, and moving

    def _fail_over(self, allocation: Allocation, now: float) -> Instructions:
        """Goes on in its second home where that is ready, else is held anew elsewhere, or waits for that."""
        if self._has_ready_spare(allocation):
            return [*self._move_in(allocation), *self._spare(allocation.id, now)]
        unspared = self._drop_spare(allocation)
        self._leave(allocation)
        self._homeless_since[allocation.id] = now
        given_up = RemoveGroup(allocation.id, allocation.epoch, allocation.group)
        anew = self._allocations[allocation.id].model_copy(update={"wait_until": None})
        try:
            again = self._reserve(anew, self._plan(anew))
        except DoesNotFit as error:
            again = self._wait_again(anew, error)
        state = self._allocations[anew.id].state
        then = "waits for room" if state == "waiting" else "is held anew"
        details = {"allocation": anew.id, "state": state}
        notice = Notice("failed_over", f"{anew.id} cannot stay on its node and {then}", details)
        return [*unspared, given_up, *again, notice]

    def _has_ready_spare(self, allocation: Allocation) -> bool:
        spare, group = allocation.spare, allocation.spare_group
        if spare is None or not spare.ready or not self.pool.holds(group):
            return False
        return len(self.pool.bundles(group)) == len(spare.bundles)  # after a restart nodes come one by one

    def _move_in(self, allocation: Allocation) -> Instructions:
        """The second home becomes the only one; what the first held is free when Ray has let go of its group."""
        spare = allocation.spare
        assert spare is not None
        if allocation.state == "held":
            self._leave(allocation)
        else:
            self._take_back(allocation.id)
        self.pool.rename(allocation.spare_group, allocation.id)
        update = {"epoch": spare.epoch, "bundles": spare.bundles, "spare": None, "state": "held"}
        moved = self._put(allocation.model_copy(update=update))
        self._homeless_since.pop(moved.id, None)
        notice = Notice("moved", f"{moved.id} goes on in its second home", {"allocation": moved.id})
        left = RemoveGroup(allocation.id, allocation.epoch, allocation.group)
        return [self._keep(moved), left, notice, Granted(moved)]

    def _spare(self, allocation_id: str, now: float) -> Instructions:
        """Reserves a second home, where one is wanted and there is room for one now."""
        allocation = self._allocations[allocation_id]
        if not self._wants_spare(allocation):
            return []
        self._spare_tried[allocation_id] = now
        try:
            decision = self._plan(allocation, self._same_domain(allocation))
        except DoesNotFit:
            return []
        epoch = allocation.last_epoch + 1
        wanted = [(bundle.node_id, bundle.demand) for bundle in decision.bundles]
        group = f"{allocation.id}.{epoch}"
        spare = Spare(epoch=epoch, bundles=self.pool.allocate(group, wanted, allocation.request.anti_affinity))
        kept = self._put(allocation.model_copy(update={"spare": spare, "last_epoch": epoch}))
        return [self._keep(kept), CreateGroup(kept.id, epoch, group, _pinned(spare.bundles))]

    def _wants_spare(self, allocation: Allocation) -> bool:
        if allocation.state != "held" or allocation.spare is not None or allocation.id in self._waiting_for_node:
            return False
        leaves = allocation.request.movable and not self._draining.isdisjoint(allocation.node_ids)
        return leaves or allocation.on_loss == "standby"

    def _same_domain(self, allocation: Allocation) -> frozenset[str]:
        """The nodes that would be lost with its present ones, and those that are about to leave."""
        columns = self.pool.columns

        def domain(node_id: str) -> str | None:
            return columns.resources(columns.row[node_id]).labels.get(allocation.domain) if allocation.domain else None

        own = {node_id for node_id in allocation.node_ids if self.pool.has_node(node_id)}
        domains = {domain(node_id) for node_id in own} - {None}
        alike = {node_id for node_id in columns.row if domain(node_id) in domains} if domains else set()
        return frozenset(own | alike | self._draining)

    def _with_spare_on(self, node_id: str) -> list[Allocation]:
        return [one for one in self._allocations.values() if one.spare and node_id in _nodes(one.spare.bundles)]

    def _drop_spare(self, allocation: Allocation) -> Instructions:
        """Gives the second home up; what it holds on nodes that are there is free when Ray has let go of it."""
        spare = allocation.spare
        if spare is None:
            return []
        self._note_leaving(allocation, allocation.spare_group, allocation.spare_group, spare.bundles)
        without = self._put(allocation.model_copy(update={"spare": None}))
        return [self._keep(without), RemoveGroup(allocation.id, spare.epoch, allocation.spare_group)]

    def move_confirmed(self, event: events.MoveConfirmed) -> Instructions:
        """The holder works in the second home: only for a move, for a standby stays where it is."""
        allocation = self._allocations.get(event.allocation_id)
        spare = allocation.spare if allocation else None
        if allocation is None or spare is None or spare.epoch != event.epoch or not self._has_ready_spare(allocation):
            return []
        return [*self._move_in(allocation), *self._spare(allocation.id, event.at)]

    def drain(self, node_id: str, now: float) -> Instructions:
        """Looks for second homes elsewhere for what is movable there, or has its own there. The node must be closed."""
        self._draining.add(node_id)
        spared = self._with_spare_on(node_id)
        dropped = [step for one in spared for step in self._drop_spare(one)]
        return [
            *dropped,
            *(step for one in (*spared, *self._by_priority(node_id)) for step in self._spare(one.id, now)),
        ]

    def stop_draining(self, node_id: str) -> Instructions:
        """The node stays: second homes that were only for the move are given up."""
        self._draining.discard(node_id)
        there = [one for one in self._by_priority(node_id) if one.on_loss != "standby"]
        return [step for one in there for step in self._drop_spare(one)]

    def end_drain(self, node_id: str, now: float) -> Instructions:
        """What is still there moves in its second home, is held anew elsewhere, or is lost, as when the node dies."""
        done: Instructions = []
        for one in self._by_priority(node_id):
            if one.state == "held" and self._has_ready_spare(one):
                done += self._move_in(one)
            elif one.state in ("held", "reserving"):
                done += self._lose(one, (node_id,), now)
        return done

    def is_empty(self, node_id: str) -> bool:
        """Whether nothing of ours is there any more, and nothing is on its way there."""
        return not self.pool.has_node(node_id) or not self.pool.on_node(node_id)

    def _retry_spares(self, now: float) -> Instructions:
        tried = self._spare_tried
        due = [one.id for one in self._allocations.values() if self._wants_spare(one)]
        due = [one for one in due if now - tried.get(one, float("-inf")) >= SPARE_AGAIN_S]
        return [step for one in due for step in self._spare(one, now)]

    def _leave(self, allocation: Allocation) -> None:
        """Its home is on its way out, and it has another, or none: what it had there is not free yet."""
        self._take_back(allocation.id)
        self._note_leaving(allocation, allocation.group, allocation.group, allocation.bundles)
        self._book_survivors(allocation.group, allocation.bundles, allocation.request.anti_affinity)

    def _note_leaving(self, allocation: Allocation, group: str, key: str, bundles: tuple[Bundle, ...]) -> None:
        self._leaving[group] = _Leaving(key, bundles, allocation.request.anti_affinity)

    def node_returned(self, node_id: str) -> None:
        """A node that was held for dead is there again, and with it what Ray has not let go of yet."""
        for leaving in self._leaving.values():
            if node_id in _nodes(leaving.bundles):
                if self.pool.holds(leaving.key):
                    self.pool.deallocate(leaving.key)
                self._book_survivors(leaving.key, leaving.bundles, leaving.anti_affinity)

    def _book_survivors(self, key: str, bundles: Sequence[Bundle], anti_affinity: str | None) -> None:
        """What a gang has on nodes that are still there is free when Ray has let go of its group, not before."""
        survivors = [bundle for bundle in bundles if self.pool.has_node(bundle.node_id)]
        if survivors:
            self.pool.restore(key, survivors, anti_affinity)

    def others_observed(self, event: events.OthersObserved) -> Instructions:
        before = self._others.get(event.node_id)
        if not self.pool.has_node(event.node_id) or _same_use(before, event):
            return []
        self._others[event.node_id] = event
        self.pool.set_foreign(event.node_id, event.amounts, event.gpu_units)
        return self.serve(event.at) if before is not None else []

    def gpus_observed(self, event: events.GpusObserved) -> Instructions:
        """The ledger follows what Ray picked: the next share must go where there really is room."""
        if (spared := self._spared(event.allocation_id, event.epoch)) is not None:
            return self._spare_gpus_observed(spared, event)
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

    def _spare_gpus_observed(self, allocation: Allocation, event: events.GpusObserved) -> Instructions:
        spare, group = allocation.spare, allocation.spare_group
        assert spare is not None
        if spare.bundles[event.bundle].gpu_indices == event.gpu_indices or not self.pool.holds(group):
            return []
        self.watch.corrections += 1
        self.pool.correct_gpus(group, event.bundle, event.gpu_indices)
        corrected = spare.model_copy(update={"bundles": self.pool.bundles(group)})
        return [self._keep(self._put(allocation.model_copy(update={"spare": corrected})))]

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
            on_loss=claim.on_loss,
            domain=claim.domain,
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

    # -- what Ray says of groups

    def group_created(self, event: events.GroupCreated) -> Instructions:
        if (spared := self._spared(event.allocation_id, event.epoch)) is not None:
            return self._spare_created(spared)
        allocation = self._current(event.allocation_id, event.epoch)
        if allocation is None or allocation.state != "reserving":
            return self._remove_stale(event)
        self._forget_attempts(allocation.id)
        held = self._put(allocation.model_copy(update={"state": "held"}))
        return [self._keep(held), Granted(held), *self._note_failover(held, event.at), *self._spare(held.id, event.at)]

    def _note_failover(self, allocation: Allocation, now: float) -> Instructions:
        since = self._homeless_since.pop(allocation.id, None)
        if since is None:
            return []
        self.watch.failed_over(now - since)
        details = {"allocation": allocation.id, "after_s": round(now - since, 4)}
        return [Notice("held_anew", f"{allocation.id} is held anew after {now - since:.3f} s", details)]

    def _spared(self, allocation_id: str, epoch: int) -> Allocation | None:
        """The allocation whose second home this epoch is."""
        allocation = self._allocations.get(allocation_id)
        return allocation if allocation and allocation.spare and allocation.spare.epoch == epoch else None

    def _spare_created(self, allocation: Allocation) -> Instructions:
        assert allocation.spare is not None
        if allocation.spare.ready:
            return []
        ready = allocation.spare.model_copy(update={"ready": True})
        return [self._keep(self._put(allocation.model_copy(update={"spare": ready})))]

    def _remove_stale(self, event: events.GroupCreated) -> Instructions:
        """A group that came to be after we gave it up must not stay."""
        current = self._current(event.allocation_id, event.epoch)
        if current is not None and current.state == "held":
            return []
        return [RemoveGroup(event.allocation_id, event.epoch, f"{event.allocation_id}.{event.epoch}")]

    def group_failed(self, event: events.GroupFailed) -> Instructions:
        """What it had booked is offered to others with the next tick: Ray has just said that there is no such room."""
        if (spared := self._spared(event.allocation_id, event.epoch)) is not None:
            return self._drop_spare(spared)
        allocation = self._current(event.allocation_id, event.epoch)
        if allocation is None or allocation.state != "reserving":
            return []
        self._take_back(allocation.id)
        done = self._find_another_home(allocation, event.reason, event.node_ids)
        self._may_fit = True
        return [*done, *self._follow_deadline(event.at)]

    def _find_another_home(self, allocation: Allocation, reason: str, lacking: Sequence[str]) -> Instructions:
        """Gives the home up for the second one, or for another, or has it wait, or refuses when enough were tried."""
        if self._has_ready_spare(allocation):
            return self._move_in(allocation)
        unspared = self._drop_spare(allocation)
        allocation = self._allocations[allocation.id]
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
        return [*unspared, given_up, notice, *again]

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
        left = f"{event.allocation_id}.{event.epoch}"
        self._leaving.pop(left, None)
        if self.pool.holds(left) and self._spared(event.allocation_id, event.epoch) is None:
            self.pool.deallocate(left)
            return self.serve(event.at)
        allocation = self._current(event.allocation_id, event.epoch)
        if allocation is None or allocation.state != "releasing":
            return []
        return [*self._free(allocation), *self.serve(event.at)]

    def _free(self, allocation: Allocation) -> Instructions:
        self._take_back(allocation.id)
        self._forget(allocation.id)
        return [Keep(Delete("allocations", allocation.id)), Released(allocation.id)]

    def group_vanished(self, event: events.GroupVanished) -> Instructions:
        if (spared := self._spared(event.allocation_id, event.epoch)) is not None:
            return [self._differs(f"the second home of {spared.id} was gone"), *self._drop_spare(spared)]
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
        unspared = self._drop_spare(allocation)
        leaving = self._put(self._allocations[allocation.id].model_copy(update={"state": "releasing"}))
        self._note_leaving(leaving, leaving.group, leaving.id, leaving.bundles)
        told: Instructions = [refused] if allocation.state == "reserving" else []
        return [*unspared, self._keep(leaving), *told, RemoveGroup(leaving.id, leaving.epoch, leaving.group)]

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
        return [*done, *self._retry_spares(now), *self._ask_for_nodes(now), *self._warn(now)]

    def _expire(self, now: float) -> Instructions:
        late = [a for a in self._allocations.values() if a.expires_at is not None and a.expires_at < now]
        self._may_fit |= bool(late)  # one that waited may have had nodes kept for it
        return [instruction for allocation in late for instruction in self._release(allocation)]

    def _give_up_nodes(self, now: float, patience_s: float) -> Instructions:
        """Allocations of before a restart, whose nodes did not all show themselves in time, are lost."""
        late = [key for key, since in self._waiting_for_node.items() if now - since > patience_s]
        self._may_fit |= bool(late)
        return [instruction for key in late for instruction in self._lose(self._allocations[key], (), now)]

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

    def forgive_stall(self, now: float) -> Instructions:
        """Nobody could renew a lease, or the clock was set: leases, and waits for nodes, begin anew."""
        self._spare_tried.clear()
        self._waiting_for_node = dict.fromkeys(self._waiting_for_node, now)
        leased = [(one, one.lease_s) for one in self._allocations.values() if one.lease_s is not None]
        anew = [one.model_copy(update={"expires_at": now + lease_s}) for one, lease_s in leased]
        return [self._keep(self._put(one)) for one in anew]

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
        done += self.forgive_stall(event.at)
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
        has_spare = allocation.spare_group in event.groups - event.unready
        unspared = [] if has_spare else self._drop_spare(allocation)
        return [*unspared, *self._resume(self._allocations[allocation.id], has_group)]

    def _resume(self, allocation: Allocation, has_group: bool) -> Instructions:
        match allocation.state:
            case "releasing":
                self._note_leaving(allocation, allocation.group, allocation.id, allocation.bundles)
                return [RemoveGroup(allocation.id, allocation.epoch, allocation.group)]
            case "reserving" | "held" if not has_group:
                # The same home first: its group fails there if the node is gone, and then another is found.
                epoch = max(allocation.last_epoch, allocation.epoch) + 1
                update = {"state": "reserving", "epoch": epoch, "last_epoch": epoch}
                again = self._put(allocation.model_copy(update=update))
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
        self._spare_tried.pop(allocation_id, None)
        self._homeless_since.pop(allocation_id, None)

    def _forget_attempts(self, allocation_id: str) -> None:
        self._tried.pop(allocation_id, None)
        self._homes.pop(allocation_id, None)


def pinned(home: Allocation | Spare) -> tuple[PinnedBundle, ...]:
    """What Ray is to reserve for it."""
    return _pinned(home.bundles)


def _pinned(bundles: Sequence[Bundle]) -> tuple[PinnedBundle, ...]:
    return tuple(PinnedBundle(bundle.node_id, bundle.demand.ray_resources()) for bundle in bundles)


def _nodes(bundles: Sequence[Bundle]) -> frozenset[str]:
    return frozenset(bundle.node_id for bundle in bundles)


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
