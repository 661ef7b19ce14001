"""Clients: who claims, waits, holds, renews, moves, looks after what it holds, and releases, and asks again if need be.

A client knows an answer only when the rows behind it are written, for then its call returns; until then it asks again.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Literal

from noodle_ray.errors import Conflict, NoodleError
from noodle_ray.nodes import events
from noodle_ray.nodes import instructions as do
from noodle_ray.placement.allocation import Allocation, OnLoss
from noodle_ray.placement.claim import Claim
from noodle_ray.placement.request import Request
from noodle_ray.resources import Demand
from noodle_ray.simulation.head import Head
from noodle_ray.simulation.store import Store
from noodle_ray.simulation.world import World

BURSTS_EVERY_S = 180.0
AT_ONCE = (1, 1, 2, 4)
"""Claims come in bursts, so that some have to wait although much is free in between."""

HELD_S = (5.0, 400.0)
ASKS_AGAIN_S = 4.0
ASKS_TWICE = 0.1
LOOKS_S = 20.0
LEASE_S = 60.0

REQUESTS = (
    Request.of(Demand(cpus=1)),
    Request.of(Demand(cpus=2)),
    Request.of(Demand(cpus=4)),
    Request.of(Demand(gpu_share=0.5)),
    Request.of(Demand(cpus=1, gpus=1)),
    Request.of(Demand(gpus=2)),
    Request(bundles=(Demand(cpus=1),), movable=True),
    Request(bundles=(Demand(cpus=2, gpus=1),), movable=True),
    Request(bundles=(Demand(cpus=2), Demand(cpus=2)), strategy="spread"),
    Request(bundles=(Demand(cpus=1, gpus=1), Demand(gpus=1)), strategy="strict-spread"),
)

State = Literal["asking", "held", "releasing", "ended"]


@dataclass(slots=True)
class Client:
    """One claim's asker. `renews`: it keeps its lease up."""

    claim: Claim
    holds_for_s: float
    renews: bool
    state: State = "asking"
    asked_in: int = 0
    fence: str | None = None


class Clients:
    """All clients, by the id of their claim. `granted` are those that were told that they hold, and nothing else since.

    `stop` ends new claims and releases: then only the present ones go on.
    """

    def __init__(self, world: World, head: Head, store: Store) -> None:
        self._world, self._head, self._store = world, head, store
        self._random = world.stream("clients")
        self.clients: dict[str, Client] = {}
        self.granted: set[str] = set()
        self._ended_jobs: set[str] = set()
        self._stopped = False
        head.ended_jobs = lambda: frozenset(self._ended_jobs)

    def start(self) -> None:
        self._world.after(self._random.expovariate(1 / 2.0), self._next)

    def stop(self) -> None:
        self._stopped = True

    def _next(self) -> None:
        if self._stopped:
            return
        for _ in range(self._random.choice(AT_ONCE)):
            client = _draw(self._random, len(self.clients))
            self.clients[client.claim.id] = client
            self._ask(client)
        self._world.after(self._random.expovariate(1 / BURSTS_EVERY_S), self._next)

    # -- asking

    def _ask(self, client: Client) -> None:
        if client.state != "asking":
            return
        if self._head.manager is not None and self._must_ask(client):
            client.asked_in = self._head.life
            self._head.receive(lambda at: events.Claimed(client.claim, at), lambda error: self._end_when_kept(client))
            if client.claim.wait_s:
                self._world.after(client.claim.wait_s + 0.01, self._head.tick)
        self._world.after(ASKS_AGAIN_S, lambda: self._ask(client))

    def _must_ask(self, client: Client) -> bool:
        """Its call failed with the manager that it asked; some ask again without need, while that answers at once."""
        return client.asked_in != self._head.life or (self._head.is_up and self._random.random() < ASKS_TWICE)

    def hear(self, instruction: do.Instruction) -> None:
        """What the manager answers."""
        match instruction:
            case do.Granted(allocation):
                self._granted(allocation)
            case do.Refused(key, _) | do.Released(key) if key in self.clients:
                self._end_when_kept(self.clients[key])

    def _granted(self, allocation: Allocation) -> None:
        client = self.clients[allocation.id]
        client.fence = allocation.group
        if client.state != "asking":
            return
        client.state = "held"
        self.granted.add(allocation.id)
        self._world.after(client.holds_for_s, lambda: self._release(client))
        self._world.after(LOOKS_S, lambda: self._look(client))

    def _end_when_kept(self, client: Client) -> None:
        """It is over when that is written, for a manager that crashes before does not know of it."""
        self.granted.discard(client.claim.id)
        self._store.kept(lambda: self._end(client))

    def _end(self, client: Client) -> None:
        client.state = "ended"

    # -- holding

    def _look(self, client: Client) -> None:
        """Renews, finds out what became of its home, and moves where it is asked to."""
        if client.state != "held":
            return
        if self._head.is_up:
            self._look_at(client)
        self._world.after(LOOKS_S, lambda: self._look(client))

    def _look_at(self, client: Client) -> None:
        manager = self._head.manager
        assert manager is not None
        key = client.claim.id
        found = [one for one in manager.allocations() if one.id == key]
        if not found:
            self._end(client)  # its lease was over, or its job: else the checker finds it missing
        elif found[0].state == "lost":
            self._release(client)
        else:
            client.fence = found[0].group
            if client.renews and client.claim.lease_s is not None:
                self._head.receive(lambda at: events.LeaseRenewed(key, at, client.fence), lambda error: None)
            self._move(found[0])

    def _move(self, allocation: Allocation) -> None:
        spare = allocation.spare
        if spare is not None and spare.ready and allocation.on_loss != "standby" and self._random.random() < 0.7:
            self._head.receive(lambda at: events.MoveConfirmed(allocation.id, spare.epoch, at))

    # -- ending

    def _release(self, client: Client) -> None:
        """Releases, again and again until it is told that it is free."""
        if client.state == "ended" or (self._stopped and client.state == "held"):
            return
        client.state = "releasing"
        self.granted.discard(client.claim.id)
        fence = client.fence if self._random.random() < 0.5 else None
        self._head.receive(
            lambda at: events.ReleaseRequested(client.claim.id, at, fence), lambda error: self._fenced(client, error)
        )
        self._world.after(ASKS_AGAIN_S, lambda: self._release(client))

    def _fenced(self, client: Client, error: NoodleError) -> None:
        if isinstance(error, Conflict):
            client.fence = None  # it has another home by now: what it holds there is freed too

    def end_job(self, number: int) -> None:
        """A job ends, with all that it owns."""
        owner = f"job:{number}"
        self._ended_jobs.add(owner)
        for client in self.clients.values():
            if client.claim.owner == owner:
                client.state = "ended"
                self.granted.discard(client.claim.id)


def _draw(random: Random, number: int) -> Client:
    lease_s = random.choice((None, None, LEASE_S))
    losses: tuple[OnLoss, ...] = ("fail", "restart", "restart", "restart", "standby")
    claim = Claim(
        id=f"c{number}",
        request=random.choice(REQUESTS),
        priority=random.choice((0, 0, 0, 1, 5)),
        owner=random.choice(("", "", "", f"job:{number // 8}")),
        lease_s=lease_s,
        wait_s=random.choice((None, None, 0.0, 30.0)),
        on_loss=random.choice(losses),
    )
    return Client(claim, random.uniform(*HELD_S), renews=lease_s is None or random.random() < 0.7)
