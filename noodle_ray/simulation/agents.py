"""The agents: on each node the real `PeerWatch`, fed with what it would hear, and reports at every heartbeat.

How probes are modelled: while every watched node runs and every link is clean, each probe is answered, nothing is
worth telling, and nothing is simulated. When that changes, every watch is brought to that moment (all answered, within
the last probe interval), and from then on looks every half second: of each peer it either got one of the two answers
of that time or not. When all is well again, and there was no news for a while, the looking stops. What an agent tells
the manager goes through the network: it may be late, stuck in a cut, lost or told twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from noodle_ray.nodes.instructions import ProbeNode, WatchPeers
from noodle_ray.nodes.metrics import ResourceMetrics
from noodle_ray.nodes.peers import Endpoint, Observation, Peer, PeerWatch
from noodle_ray.settings import Settings
from noodle_ray.simulation.head import Head
from noodle_ray.simulation.network import HEAD, Network
from noodle_ray.simulation.ray_model import RayModel, RayNode
from noodle_ray.simulation.world import World

LOOK_S = 0.5
QUIET_LOOKS = 4
"""Looks without news, and with all well, after which there is no more looking."""

PROBE_PAUSE_S = 0.15
"""Between two probes of a suspected node."""

METRICS = ResourceMetrics(
    cpu_count=4,
    cpu_used_ratio=0.5,
    memory_total_bytes=100,
    memory_used_bytes=50,
    disk_total_bytes=100,
    disk_used_bytes=20,
    network_sent_bytes=0,
    network_received_bytes=0,
    taken_at=0.0,
)


@dataclass(slots=True)
class Agent:
    """One node's agent. `runs`: its own process does; that of its node is another matter."""

    node: RayNode
    endpoint: Endpoint
    watch: PeerWatch
    runs: bool = True
    frozen_at: float = float("-inf")
    inbox: list[object] = field(default_factory=list)

    @property
    def is_awake(self) -> bool:
        return self.runs and self.node.runs


