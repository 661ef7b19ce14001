"""The world: simulated time, what happens next, chance by seed, and a fingerprint of all that happened."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable
from random import Random

Call = Callable[[], None]


class World:
    """A heap of calls by time. Two worlds of one seed do the same, to the last call."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now = 0.0
        self.events = 0
        self._calls: list[tuple[float, int, Call]] = []
        self._count = 0
        self._trace = hashlib.blake2b(digest_size=16)

    def stream(self, name: str) -> Random:
        """A source of chance of its own: who draws more from it disturbs nobody else."""
        return Random(f"{self.seed} {name}")  # noqa: S311  (nothing here is a secret)

    def at(self, when: float, call: Call) -> None:
        self._count += 1
        heapq.heappush(self._calls, (when, self._count, call))

    def after(self, delay_s: float, call: Call) -> None:
        self.at(self.now + delay_s, call)

    def run(self, until: float, after_each: Call) -> None:
        """Lets everything happen that is due by then."""
        while self._calls and self._calls[0][0] <= until:
            self.now, _, call = heapq.heappop(self._calls)
            self.events += 1
            call()
            after_each()
        self.now = until

    def note(self, text: str) -> None:
        """Makes it part of the fingerprint."""
        self._trace.update(f"{self.now:.6f} {text}\n".encode())

    @property
    def trace(self) -> str:
        """The fingerprint of all that was noted so far."""
        return self._trace.hexdigest()
