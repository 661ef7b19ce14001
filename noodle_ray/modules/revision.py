"""A revision: one version of a module in as many hosts as are wanted, and how long a new one waits after a death."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

MAX_BACKOFF_S = 30.0
FIRST_BACKOFF_S = 0.25
STABLE_S = 10.0
"""A host that was ready for so long has not died of being started."""

Stage = Literal["loading", "checking", "ready"]


@dataclass(frozen=True, slots=True)
class Relocation:
    """A host that is prepared on another node, to take the place of one; by their epochs."""

    comes: int
    goes: int


@dataclass(slots=True)
class Revision:
    """`hosts` are those that there are, or that are on their way, by their epoch."""

    number: int
    version: str
    wanted: int = 1
    stateful: bool = False
    hosts: dict[int, Stage] = field(default_factory=dict)
    deaths: int = 0
    """Attempts in a row that came to nothing."""
    relocation: Relocation | None = None

    @property
    def ready(self) -> list[int]:
        """The hosts that can take calls, the oldest first."""
        return sorted(epoch for epoch, stage in self.hosts.items() if stage == "ready")

    @property
    def unready(self) -> list[int]:
        return sorted(epoch for epoch, stage in self.hosts.items() if stage != "ready")

    @property
    def is_complete(self) -> bool:
        return len(self.ready) >= self.wanted

    @property
    def is_relocating(self) -> bool:
        """Whether a host that is to take another's place is on its way."""
        return self.relocation is not None and self.relocation.comes in self.hosts

    @property
    def missing(self) -> int:
        return max(0, self.wanted - len(self.hosts))

    def surplus(self) -> list[int]:
        """Hosts beyond those wanted: such as are not ready yet before others, younger ones before older."""
        by_worth = self.ready + self.unready
        return by_worth[self.wanted :]

    def backoff_s(self, lived_s: float) -> float:
        """Nothing at the first attempt, then twice as long each time, up to a limit."""
        self.deaths = 1 if lived_s >= STABLE_S else self.deaths + 1
        return 0.0 if self.deaths == 1 else min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2 ** min(self.deaths - 2, 20))