class Agents:
    """All agents, by node id."""

    def __init__(self, world: World, network: Network, ray: RayModel, head: Head, settings: Settings) -> None:
        self._world, self._network, self._ray, self._head = world, network, ray, head
        self._settings = settings
        self._random = world.stream("agents")
        self._agents: dict[str, Agent] = {}
        self._ports = 0
        self._quiet_for = QUIET_LOOKS
        head.on_watch, head.on_probe, head.on_greet = self.watch, self.probe, self.greet

    # -- starting

    def start(self, node: RayNode) -> None:
        """Starts the agent of the node, anew where there was one: it forgets, and answers at another port."""
        self._ports += 1
        endpoint = Endpoint(f"10.0.0.{node.slot}", 10_000 + self._ports, 6000)
        again = node.id in self._agents
        agent = Agent(node, endpoint, PeerWatch(self._settings.node_suspect_after_ms / 1000))
        self._agents[node.id] = agent
        self._tell_of(agent)
        if not again:
            first = self._random.uniform(0, self._settings.node_heartbeat_interval_ms / 1000)
            self._world.after(first, lambda: self._beat(node.id))

    def stop(self, node_id: str) -> None:
        """The agent's process ends; Ray starts it again in a moment."""
        agent = self._agents.get(node_id)
        if agent is not None and agent.is_awake:
            agent.runs = False
            self._world.after(self._random.uniform(1, 4), lambda: self._start_again(agent))

    def _start_again(self, agent: Agent) -> None:
        if agent.node.id not in self._ray.nodes:
            return
        if agent.node.runs:
            self.start(agent.node)
        elif agent.node.exists:
            self._world.after(1.0, lambda: self._start_again(agent))

    def greet(self, node_id: str) -> None:
        """The manager asks where the agent answers."""
        agent = self._agents.get(node_id)
        if agent is not None and agent.is_awake:
            self._tell_of(agent)

    def _tell_of(self, agent: Agent) -> None:
        self._network.call(agent.node.id, HEAD, lambda: self._head.agent_started(agent.node.id, agent.endpoint))

    def _beat(self, node_id: str) -> None:
        agent = self._agents[node_id]
        if node_id not in self._ray.nodes:
            return
        if agent.is_awake:
            self._network.call(node_id, HEAD, lambda: self._head.reported(node_id, METRICS, agent.endpoint))
        self._world.after(self._settings.node_heartbeat_interval_ms / 1000, lambda: self._beat(node_id))

    # -- watching

    def watch(self, order: WatchPeers) -> None:
        """The manager has an agent watch these; one that is held up hears of it afterwards."""
        self._network.call(HEAD, order.by, lambda: self._take_watch(order))

    def _take_watch(self, order: WatchPeers) -> None:
        agent = self._agents.get(order.by)
        if agent is None or not agent.runs or not agent.node.exists:
            return
        if not agent.node.runs:
            self._world.after(LOOK_S, lambda: self._take_watch(order))
            return
        agent.watch.watch(order.peers, self._world.now)
        self.look_if_needed()

    def before_change(self) -> None:
        """To be called before anything stops, starts, or is cut: up to now all was as it is still."""
        if self._quiet_for < QUIET_LOOKS:
            return
        for agent in self._awake():
            for peer in agent.watch.peers:
                if self._is_well(agent, peer):
                    heard_at = self._world.now - self._random.uniform(0, self._settings.node_probe_interval_ms / 1000)
                    agent.watch.answered(peer.node_id, heard_at)
            agent.watch.look(self._world.now)

    def look_if_needed(self) -> None:
        """To be called after each change: the watches look from now on, if anything is not well."""
        if self._quiet_for >= QUIET_LOOKS and not self._all_well():
            self._quiet_for = 0
            self._world.after(self._random.uniform(0, LOOK_S), self._look)

    @property
    def is_quiet(self) -> bool:
        return self._quiet_for >= QUIET_LOOKS

    def _awake(self) -> list[Agent]:
        return [agent for agent in self._agents.values() if agent.is_awake]

    def _all_well(self) -> bool:
        return self._network.is_clean and all(
            self._is_well(agent, peer) for agent in self._awake() for peer in agent.watch.peers
        )

    def _is_well(self, agent: Agent, peer: Peer) -> bool:
        other = self._agents[peer.node_id]
        return (
            other.is_awake
            and (other.endpoint is peer.endpoint or other.endpoint == peer.endpoint)
            and self._network.connected(agent.node.id, peer.node_id)
        )

    def _look(self) -> None:
        news = [self._look_of(agent) for agent in self._awake()]
        self._quiet_for = self._quiet_for + 1 if self._all_well() and not any(news) else 0
        if self._quiet_for < QUIET_LOOKS:
            self._world.after(LOOK_S, self._look)

    def _look_of(self, agent: Agent) -> bool:
        seen = [one for peer in agent.watch.peers if (one := self._ask(agent, peer)) is not None]
        seen += agent.watch.look(self._world.now)
        if seen:
            self._tell(agent, tuple(seen))
        return bool(seen)

    def _ask(self, agent: Agent, peer: Peer) -> Observation | None:
        """What half a second of probes says of a peer."""
        now, node = self._world.now, agent.node.id
        other = self._agents[peer.node_id]
        # One that is not answered is repeated after half an interval.
        probes = round(2 * LOOK_S * 1000 / self._settings.node_probe_interval_ms)
        if self._is_well(agent, peer):
            answered = self._network.answered(node, peer.node_id, probes)
            return agent.watch.answered(peer.node_id, now) if answered else None
        refused = other.node.ports_closed or ((other.node.runs and other.endpoint != peer.endpoint) or not other.runs)
        if refused and self._network.answered(node, peer.node_id, probes):
            return agent.watch.closed(peer.node_id, other.node.ports_closed, now)
        return None

    def _tell(self, agent: Agent, seen: Sequence[Observation]) -> None:
        by = agent.node.id
        self._network.call(by, HEAD, lambda: self._head.peers_observed(by, tuple(seen)))

    # -- probing

    def probe(self, order: ProbeNode) -> None:
        """The manager has agents probe a node. An answer that takes too long is no vote."""
        for by in order.by:
            self._network.call(HEAD, by, lambda by=by: self._start_probe(by, order.peer, self._head.life))  # type: ignore[misc]

    def _start_probe(self, by: str, peer: Peer, life: int) -> None:
        agent = self._agents.get(by)
        if agent is None or not agent.is_awake:
            return
        asked_at = self._world.now
        for_s = self._settings.node_confirm_ms / 1000
        if self._reached(agent, peer, round(for_s / PROBE_PAUSE_S)):
            self._vote(agent, peer, True, asked_at, life)
        else:
            self._world.after(for_s, lambda: self._end_probe(agent, peer, asked_at, life))

    def _reached(self, agent: Agent, peer: Peer, probes: int) -> bool:
        return self._is_well(agent, peer) and self._network.answered(agent.node.id, peer.node_id, probes)

    def _end_probe(self, agent: Agent, peer: Peer, asked_at: float, life: int) -> None:
        """It may have come back in the meantime; a prober that is held up itself answers too late, or not."""
        if not agent.is_awake:
            self._world.after(LOOK_S, lambda: self._end_probe(agent, peer, asked_at, life))
        else:
            self._vote(agent, peer, self._reached(agent, peer, 1), asked_at, life)

    def _vote(self, agent: Agent, peer: Peer, reached: bool, asked_at: float, life: int) -> None:
        by = agent.node.id
        self._network.call(by, HEAD, lambda: self._head.probed(peer.node_id, by, reached, asked_at, life))
