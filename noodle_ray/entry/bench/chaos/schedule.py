"""When what is killed, frozen or cut off, and where: the same for the same seed. Pure.

The rules:
- A fault starts every 10 to 15 seconds; the last one `TAIL_S` before the end, so that its recovery is seen.
- At most one host is out at a time. A fault that takes a host, its gateway or its proxy away begins only when the last
  such fault is over and its host has had time to come back: with gateways on two hosts, one of them answers.
- The head is not frozen, nor its link cut, for longer than `HEAD_OUT_S`, and only workers lose their raylets: Ray holds
  hosts that cannot reach the head for dead after four and a half seconds, and then all of them would be out.
- While GCS is away, or the head is, nothing is killed that GCS has to start anew.
- Every kind of fault has its turn before one comes again, as far as these rules let it.
- A long run kills nothing after its first third that only the head has, nor the head's agent and gateway: of what lives
  for a few minutes nobody can say whether it grows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from noodle_ray.entry.bench.chaos.deck import Deck
from noodle_ray.errors import InvalidInput

Kind = Literal[
    "kill_agent",
    "freeze_agent",
    "kill_raylet",
    "freeze_host",
    "kill_gcs",
    "freeze_gcs",
    "kill_manager",
    "freeze_manager",
    "kill_registry",
    "kill_directory",
    "kill_encoder",
    "kill_gateway",
    "kill_proxy",
    "cut_link",
    "one_way_cut",
    "flap_link",
    "lose_packets",
    "kill_host_processes",
]
KINDS: tuple[Kind, ...] = get_args(Kind)

LEAST_GAP_S, MOST_GAP_S = 10.0, 15.0
"""Between the starts of two faults."""

TAIL_S = 45.0
HEAD_OUT_S = 3.0
LEAST_MINUTES = 1.0
LONG_MINUTES = 30.0
"""A run of so many minutes is one that judges whether processes grow."""

LOSS_PERCENT = 20
"""Of the packets that come to a host while it loses some."""

FLAP_S = 1.0
"""A link that comes and goes is in and out for so long each."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The hosts by name: the head, the workers, and which of them have a gateway."""

    head: str
    workers: tuple[str, ...]
    gateways: tuple[str, ...]

    @property
    def hosts(self) -> tuple[str, ...]:
        return self.head, *self.workers


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong, `at_s` seconds after the start.

    host: where; "" is wherever the process runs. seconds: how long until it is undone; 0: the process is killed, and
    whoever looks after it starts it anew.
    """

    at_s: float
    kind: Kind
    host: str
    seconds: float = 0.0

    def __str__(self) -> str:
        where = f" on {self.host}" if self.host else ""
        return f"{self.kind}{where}{f' for {self.seconds:.1f} s' if self.seconds else ''}"


@dataclass(frozen=True, slots=True)
class Sort:
    """A sort of fault. lasts_s: from, to. takes: what is away meanwhile, and `settle_s` longer."""

    kind: Kind
    where: Literal["head", "worker", "gateway", "any", "somewhere"]
    takes: Literal["host", "gcs", "part"] = "part"
    lasts_s: tuple[float, float] = (0.0, 0.0)
    settle_s: float = 10.0


SORTS = (
    Sort("kill_agent", "any"),
    Sort("freeze_agent", "any", lasts_s=(3, 8)),
    Sort("kill_manager", "head"),
    Sort("freeze_manager", "head", lasts_s=(2, 5)),
    Sort("kill_registry", "head"),
    Sort("kill_directory", "somewhere"),
    Sort("kill_encoder", "somewhere"),
    Sort("lose_packets", "any", lasts_s=(5, 10)),
    Sort("kill_gcs", "head", "gcs", settle_s=15),
    Sort("freeze_gcs", "head", "gcs", lasts_s=(1, HEAD_OUT_S)),
    Sort("kill_raylet", "worker", "host", settle_s=30),
    Sort("kill_host_processes", "worker", "host", settle_s=30),
    Sort("freeze_host", "any", "host", lasts_s=(1, 2), settle_s=8),
    Sort("freeze_host", "worker", "host", lasts_s=(6, 10), settle_s=30),
    Sort("kill_gateway", "gateway", "host", settle_s=20),
    Sort("kill_proxy", "gateway", "host", settle_s=15),
    Sort("cut_link", "any", "host", lasts_s=(2, 10), settle_s=30),
    Sort("one_way_cut", "any", "host", lasts_s=(2, 10), settle_s=30),
    Sort("flap_link", "any", "host", lasts_s=(2, 8), settle_s=20),
)
STARTED_BY_GCS: frozenset[Kind] = frozenset(
    ("kill_agent", "kill_manager", "kill_registry", "kill_directory", "kill_encoder", "kill_gateway")
)

SPARED: frozenset[Kind] = STARTED_BY_GCS - {"kill_encoder"}
"""Not done to the head late in a long run. Encoders are many, and some of them live for long anyway."""


def sort_of(fault: Fault) -> Sort:
    """Its sort: of two of one kind, the one that lasts as long."""
    alike = [sort for sort in SORTS if sort.kind == fault.kind]
    return next((sort for sort in alike if sort.lasts_s[0] <= fault.seconds <= sort.lasts_s[1]), alike[-1])


def spared_from(minutes: float) -> float:
    """The second from when on a run kills nothing any more whose growth it judges; a short one judges none."""
    return minutes * 60 / 3 if minutes >= LONG_MINUTES else math.inf


def takes_gcs(fault: Fault, layout: Layout) -> bool:
    """Whether GCS may be away with it: its own fault, or one that takes something of the head's away."""
    takes = sort_of(fault).takes
    return takes == "gcs" or (takes == "host" and fault.host == layout.head)


