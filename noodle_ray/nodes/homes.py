"""Homes: what becomes of allocations whose node dies, returns or is drained, and second homes to fall back on."""

from __future__ import annotations

from collections.abc import Sequence

from noodle_ray.errors import DoesNotFit, Unavailable
from noodle_ray.nodes import events
from noodle_ray.nodes.instructions import (
    CreateGroup,
    Granted,
    Instructions,
    Notice,
    RemoveGroup,
)
from noodle_ray.nodes.lease_book import nodes_of, pinned_bundles
from noodle_ray.nodes.lease_queue import LeaseQueue
from noodle_ray.placement.allocation import Allocation, Spare

HOMES_TRIED = 3
"""Homes that a request is tried in, where Ray does not reserve what the ledger holds for free."""

SPARE_AGAIN_S = 5.0
"""How often a second home is looked for that there was no room for."""


class Homes(LeaseQueue):
    """A lease queue whose allocations outlive their nodes, if they are to."""

    # -- losing a node

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

    def _note_failover(self, allocation: Allocation, now: float) -> Instructions:
        since = self._homeless_since.pop(allocation.id, None)
        if since is None:
            return []
        self.watch.failed_over(now - since)
        details = {"allocation": allocation.id, "after_s": round(now - since, 4)}
        return [Notice("held_anew", f"{allocation.id} is held anew after {now - since:.3f} s", details)]

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

    def node_returned(self, node_id: str) -> None:
        """A node that was held for dead is there again, and with it what Ray has not let go of yet."""
        for leaving in self._leaving.values():
            if node_id in nodes_of(leaving.bundles):
                if self.pool.holds(leaving.key):
                    self.pool.deallocate(leaving.key)
                self._book_survivors(leaving.key, leaving.bundles, leaving.anti_affinity)

    # -- second homes

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
        return [self._keep(kept), CreateGroup(kept.id, epoch, group, pinned_bundles(spare.bundles))]

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
        return [one for one in self._allocations.values() if one.spare and node_id in nodes_of(one.spare.bundles)]

    def _drop_spare(self, allocation: Allocation) -> Instructions:
        """Gives the second home up; what it holds on nodes that are there is free when Ray has let go of it."""
        spare = allocation.spare
        if spare is None:
            return []
        self._note_leaving(allocation, allocation.spare_group, allocation.spare_group, spare.bundles)
        without = self._put(allocation.model_copy(update={"spare": None}))
        return [self._keep(without), RemoveGroup(allocation.id, spare.epoch, allocation.spare_group)]

    def _retry_spares(self, now: float) -> Instructions:
        tried = self._spare_tried
        due = [one.id for one in self._allocations.values() if self._wants_spare(one)]
        due = [one for one in due if now - tried.get(one, float("-inf")) >= SPARE_AGAIN_S]
        return [step for one in due for step in self._spare(one, now)]

    def move_confirmed(self, event: events.MoveConfirmed) -> Instructions:
        """The holder works in the second home: only for a move, for a standby stays where it is."""
        allocation = self._allocations.get(event.allocation_id)
        spare = allocation.spare if allocation else None
        if allocation is None or spare is None or spare.epoch != event.epoch or not self._has_ready_spare(allocation):
            return []
        return [*self._move_in(allocation), *self._spare(allocation.id, event.at)]

    # -- draining

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

    # -- what Ray gave

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

    # -- nodes from before a restart

    def restore_holdings(self, node_id: str) -> None:
        """Books what allocations from before a restart hold on a node that is back in sight."""
        for allocation in self._allocations.values():
            if allocation.id in self._waiting_for_node and node_id in allocation.node_ids:
                self._restore(allocation)
            if allocation.spare is not None and node_id in nodes_of(allocation.spare.bundles):
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
