"""Leases: every allocation of a cluster as a state machine, from its claim to its end, with the ledger and the queue.

An allocation's life: waiting (it fits nowhere now) → reserving (its intent is kept, its group on its way) → held →
releasing (its group on its way out) → gone. When one of its nodes dies, `homes` has it held anew, or it is lost: the
holder is told, and the row stays until it is released. Capacity comes back only when Ray has let go of the group, so
that nothing is promised twice; then it is offered to those who wait, in their order.
"""

from __future__ import annotations

from noodle_ray.errors import Conflict, DoesNotFit, NoodleError, NotFound, Unavailable
from noodle_ray.nodes import events
from noodle_ray.nodes.homes import Homes
from noodle_ray.nodes.instructions import (
    Granted,
    Instructions,
    Queued,
    Refused,
    Released,
    RemoveGroup,
)
from noodle_ray.nodes.lease_queue import shape_of
from noodle_ray.placement.allocation import Allocation
from noodle_ray.placement.claim import Claim

RESERVING_S, SOON_S = 15.0, 2.0
"""How long Ray may take to reserve what was not to wait for room; what was to wait has that time, but at least a few
moments. Whoever asked has given up by then."""


class Leases(Homes):
    """Who holds what, who waits, and what is to be done about it, as one machine: claims and Ray's news come in here.

    In layers, each of which uses what is below it: `LeaseBook`, `LeaseQueue`, `Homes`, and this.
    """

    # -- claims

    def claimed(self, event: events.Claimed) -> Instructions:
        claim = event.claim
        if claim.id in self._allocations:
            return self._claimed_again(self._allocations[claim.id], claim)
        self.planner.note(claim.request)
        done = self._place(self._new(claim, event.at), event.at)
        if claim.id in self._allocations and claim.wait_s is not None:
            self._reserve_by[claim.id] = event.at + (max(claim.wait_s, SOON_S) if claim.wait_s else RESERVING_S)
        return done

    def _place(self, allocation: Allocation, at: float) -> Instructions:
        ahead = self.queue.ahead(shape_of(allocation), allocation.priority, at)
        if ahead is not None:
            return self._line_up_behind(allocation, self._allocations[ahead], at)
        try:
            return self._reserve(allocation, self._plan(allocation))
        except DoesNotFit as error:
            return self._wait_or_refuse(allocation, error, at)
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

    # -- what Ray says of groups

    def group_created(self, event: events.GroupCreated) -> Instructions:
        if (spared := self._spared(event.allocation_id, event.epoch)) is not None:
            return self._spare_created(spared)
        allocation = self._current(event.allocation_id, event.epoch)
        if allocation is None or allocation.state != "reserving":
            return self._remove_stale(event)
        self._forget_attempts(allocation.id)
        self._reserve_by.pop(allocation.id, None)
        held = self._put(allocation.model_copy(update={"state": "held"}))
        return [self._keep(held), Granted(held), *self._note_failover(held, event.at), *self._spare(held.id, event.at)]

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

    # -- leases and ends

    def release_requested(self, event: events.ReleaseRequested) -> Instructions:
        if event.allocation_id not in self._allocations:
            return [Released(event.allocation_id)]
        self.allocation(event.allocation_id, event.fence)
        done = self._release(self._allocations[event.allocation_id])
        return [*done, *self.serve(event.at)]

    def _release(self, allocation: Allocation, why: NoodleError | None = None) -> Instructions:
        """`why` is what those are told who still wait for it to be held."""
        if allocation.state == "releasing":
            return []
        why = why or Conflict(f"allocation {allocation.id} was released before it was held")
        refused = Refused(allocation.id, why)
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

    # -- time

    def tick(self, now: float, patience_s: float) -> Instructions:
        """Ends what is overdue, serves those who wait. `patience_s`: how long a restarted manager waits for nodes."""
        done = [*self._expire(now), *self._give_up_nodes(now, patience_s)]
        done += [*self._follow_deadline(now), *self._give_up_late(now)]
        if self._may_fit:
            done += self.serve(now)
        elif self._move_earmark(now):
            done += self._round(now)
        return [*done, *self._retry_spares(now), *self._ask_for_nodes(now), *self._warn(now)]

    def _expire(self, now: float) -> Instructions:
        late = [a for a in self._allocations.values() if a.expires_at is not None and a.expires_at < now]
        self._may_fit |= bool(late)  # one that waited may have had nodes kept for it
        return [instruction for allocation in late for instruction in self._release(allocation)]

    def _give_up_late(self, now: float) -> Instructions:
        """What Ray has not reserved in time, nobody waits for any more: it makes room for what is still waited for.

        Without this, a Ray that was slow for a while would be kept busy by those who have gone, and stay slow for all.
        """
        late = [self._allocations[key] for key, limit in self._reserve_by.items() if limit <= now]
        why = Unavailable("Ray did not reserve it in the time that it was to wait at most; ask again")
        return [instruction for one in late if one.state == "reserving" for instruction in self._release(one, why)]

    def _give_up_nodes(self, now: float, patience_s: float) -> Instructions:
        """Allocations of before a restart, whose nodes did not all show themselves in time, are lost."""
        late = [key for key, since in self._waiting_for_node.items() if now - since > patience_s]
        self._may_fit |= bool(late)
        return [instruction for key in late for instruction in self._lose(self._allocations[key], (), now)]

    def forgive_stall(self, now: float) -> Instructions:
        """Nobody could renew a lease, or the clock was set: leases, and waits for nodes, begin anew."""
        self._spare_tried.clear()
        self._waiting_for_node = dict.fromkeys(self._waiting_for_node, now)
        self._reserve_by = {key: max(limit, now + SOON_S) for key, limit in self._reserve_by.items()}
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
            self.queue.add(allocation.id, shape_of(allocation), allocation.priority, allocation.created_at)
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


def _remove_unknown(group: str) -> RemoveGroup:
    allocation_id, _, epoch = group.rpartition(".")
    return RemoveGroup(allocation_id, int(epoch), group)
