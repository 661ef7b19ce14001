"""The network: links between nodes and the head that lose, delay, repeat and reorder, or are cut.

Calls (Ray's, over TCP) arrive late rather than never: where packets are lost they are sent again, and a call into a
cut either fails or is delivered once the cut is over, perhaps long after it meant anything. Some arrive twice.
Probes (UDP) are not sent one by one: whether any of several in a row is answered is one draw.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from noodle_ray.simulation.world import Call, World

HEAD = "head"
"""The end of a link where the manager and Ray's control are."""

TWICE = 0.03
"""How many of the calls arrive twice."""

Way = tuple[str, str]
"""One direction of a link: who sends, and who receives."""

SLOW, SLOW_S = 0.03, (0.5, 3.0)
"""How many of the calls wait for a process that is busy, and for how long."""


@dataclass(frozen=True, slots=True)
class _Stuck:
    way: Way
    deliver: Call


class Network:
    """Who reaches whom, and what becomes of a message."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = world.stream("network")
        self._cuts: frozenset[Way] = frozenset()
        self._losses: list[float] = []
        self._stuck: list[_Stuck] = []

    @property
    def loss(self) -> float:
        """The part of packets that is lost, in each direction."""
        return max(self._losses, default=0.0)

    @property
    def is_clean(self) -> bool:
        return not self._losses and not self._cuts

    def lose(self, part: float) -> None:
        self._losses.append(part)

    def lose_no_more(self, part: float) -> None:
        self._losses.remove(part)

    def rewire(self, cuts: Collection[Way]) -> None:
        """These ways are cut from now on, and no others; what was stuck in one that is mended arrives now."""
        self._cuts = frozenset(cuts)
        stuck, self._stuck = self._stuck, []
        for message in stuck:
            if message.way in self._cuts:
                self._stuck.append(message)
            else:
                self._world.after(self._delay(), message.deliver)

    def connected(self, one: str, other: str) -> bool:
        """Whether each hears the other: then there are answers."""
        return not self._cuts or self._cuts.isdisjoint([(one, other), (other, one)])

    def call(self, sender: str, receiver: str, deliver: Call) -> None:
        """Delivers late, twice, out of order; into a cut: when that is over, or never."""
        if (sender, receiver) not in self._cuts:
            self._world.after(self._delay(), deliver)
            if self._random.random() < TWICE:
                self._world.after(self._delay() + self._random.uniform(0, 3), deliver)
        elif self._random.random() < 0.5:
            self._stuck.append(_Stuck((sender, receiver), deliver))

    def answered(self, sender: str, receiver: str, probes: int) -> bool:
        """Whether one of so many probes in a row gets through, and its answer back."""
        if not self.connected(sender, receiver):
            return False
        unanswered = 1 - (1 - self.loss) ** 2
        return not unanswered or self._random.random() >= unanswered**probes

    def _delay(self) -> float:
        """Milliseconds, mostly. A packet that is lost is sent again after a fifth of a second, then twice that."""
        delay, again = self._random.uniform(0.0005, 0.02), 0.2
        if self._random.random() < SLOW:
            delay += self._random.uniform(*SLOW_S)
        while self.loss and again < 10 and self._random.random() < self.loss:
            delay, again = delay + again, again * 2
        return delay
