"""The lease queue: who waits for room, who is refused it, and who is offered what becomes free."""

from __future__ import annotations

from noodle_ray.errors import DoesNotFit, NoodleError, Unavailable
from noodle_ray.nodes import events
from noodle_ray.nodes.instructions import (
    AskForNodes,
    Instructions,
    Keep,
    Queued,
    Refused,
    Released,
)
from noodle_ray.nodes.lease_book import LeaseBook
from noodle_ray.placement.allocation import Allocation
from noodle_ray.placement.explanation import Explanation
from noodle_ray.placement.refusal import Refusal
from noodle_ray.store.changes import Delete


class LeaseQueue(LeaseBook):
    """A lease book with those who wait for room."""

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
        self.queue.add(waiting.id, shape_of(waiting), waiting.priority, waiting.created_at)
        queued: Instructions = [self._keep(waiting), Queued(self._as_seen(waiting))]
        return [*queued, *(self._round(now) if self._move_earmark(now) else [])]

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
        self.queue.add(waiting.id, shape_of(waiting), waiting.priority, waiting.created_at)
        return [self._keep(waiting), Queued(self._as_seen(waiting))]

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

    def _refuse(self, allocation: Allocation, error: NoodleError) -> Instructions:
        if allocation.id not in self._allocations:
            return [Refused(allocation.id, error)]
        self._forget(allocation.id)
        return [Keep(Delete("allocations", allocation.id)), Refused(allocation.id, error)]

    def _free(self, allocation: Allocation) -> Instructions:
        self._take_back(allocation.id)
        self._forget(allocation.id)
        return [Keep(Delete("allocations", allocation.id)), Released(allocation.id)]

    # -- offering room

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

    def others_observed(self, event: events.OthersObserved) -> Instructions:
        before = self._others.get(event.node_id)
        if not self.pool.has_node(event.node_id) or _same_use(before, event):
            return []
        self._others[event.node_id] = event
        self.pool.set_foreign(event.node_id, event.amounts, event.gpu_units)
        return self.serve(event.at) if before is not None else []

    # -- time

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


def shape_of(allocation: Allocation) -> str:
    """The same for allocations of which none fits unless the other does."""
    return f"{allocation.policy} {allocation.request.model_dump_json(exclude={'movable'})}"


def _too_late(allocation: Allocation) -> DoesNotFit:
    assert allocation.explanation is not None
    why = allocation.explanation
    return DoesNotFit(Refusal(str(allocation.request), why.considered, why.filtered, {}, never=False))


def _same_use(before: events.OthersObserved | None, now: events.OthersObserved) -> bool:
    return before is not None and (before.amounts, before.gpu_units) == (now.amounts, now.gpu_units)
