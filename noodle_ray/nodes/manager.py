"""The manager: nodes and allocations of one cluster as a state machine, events in, instructions out.

What becomes of allocations is in `leases`; here is what becomes of nodes, and the door for both.
"""

from __future__ import annotations

from typing import Any

from noodle_ray.nodes import events
from noodle_ray.nodes.figures import allocation_ratio, sums
from noodle_ray.nodes.instructions import Keep, Notice
from noodle_ray.nodes.leases import Instructions, Leases
from noodle_ray.nodes.membership import SUSPECT_AFTER_HEARTBEATS, Membership, Node, Silence
from noodle_ray.nodes.snapshot import Snapshot
from noodle_ray.placement.allocation import Allocation
from noodle_ray.placement.policies import DEFAULT_POLICY, policy_named
from noodle_ray.placement.prices import PriceInputs
from noodle_ray.settings import Settings
from noodle_ray.store.changes import Delete, Put


class Manager:
    """Decides where requests go and what becomes of them. `handle` is the one door through which its state changes."""

    def __init__(self, settings: Settings, default_policy: str = DEFAULT_POLICY, seed: int = 0) -> None:
        policy_named(default_policy)
        heartbeat_s = settings.node_heartbeat_interval_ms / 1000
        self._silence = Silence(SUSPECT_AFTER_HEARTBEATS * heartbeat_s, settings.node_timeout_ms / 1000)
        self._members = Membership(self._silence)
        self._leases = Leases(default_policy, seed)
        self._cordoned_before: frozenset[str] = frozenset()

    # -- views

    def allocations(self) -> list[Allocation]:
        return self._leases.allocations()

    def allocation(self, allocation_id: str, fence: str | None = None) -> Allocation:
        """Raises NotFound, and Conflict where `fence` is not its present home."""
        return self._leases.allocation(allocation_id, fence)

    def is_current(self, group: str) -> bool:
        """Whether the group is the home of an allocation that is not lost."""
        return self._leases.is_current(group)

    def nodes(self) -> list[Node]:
        return self._members.nodes()

    def node(self, node_id: str) -> Node:
        """Raises NotFound."""
        return self._members.node(node_id)

    def totals(self) -> dict[str, Any]:
        """The fleet in sums (see `figures.sums`), `allocation_ratio`, and how many nodes and allocations there are."""
        leases = self._leases
        counts = {"nodes": len(self._members.nodes()), "allocations": len(leases), "waiting": len(leases.queue)}
        ratios = {"ledger_differences": leases.watch.differences, "allocation_ratio": allocation_ratio(leases.pool)}
        return {**counts, **ratios, **sums(leases.pool)}

    def snapshot(self, now: float) -> Snapshot:
        """All of it, for whoever computes from it elsewhere: without explanations, which are asked for one by one."""
        leases = self._leases
        allocations = tuple(one.model_copy(update={"explanation": None}) for one in leases.in_order())
        return Snapshot(tuple(self._members.nodes()), leases.pool, leases.planner.chooser.workload, allocations, at=now)

    def figures(self, now: float) -> dict[str, float]:
        """What is worth watching, as plain numbers."""
        queue = self._leases.queue
        waiting = {"queue_length": len(queue), "oldest_wait_seconds": queue.oldest_wait_s(now)}
        return {**waiting, **self._leases.watch.figures()}

    def price_inputs(self) -> PriceInputs | None:
        """What new prices are to be computed from, when they are due; they come back as Priced."""
        return self._leases.planner.price_inputs()

    # -- the door

    def handle(self, event: events.Event) -> Instructions:
        """Takes what happened in and gives what is to be done, in that order.

        Raises Conflict for a claim under another's id, and for a release or a renewal by a holder of a former home.
        """
        leases = self._leases
        match event:
            case events.Claimed():
                return leases.claimed(event)
            case events.GroupCreated():
                return leases.group_created(event)
            case events.GroupFailed():
                return leases.group_failed(event)
            case events.GroupRemoved():
                return leases.group_removed(event)
            case events.GroupVanished():
                return leases.group_vanished(event)
            case events.GroupFound():
                return leases.group_found(event)
            case events.ReleaseRequested():
                return leases.release_requested(event)
            case events.LeaseRenewed():
                return leases.lease_renewed(event)
            case events.OwnerGone():
                return leases.owner_gone(event)
            case events.OthersObserved():
                return leases.others_observed(event)
            case events.GpusObserved():
                return leases.gpus_observed(event)
            case events.NodeTypesSeen(types):
                leases.scaling.types = types
                return []
            case events.Priced(prices):
                leases.planner.use(prices)
                return []
            case _:
                return self._handle_of_nodes(event)

    def _handle_of_nodes(self, event: events.Event) -> Instructions:
        match event:
            case events.NodeJoined():
                return self._joined(event)
            case events.NodeLeft():
                return self._left(event)
            case events.NodeReported():
                return self._reported(event)
            case events.NodeCordoned():
                return self._cordoned(event)
            case events.Tick(at):
                return [*self._judge_silence(at), *self._leases.tick(at, self._silence.dead_after_s)]
            case events.Recovered():
                return self._recovered(event)
        raise TypeError(f"no event of a manager: {event!r}")

    # -- nodes

    def _joined(self, event: events.NodeJoined) -> Instructions:
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
        self._leases.pool.add_node(node.id, node.resources)
        self._leases.restore_holdings(node.id)
        joined = Notice("node_joined", f"{node.name} joined", {"node": node.id})
        return [*self._keep_node(node), joined, *self._leases.serve(event.at)]

    def _left(self, event: events.NodeLeft) -> Instructions:
        if not self._members.knows(event.node_id):
            return []
        name = self._members.node(event.node_id).name
        self._members.forget(event.node_id)
        return [
            Keep(Delete("nodes", event.node_id)),
            Notice("node_left", f"{name} left", {"node": event.node_id}),
            *self._leases.lose_node(event.node_id),
            *self._leases.serve(event.at),
        ]

    def _reported(self, event: events.NodeReported) -> Instructions:
        if not self._members.knows(event.node_id):
            return []
        was = self._members.node(event.node_id).state
        node = self._members.change(event.node_id, metrics=event.metrics, heard_at=event.at, state="alive")
        if was == "alive":
            return []
        if was == "dead":  # it was only silent: it comes back empty, for its allocations were given up
            self._leases.pool.add_node(node.id, node.resources)
        self._open_or_close(node.id)
        return [Notice("node_alive", f"{node.name} is back", {"node": node.id}), *self._leases.serve(event.at)]

    def _cordoned(self, event: events.NodeCordoned) -> Instructions:
        if not self._members.knows(event.node_id):
            return []
        kept = self._keep_node(self._members.change(event.node_id, cordoned=event.cordoned))
        return [*kept, *self._leases.serve(event.at)]

    def _open_or_close(self, node_id: str) -> None:
        if self._leases.pool.has_node(node_id):
            self._leases.pool.cordon(node_id, not self._members.node(node_id).is_open)

    def _keep_node(self, node: Node) -> Instructions:
        self._open_or_close(node.id)
        document = {"id": node.id, "name": node.name, "cordoned": node.cordoned, "joined_at": node.joined_at}
        return [Keep(Put("nodes", node.id, document))]

    def _judge_silence(self, now: float) -> Instructions:
        done: Instructions = []
        for node, health in self._members.overdue(now):
            self._members.change(node.id, state=health)
            self._open_or_close(node.id)
            done.append(Notice(f"node_{health}", f"{node.name} is {health}", {"node": node.id}))
            if health == "dead":
                done += self._leases.lose_node(node.id)
        return done

    def _recovered(self, event: events.Recovered) -> Instructions:
        self._cordoned_before = frozenset(row["id"] for row in event.nodes if row["cordoned"])
        done = self._leases.recovered(event)
        for node in self._members.nodes():  # those that were seen before the rows were read
            if node.id in self._cordoned_before:
                done += self._keep_node(self._members.change(node.id, cordoned=True))
        return [*done, *self._leases.serve(event.at)]
