"""The manager: nodes and allocations of one cluster as a state machine, events in, instructions out.

What becomes of allocations is in `leases`; here is what becomes of nodes, and the door for both.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from noodle_ray.errors import Conflict
from noodle_ray.nodes import events
from noodle_ray.nodes.detector import Detector, Verdict
from noodle_ray.nodes.figures import allocation_ratio, sums
from noodle_ray.nodes.instructions import Instructions, Keep, Notice, ProbeNode, RetireNode, WatchPeers
from noodle_ray.nodes.leases import Leases
from noodle_ray.nodes.membership import SUSPECT_AFTER_HEARTBEATS, Membership, Node, Silence
from noodle_ray.nodes.snapshot import Snapshot
from noodle_ray.placement.allocation import Allocation
from noodle_ray.placement.policies import DEFAULT_POLICY, policy_named
from noodle_ray.placement.prices import PriceInputs
from noodle_ray.settings import Settings
from noodle_ray.store.changes import Delete, Document, Put

OWN_STALL_S = 10.0
"""A manager that has not looked for so long was held up, or its clock was set: it has heard nothing, whoever spoke."""

RETIRE_AGAIN_S = 10.0
"""A node that was told that it may leave, and is still there, is told again this often."""


class Manager:
    """Decides where requests go and what becomes of them. `handle` is the one door through which its state changes."""

    def __init__(self, settings: Settings, default_policy: str = DEFAULT_POLICY, seed: int = 0) -> None:
        policy_named(default_policy)
        heartbeat_s = settings.node_heartbeat_interval_ms / 1000
        self._silence = Silence(SUSPECT_AFTER_HEARTBEATS * heartbeat_s, settings.node_timeout_ms / 1000)
        self._members = Membership(self._silence)
        self._leases = Leases(default_policy, seed)
        self._detector = Detector()
        self._rows_before: dict[str, Document] = {}
        self._retired_at: dict[str, float] = {}
        self._ticked_at: float | None = None

    # -- views

    def allocations(self) -> list[Allocation]:
        return self._leases.allocations()

    def missing(self, allocation_ids: Iterable[str]) -> list[str]:
        """Those of them that hold nothing any more: lost with their nodes, or unknown."""
        return self._leases.missing(allocation_ids)

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
        nodes = self._members.nodes()
        states = {
            f"nodes_{state}": sum(node.state == state for node in nodes) for state in ("alive", "suspect", "dead")
        }
        late = {"late_heartbeats": sum(now - node.heard_at > self._silence.suspect_after_s for node in nodes)}
        draining = {"nodes_draining": sum(node.drain_until is not None for node in nodes)}
        return {**waiting, **states, **draining, **late, **self._leases.watch.figures()}

    def price_inputs(self) -> PriceInputs | None:
        """What new prices are to be computed from, when they are due; they come back as Priced."""
        return self._leases.planner.price_inputs()

    # -- the door

    def handle(self, event: events.Event) -> Instructions:
        """Takes what happened in and gives what is to be done, in that order.

        Raises Conflict for a claim under another's id, for a release or a renewal by a holder of a former home, and
        for a label that Ray itself gives the node.
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
            case events.MoveConfirmed():
                return leases.move_confirmed(event)
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
            case events.NodeUpdated():
                return self._updated(event)
            case events.DrainRequested():
                return self._drain(event)
            case events.AgentStarted():
                return self._agent_started(event)
            case events.PeersObserved():
                return self._observed(event)
            case events.NodeProbed(node_id, by, reached, at):
                return self._judge([self._detector.probed(node_id, by, reached, at)], at)
            case events.Tick(at):
                return self._tick(at)
            case events.Recovered():
                return self._recovered(event)
        raise TypeError(f"no event of a manager: {event!r}")

    def _tick(self, now: float) -> Instructions:
        done = [*self._forgive_stall(now), *self._judge_silence(now), *self._follow_drains(now)]
        return [*done, *self._watch_and_probe(now), *self._leases.tick(now, self._silence.dead_after_s)]

    def _forgive_stall(self, now: float) -> Instructions:
        """Begins every silence and every lease anew where the time that passed says nothing about anybody else."""
        passed_s = 0.0 if self._ticked_at is None else now - self._ticked_at
        self._ticked_at = now
        if 0 <= passed_s <= OWN_STALL_S:
            return []
        for node in self._members.nodes():
            self._members.change(node.id, heard_at=now)
        self._detector.forgive_stall()
        self._retired_at = dict.fromkeys(self._retired_at, now)
        return self._leases.forgive_stall(now)

    # -- nodes come and go

    def _joined(self, event: events.NodeJoined) -> Instructions:
        if self._members.knows(event.node_id):
            return []
        row = self._rows_before.get(event.node_id, {})
        node = Node(
            id=event.node_id,
            name=row.get("name") or event.name,
            address=event.address,
            resources=replace(event.resources, labels={**event.resources.labels, **row.get("given_labels", {})}),
            given_labels=row.get("given_labels", {}),
            pretended=event.pretended,
            cordoned=row.get("cordoned", False),
            drain_until=row.get("drain_until"),
            joined_at=event.at,
            heard_at=event.at,
        )
        self._members.put(node)
        self._leases.pool.add_node(node.id, node.resources)
        self._leases.restore_holdings(node.id)
        self._members.note(node.id, "alive", "joined", event.at)
        joined = Notice("node_joined", f"{node.name} joined", {"node": node.id})
        return [*self._keep_node(node), joined, *self._resume_drain(node, event.at), *self._leases.serve(event.at)]

    def _left(self, event: events.NodeLeft) -> Instructions:
        if not self._members.knows(event.node_id):
            return []
        name = self._members.node(event.node_id).name
        self._members.forget(event.node_id)
        self._detector.forget(event.node_id)
        self._retired_at.pop(event.node_id, None)
        return [
            Keep(Delete("nodes", event.node_id)),
            Notice("node_left", f"{name} left", {"node": event.node_id}),
            *self._leases.lose_node(event.node_id, event.at),
            *self._watch_and_probe(event.at),
            *self._leases.serve(event.at),
        ]

    def _cordoned(self, event: events.NodeCordoned) -> Instructions:
        """Opening a node again also calls its draining off."""
        if not self._members.knows(event.node_id):
            return []
        word = "cordoned" if event.cordoned else "opened"
        drain_until = self._members.node(event.node_id).drain_until if event.cordoned else None
        fields = {"cordoned": event.cordoned, "drain_until": drain_until}
        kept = self._keep_node(self._members.note(event.node_id, word, "asked for", event.at, **fields))
        if event.cordoned:
            return kept
        self._retired_at.pop(event.node_id, None)
        return [*kept, *self._leases.stop_draining(event.node_id), *self._leases.serve(event.at)]

    def _updated(self, event: events.NodeUpdated) -> Instructions:
        """Labels count at once for what is placed from now on; what is held stays where it is."""
        if not self._members.knows(event.node_id):
            return []
        node = self._members.node(event.node_id)
        given = dict(node.given_labels if event.labels is None else event.labels)
        rays = {name: value for name, value in node.resources.labels.items() if name not in node.given_labels}
        if taken := sorted(rays.keys() & given.keys()):
            raise Conflict(f"Ray itself gives {node.name} the label {taken[0]}: it cannot be another")
        resources = replace(node.resources, labels={**rays, **given})
        name = event.name or node.name
        self._members.note(
            node.id, "updated", "asked for", event.at, name=name, given_labels=given, resources=resources
        )
        if self._leases.pool.has_node(node.id):
            self._leases.pool.relabel(node.id, resources.labels)
        return [*self._keep_node(self._members.node(node.id)), *self._leases.serve(event.at)]

    def _open_or_close(self, node_id: str) -> None:
        if self._leases.pool.has_node(node_id):
            self._leases.pool.cordon(node_id, not self._members.node(node_id).is_open)

    def _keep_node(self, node: Node) -> Instructions:
        self._open_or_close(node.id)
        fields = ("id", "name", "cordoned", "drain_until", "given_labels", "joined_at")
        return [Keep(Put("nodes", node.id, {name: getattr(node, name) for name in fields}))]

    # -- draining

    def _drain(self, event: events.DrainRequested) -> Instructions:
        if not self._members.knows(event.node_id):
            return []
        node = self._members.note(
            event.node_id,
            "draining",
            f"asked for, within {event.until - event.at:.0f} s",
            event.at,
            drain_until=event.until,
        )
        notice = Notice("node_draining", f"{node.name} is drained", {"node": node.id, "until": event.until})
        return [*self._keep_node(node), notice, *self._resume_drain(node, event.at)]

    def _resume_drain(self, node: Node, now: float) -> Instructions:
        if node.drain_until is None:
            return []
        return [*self._leases.drain(node.id, now), *self._follow_drains(now)]

    def _follow_drains(self, now: float) -> Instructions:
        """Ends what is left where the time is over, and lets nodes go that are empty."""
        done: Instructions = []
        for node in self._members.nodes():
            if node.drain_until is None:
                continue
            if node.id in self._retired_at:
                done += self._retire_again(node.id, now)
                continue
            if now >= node.drain_until:
                done += self._leases.end_drain(node.id, now)
            if self._leases.is_empty(node.id):
                self._retired_at[node.id] = now
                self._members.note(node.id, "drained", "nothing is left on it", now)
                notice = Notice("node_drained", f"{node.name} is empty and may leave", {"node": node.id})
                done += [notice, RetireNode(node.id)]
        return done

    def _retire_again(self, node_id: str, now: float) -> Instructions:
        """It may not have heard of it."""
        if now - self._retired_at[node_id] < RETIRE_AGAIN_S:
            return []
        self._retired_at[node_id] = now
        return [RetireNode(node_id)]

    # -- whether they are alive

    def _reported(self, event: events.NodeReported) -> Instructions:
        """An agent's slow report: its node is alive, unless others have said meanwhile that it is not."""
        if not self._members.knows(event.node_id):
            return []
        node = self._members.change(event.node_id, metrics=event.metrics, heard_at=event.at)
        if event.endpoint is not None and event.endpoint != self._detector.endpoint(node.id):
            return self._agent_started(events.AgentStarted(node.id, event.endpoint, event.at))
        self._detector.tell_again(node.id)
        return self._judge([Verdict(node.id, "alive", "its agent reported")], event.at)

    def _agent_started(self, event: events.AgentStarted) -> Instructions:
        if not self._members.knows(event.node_id):
            return []
        started_again = self._detector.endpoint(event.node_id) is not None
        self._detector.started(event.node_id, event.endpoint)
        self._members.change(event.node_id, heard_at=event.at)
        alive = self._judge([Verdict(event.node_id, "alive", "its agent runs")], event.at)
        # Many may join at once: a ring with all of them is made with the next tick. Who was on it is watched at once.
        return [*alive, *(self._watch_and_probe(event.at) if started_again else [])]

    def _observed(self, event: events.PeersObserved) -> Instructions:
        observed = self._detector.observed
        verdicts = [verdict for seen in event.observations for verdict in observed(event.by, seen, event.at)]
        if self._is_dead(event.by) and any(seen.what == "heard" for seen in event.observations):
            verdicts.append(Verdict(event.by, "alive", "it hears others again"))
        return [*self._judge(verdicts, event.at), *self._watch_and_probe(event.at)]

    def _judge(self, verdicts: Iterable[Verdict | None], now: float) -> Instructions:
        done: Instructions = []
        for verdict in verdicts:
            if verdict is not None and self._members.knows(verdict.node_id):
                done += self._apply(verdict, now)
        return done

    def _apply(self, verdict: Verdict, now: float) -> Instructions:
        node = self._members.node(verdict.node_id)
        if node.state == verdict.state or (node.state == "dead" and verdict.state == "suspect"):
            return []
        was = node.state
        self._members.note(node.id, verdict.state, verdict.reason, now, state=verdict.state)
        if "dead" in (was, verdict.state):
            self._detector.agents_changed()
        details = {"node": node.id, "reason": verdict.reason}
        notice = Notice(f"node_{verdict.state}", f"{node.name} is {verdict.state}: {verdict.reason}", details)
        if verdict.state == "alive":
            self._members.change(node.id, heard_at=now)
            if was == "dead":  # it was only silent; Ray may still have what was given up
                self._leases.pool.add_node(node.id, node.resources)
                self._leases.node_returned(node.id)
        self._open_or_close(node.id)
        if verdict.state == "dead":
            return [notice, *self._leases.lose_node(node.id, now), *self._leases.serve(now)]
        return [notice, *(self._leases.serve(now) if verdict.state == "alive" else [])]

    def _judge_silence(self, now: float) -> Instructions:
        """The outer limit: agents that have not reported for so long, whatever others say."""
        verdicts = [
            Verdict(node.id, health, f"no report for {now - node.heard_at:.0f} s")
            for node, health in self._members.overdue(now)
            if health != "alive"
        ]
        return self._judge(verdicts, now)

    def _watch_and_probe(self, now: float) -> Instructions:
        watches = [WatchPeers(by, peers) for by, peers in self._detector.new_watches(self._not_dead)]
        return [*watches, *(ProbeNode(peer, by) for peer, by in self._detector.due_probes(self._is_alive, now))]

    def _not_dead(self) -> list[str]:
        return [node.id for node in self._members.nodes() if node.state != "dead"]

    def _is_dead(self, node_id: str) -> bool:
        return self._members.knows(node_id) and self._members.node(node_id).state == "dead"

    def _is_alive(self, node_id: str) -> bool:
        return self._members.knows(node_id) and self._members.node(node_id).state == "alive"

    # -- starting again

    def _recovered(self, event: events.Recovered) -> Instructions:
        self._rows_before = {row["id"]: row for row in event.nodes}
        done = self._leases.recovered(event)
        for node in self._members.nodes():  # those that were seen before the rows were read
            row = self._rows_before.get(node.id, {})
            fields = {"cordoned": row.get("cordoned", False), "drain_until": row.get("drain_until")}
            if any(fields.values()):
                kept = self._members.change(node.id, **fields)
                done += [*self._keep_node(kept), *self._resume_drain(kept, event.at)]
        return [*done, *self._leases.serve(event.at)]