def schedule(seed: int, minutes: float, layout: Layout) -> tuple[Fault, ...]:
    """The faults of a run of so many minutes, in order. Raises InvalidInput."""
    if minutes < LEAST_MINUTES:
        raise InvalidInput.of("minutes", f"must be at least {LEAST_MINUTES:g}", minutes)
    if not layout.workers or not set(layout.gateways) <= set(layout.hosts) or len(layout.gateways) < 2:
        raise InvalidInput.of("layout", "must have a worker, and gateways on two of its hosts", layout)
    writer, faults = _Writer(layout, np.random.default_rng(seed), spared_from(minutes)), []
    at = writer.gap()
    while at <= minutes * 60 - TAIL_S:
        faults.append(writer.fault(at))
        at += writer.gap()
    return tuple(faults)


class _Writer:
    """Writes a schedule from its beginning to its end, and knows who is out."""

    def __init__(self, layout: Layout, chance: np.random.Generator, spared_from_s: float) -> None:
        self._layout = layout
        self._chance = chance
        self._spared_from_s = spared_from_s
        self._grave = Deck([sort for sort in SORTS if sort.takes != "part"], chance)
        self._slight = Deck([sort for sort in SORTS if sort.takes == "part"], chance)
        self._hosts: dict[Sort, Deck[str]] = {sort: Deck(list(self._eligible(sort)), chance) for sort in SORTS}
        self._out, self._out_until, self._gcs_until = "", 0.0, 0.0

    def gap(self) -> float:
        return float(self._chance.uniform(LEAST_GAP_S, MOST_GAP_S))

    def fault(self, at: float) -> Fault:
        """A grave one as soon as it may be, else a slight one."""
        if at >= self._out_until:
            return self._grave_fault(at)
        gcs_is_away = at < self._gcs_until
        sort = self._slight.draw(
            lambda sort: not (gcs_is_away and sort.kind in STARTED_BY_GCS) and self._has_host(at, sort)
        )
        return self._made(at, sort, self._host(at, sort))

    def _grave_fault(self, at: float) -> Fault:
        sort = self._grave.draw()
        fault = self._made(at, sort, self._host(at, sort))
        self._out, self._out_until = fault.host, at + fault.seconds + sort.settle_s
        if takes_gcs(fault, self._layout):
            self._gcs_until = self._out_until
        return fault

    def _host(self, at: float, sort: Sort) -> str:
        return self._hosts[sort].draw(lambda host: self._may(at, sort, host))

    def _has_host(self, at: float, sort: Sort) -> bool:
        return any(self._may(at, sort, host) for host in self._eligible(sort))

    def _may(self, at: float, sort: Sort, host: str) -> bool:
        """Whether it may befall the host: not one that is out, nor what is spared by now."""
        if host == self._layout.head or not host:
            return at < self._spared_from_s or sort.kind not in SPARED
        return host != self._out or at >= self._out_until

    def _made(self, at: float, sort: Sort, host: str) -> Fault:
        least, most = sort.lasts_s
        if sort.takes == "host" and host == self._layout.head:
            most = min(most, HEAD_OUT_S)
        return Fault(at, sort.kind, host, float(self._chance.uniform(least, most)))

    def _eligible(self, sort: Sort) -> tuple[str, ...]:
        layout = self._layout
        places = {"head": (layout.head,), "worker": layout.workers, "gateway": layout.gateways, "any": layout.hosts}
        return places.get(sort.where, ("",))
