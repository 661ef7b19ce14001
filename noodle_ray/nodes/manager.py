"""The manager: nodes and allocations of one cluster as a state machine, events in, instructions out.

An allocation's life: waiting (it fits nowhere now) → reserving (its intent is kept, its group on its way) → held →
releasing (its group on its way out) → gone. The death of any of its nodes makes it lost: the holder finds out when it
asks, and the row stays until it is released. Capacity comes back only when Ray has let go of the group, so that
nothing is promised twice; then it is offered to those who wait, in their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatchmethod
from typing import Any

from noodle_ray.errors import Conflict, DoesNotFit, NoodleError, NotFound, Unavailable
from noodle_ray.nodes import events
from noodle_ray.nodes.figures import allocation_ratio, sums
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
from noodle_ray.nodes.membership import SUSPECT_AFTER_HEARTBEATS, Membership, Node, Silence
from noodle_ray.nodes.scaling import Scaling
from noodle_ray.nodes.snapshot import Snapshot
from noodle_ray.nodes.watch import Watch
from noodle_ray.placement.allocation import Allocation
from noodle_ray.placement.claim import Claim
from noodle_ray.placement.earmarking import Earmark
from noodle_ray.placement.explanation import Explanation
from noodle_ray.placement.ledger import ResourcePool
from noodle_ray.placement.planner import Decision, Planner
from noodle_ray.placement.policies import DEFAULT_POLICY, policy_named
from noodle_ray.placement.prices import PriceInputs
from noodle_ray.placement.refusal import Refusal
from noodle_ray.placement.waiting import WaitingQueue
from noodle_ray.settings import Settings
from noodle_ray.store.changes import Delete, Put

HOMES_TRIED = 3
"""Homes that a request is tried in, where Ray does not reserve what the ledger holds for free."""

Instructions = list[Instruction]


class Manager:
    """Decides where requests go and what becomes of them. `handle` is the one door through which its state changes."""

    def __init__(self, settings: Settings, default_policy: str = DEFAULT_POLICY, seed: int = 0) -> None:
        policy_named(default_policy)
        heartbeat_s = settings.node_heartbeat_interval_ms / 1000
        self._silence = Silence(SUSPECT_AFTER_HEARTBEATS * heartbeat_s, settings.node_timeout_ms / 1000)
        self._default_policy = default_policy
        self._members = Membership(self._silence)
        self._pool = ResourcePool()
        self._planner = Planner(self._pool, seed=seed)
        self._queue = WaitingQueue()
        self._allocations: dict[str, Allocation] = {}
        self._tried: dict[str, frozenset[str]] = {}
        self._homes: dict[str, int] = {}
        self._waiting_for_node: dict[str, float] = {}
        self._cordoned_before: frozenset[str] = frozenset()
        self._others: dict[str, events.OthersObserved] = {}
        self._may_fit = False
        self._earmark = Earmark(self._pool, self._emptied)
        self._scaling = Scaling()
        self._watch = Watch(self._pool, self._planner.chooser.workload)

    # -- views

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
        return allocation.model_copy(update={"position": self._queue.position(allocation.id)})

    def is_current(self, group: str) -> bool:
        """Whether the group is the home of an allocation that is not lost."""
        allocation = self._allocations.get(group.rpartition(".")[0])
        return allocation is not None and allocation.group == group and allocation.state != "lost"

    def nodes(self) -> list[Node]:
        return self._members.nodes()

    def node(self, node_id: str) -> Node:
        """Raises NotFound."""
        return self._members.node(node_id)

    def totals(self) -> dict[str, Any]:
        """The fleet in sums (see `figures.sums`), `allocation_ratio`, and how many nodes and allocations there are."""
        counts = {"nodes": len(self._members.nodes()), "allocations": len(self._allocations)}
        waiting = {"waiting": len(self._queue), "ledger_differences": self._watch.differences}
        return {**counts, **waiting, "allocation_ratio": allocation_ratio(self._pool), **sums(self._pool)}

    def snapshot(self, now: float) -> Snapshot:
        """All of it, for whoever computes from it elsewhere: without explanations, which are asked for one by one."""
        waiting = [self._allocations[turn.allocation_id] for turn in self._queue]
        others = [allocation for allocation in self._allocations.values() if allocation.id not in self._queue]
        allocations = [self._as_seen(one).model_copy(update={"explanation": None}) for one in (*others, *waiting)]
        workload = self._planner.chooser.workload
        return Snapshot(tuple(self._members.nodes()), self._pool, workload, tuple(allocations), at=now)

    def figures(self, now: float) -> dict[str, float]:
        """What is worth watching, as plain numbers."""
        waiting = {"queue_length": len(self._queue), "oldest_wait_seconds": self._queue.oldest_wait_s(now)}
        return {**waiting, **self._watch.figures()}

    def price_inputs(self) -> PriceInputs | None:
        """What new prices are to be computed from, when they are due; they come back as Priced."""
        return self._planner.price_inputs()

    # -- the door

    @singledispatchmethod
    def handle(self, event: events.Event) -> Instructions:
        """Takes what happened in and gives what is to be done, in that order.

        Raises Conflict for a claim under another's id, and for a release or a renewal by a holder of a former home.
        """
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
        joined = Notice("node_joined", f"{node.name} joined", {"node": node.id})
        return [*self._keep_node(node), joined, *self._serve(event.at)]

    def _restore_holdings(self, node_id: str) -> None:
        """Books what allocations from before a restart hold on a node that is back in sight."""
        for allocation in self._allocations.values():
            if allocation.id in self._waiting_for_node and node_id in allocation.node_ids:
                self._restore(allocation)

    def _restore(self, allocation: Allocation) -> None:
        """Books as much of it as there are nodes: what is on the others is not theirs to give away either."""
        seen = [bundle for bundle in allocation.bundles if self._pool.has_node(bundle.node_id)]
        if self._pool.holds(allocation.id):
            self._pool.deallocate(allocation.id)
        self._pool.restore(allocation.id, seen, allocation.request.anti_affinity)
        if len(seen) == len(allocation.bundles):
            del self._waiting_for_node[allocation.id]

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
            *self._serve(event.at),
        ]

    def _lose_node(self, node_id: str) -> Instructions:
        """Takes a node out of the ledger: its holders have lost theirs, its requests look for another home."""
        if self._pool.has_node(node_id):
            self._pool.remove_node(node_id)
        self._others.pop(node_id, None)
        there = [allocation for allocation in self._allocations.values() if node_id in allocation.node_ids]
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
        survivors = [bundle for bundle in allocation.bundles if self._pool.has_node(bundle.node_id)]
        if survivors:
            self._pool.restore(allocation.id, survivors, allocation.request.anti_affinity)

    @handle.register
    def _(self, event: events.NodeReported) -> Instructions:
        if not self._members.knows(event.node_id):
            return []
        was = self._members.node(event.node_id).state
        node = self._members.change(event.node_id, metrics=event.metrics, heard_at=event.at, state="alive")
        if was == "alive":
            return []
        if was == "dead":  # it was only silent: it comes back empty, for its allocations were given up
            self._pool.add_node(node.id, node.resources)
        self._open_or_close(node.id)
        return [Notice("node_alive", f"{node.name} is back", {"node": node.id}), *self._serve(event.at)]

    @handle.register
    def _(self, event: events.NodeCordoned) -> Instructions:
        if not self._members.knows(event.node_id):
            return []
        kept = self._keep_node(self._members.change(event.node_id, cordoned=event.cordoned))
        return [*kept, *self._serve(event.at)]

    def _open_or_close(self, node_id: str) -> None:
        if self._pool.has_node(node_id):
            self._pool.cordon(node_id, not self._members.node(node_id).is_open)

    def _keep_node(self, node: Node) -> Instructions:
        self._open_or_close(node.id)
        document = {"id": node.id, "name": node.name, "cordoned": node.cordoned, "joined_at": node.joined_at}
        return [Keep(Put("nodes", node.id, document))]

    @handle.register
    def _(self, event: events.OthersObserved) -> Instructions:
        before = self._others.get(event.node_id)
        if not self._pool.has_node(event.node_id) or _same_use(before, event):
            return []
        self._others[event.node_id] = event
        self._pool.set_foreign(event.node_id, event.amounts, event.gpu_units)
        return self._serve(event.at) if before is not None else []

    @handle.register
    def _(self, event: events.GpusObserved) -> Instructions:
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
        self._watch.corrections += 1
        self._pool.correct_gpus(allocation.id, event.bundle, event.gpu_indices)
        corrected = self._put(allocation.model_copy(update={"bundles": self._pool.bundles(allocation.id)}))
        details = {"allocation": allocation.id, "expected": bundle.gpu_indices, "picked": event.gpu_indices}
        notice = Notice("gpus_corrected", f"Ray gave {allocation.id} other GPUs than expected", details)
        return [self._keep(corrected), notice, *self._serve(event.at)]

    @handle.register
    def _(self, event: events.NodeTypesSeen) -> Instructions:
        self._scaling.types = event.types
        return []

    @handle.register
    def _(self, event: events.Priced) -> Instructions:
        self._planner.use(event.prices)
        return []

    # -- claims

    @handle.register
    def _(self, event: events.Claimed) -> Instructions:
        claim = event.claim
        if claim.id in self._allocations:
            return self._claimed_again(self._allocations[claim.id], claim)
        allocation = self._new(claim, event.at)
        self._planner.note(claim.request)
        ahead = self._queue.ahead(_shape(allocation), allocation.priority, event.at)
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
        self._queue.add(waiting.id, _shape(waiting), waiting.priority, waiting.created_at)
        queued: Instructions = [self._keep(waiting), Queued(self._as_seen(waiting))]
        return [*queued, *(self._round(now) if self._move_earmark(now) else [])]

    def _could_launch(self, allocation: Allocation) -> bool:
        fleet = [(node.id, node.resources) for node in self._members.nodes()]
        return self._scaling.could_launch(allocation.request, fleet)

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
        return self._planner.plan(allocation.request, allocation.policy, excluded, for_id=allocation.id)

    def _reserve(self, allocation: Allocation, decision: Decision) -> Instructions:
        """Books a home for it, in the ledger and in the store, and asks Ray for it."""
        wanted = [(bundle.node_id, bundle.demand) for bundle in decision.bundles]
        update = {
            "epoch": allocation.epoch + 1,
            "state": "reserving",
            "bundles": self._pool.allocate(allocation.id, wanted, allocation.request.anti_affinity),
            "waits_for": "",
            "explanation": decision.explanation,
        }
        reserving = self._put(allocation.model_copy(update=update))
        self._earmark.lift(allocation.id)
        return [self._keep(reserving), self._create(reserving)]

    def _create(self, allocation: Allocation) -> CreateGroup:
        return CreateGroup(allocation.id, allocation.epoch, allocation.group, pinned(allocation))

    # -- what Ray says of groups

    @handle.register
    def _(self, event: events.GroupCreated) -> Instructions:
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

    @handle.register
    def _(self, event: events.GroupFailed) -> Instructions:
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
        self._queue.add(waiting.id, _shape(waiting), waiting.priority, waiting.created_at)
        return [self._keep(waiting), Queued(self._as_seen(waiting))]

    def _refuse(self, allocation: Allocation, error: NoodleError) -> Instructions:
        if allocation.id not in self._allocations:
            return [Refused(allocation.id, error)]
        self._forget(allocation.id)
        return [Keep(Delete("allocations", allocation.id)), Refused(allocation.id, error)]

    @handle.register
    def _(self, event: events.GroupRemoved) -> Instructions:
        allocation = self._current(event.allocation_id, event.epoch)
        if allocation is None or allocation.state not in ("releasing", "lost"):
            return []
        self._take_back(allocation.id)
        gone = self._free(allocation) if allocation.state == "releasing" else []
        return [*gone, *self._serve(event.at)]

    def _free(self, allocation: Allocation) -> Instructions:
        self._take_back(allocation.id)
        self._forget(allocation.id)
        return [Keep(Delete("allocations", allocation.id)), Released(allocation.id)]

    @handle.register
    def _(self, event: events.GroupVanished) -> Instructions:
        allocation = self._current(event.allocation_id, event.epoch)
        if allocation is None or allocation.state != "held":
            return []
        return [self._differs(f"the group of {allocation.id} was gone: made anew"), *self._resume(allocation, False)]

    @handle.register
    def _(self, event: events.GroupFound) -> Instructions:
        if self.is_current(event.group):
            return []
        return [self._differs(f"{event.group} belongs to no allocation: removed"), _remove_unknown(event.group)]

    def _differs(self, message: str) -> Notice:
        self._watch.differences += 1
        return Notice("ledger_difference", message, {"differences": self._watch.differences}, warns=True)

    # -- leases and ends

    @handle.register
    def _(self, event: events.ReleaseRequested) -> Instructions:
        if event.allocation_id not in self._allocations:
            return [Released(event.allocation_id)]
        self.allocation(event.allocation_id, event.fence)
        done = self._release(self._allocations[event.allocation_id])
        return [*done, *self._serve(event.at)]

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

    @handle.register
    def _(self, event: events.LeaseRenewed) -> Instructions:
        if event.allocation_id not in self._allocations:
            return []
        allocation = self.allocation(event.allocation_id, event.fence)
        if allocation.lease_s is None or allocation.state not in ("waiting", "reserving", "held"):
            return []
        update = {"expires_at": event.at + allocation.lease_s}
        return [self._keep(self._put(self._allocations[allocation.id].model_copy(update=update)))]

    @handle.register
    def _(self, event: events.OwnerGone) -> Instructions:
        left = [allocation for allocation in self._allocations.values() if allocation.owner == event.owner]
        done = [instruction for allocation in left for instruction in self._release(allocation)]
        return [*done, *self._serve(event.at)]

    # -- those who wait

    def _serve(self, now: float) -> Instructions:
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

        self._queue.serve(place)
        return done

    def _move_earmark(self, now: float) -> bool:
        """Keeps nodes for the first who waits once its patience is over. Says whether others may now have some back."""
        first = self._queue.first
        if first is None:
            return self._earmark.lift_any()
        return self._earmark.follow(first, self._allocations[first.allocation_id].request, now)

    def _emptied(self, node_ids: Sequence[str]) -> ResourcePool:
        """A ledger of these nodes without what is ours on them."""
        pool = ResourcePool()
        for node_id in node_ids:
            pool.add_node(node_id, self._members.node(node_id).resources)
            others = self._others.get(node_id)
            if others is not None:
                pool.set_foreign(node_id, others.amounts, others.gpu_units)
        return pool

    # -- time

    @handle.register
    def _(self, event: events.Tick) -> Instructions:
        done = [*self._judge_silence(event.at), *self._expire(event.at), *self._give_up_nodes(event.at)]
        done += self._follow_deadline(event.at)
        if self._may_fit:
            done += self._serve(event.at)
        elif self._move_earmark(event.at):
            done += self._round(event.at)
        return [*done, *self._ask_for_nodes(event.at), *self._warn(event.at)]

    def _judge_silence(self, now: float) -> Instructions:
        done: Instructions = []
        for node, health in self._members.overdue(now):
            self._members.change(node.id, state=health)
            self._open_or_close(node.id)
            done.append(Notice(f"node_{health}", f"{node.name} is {health}", {"node": node.id}))
            if health == "dead":
                done += self._lose_node(node.id)
                self._may_fit = True  # a gang that was on its way there has given up what it had elsewhere
        return done

    def _expire(self, now: float) -> Instructions:
        late = [a for a in self._allocations.values() if a.expires_at is not None and a.expires_at < now]
        self._may_fit |= bool(late)  # one that waited may have had nodes kept for it
        return [instruction for allocation in late for instruction in self._release(allocation)]

    def _give_up_nodes(self, now: float) -> Instructions:
        """Allocations of before a restart, whose nodes did not all show themselves in time, are lost."""
        late = [key for key, since in self._waiting_for_node.items() if now - since > self._silence.dead_after_s]
        self._may_fit |= bool(late)
        return [instruction for key in late for instruction in self._lose(self._allocations[key], ())]

    def _follow_deadline(self, now: float) -> Instructions:
        """Refuses those who would not wait any longer, with the reason why they still do not fit."""
        late = [self._allocations[turn.allocation_id] for turn in self._queue]
        late = [allocation for allocation in late if allocation.wait_until is not None and allocation.wait_until <= now]
        self._may_fit |= bool(late)
        return [instruction for allocation in late for instruction in self._refuse(allocation, _too_late(allocation))]

    def _ask_for_nodes(self, now: float) -> Instructions:
        """Shows the autoscaler what waits, and takes it back when nothing waits."""
        rooms = self._scaling.ask([self._allocations[turn.allocation_id] for turn in self._queue], self._pool, now)
        return [] if rooms is None else [AskForNodes(rooms)]

    def _warn(self, now: float) -> Instructions:
        warning = self._watch.warning(len(self._queue), now)
        return [] if warning is None else [warning]

    # -- starting again

    @handle.register
    def _(self, event: events.Recovered) -> Instructions:
        """Rows with their group are held as before; rows without are planned anew; groups without a row are removed."""
        self._cordoned_before = frozenset(row["id"] for row in event.nodes if row["cordoned"])
        if event.asked:
            self._scaling.forget_what_was_asked()
        done: Instructions = []
        rows = [Allocation.parse(document) for document in event.allocations]
        for allocation in sorted(rows, key=lambda row: (row.created_at, row.id)):
            done += self._recover(self._put(allocation), event)
        for node_id in self._pool.node_ids:  # those that were seen before the rows were read
            self._restore_holdings(node_id)
            if node_id in self._cordoned_before:
                done += self._keep_node(self._members.change(node_id, cordoned=True))
        unknown = sorted(group for group in event.groups if not self.is_current(group))
        return [*done, *(_remove_unknown(group) for group in unknown), *self._serve(event.at)]

    def _recover(self, allocation: Allocation, event: events.Recovered) -> Instructions:
        if allocation.state == "waiting":
            self._queue.add(allocation.id, _shape(allocation), allocation.priority, allocation.created_at)
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
        if self._pool.holds(allocation_id):
            self._pool.deallocate(allocation_id)

    def _forget(self, allocation_id: str) -> None:
        del self._allocations[allocation_id]
        self._queue.remove(allocation_id)
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
