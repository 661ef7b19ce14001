"""A refusal: why a request cannot be placed, and what would help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a demand cannot be placed: on how many nodes each condition fails, and the best that any of them has."""

    demand: str
    nodes: int
    failed_on: Mapping[str, int]
    best: Mapping[str, str]
    never: bool

    def __str__(self) -> str:
        help_ = "no node would fit it even when empty" if self.never else "it would fit once something is released"
        return f"cannot place {self.demand}: {self.reasons}; {help_}"

    @property
    def reasons(self) -> str:
        """The conditions with their counts, the most frequent first."""
        reasons = [
            f"{name} fails on {count} of {self.nodes}" + (f" (best: {self.best[name]})" if name in self.best else "")
            for name, count in sorted(self.failed_on.items(), key=lambda item: (-item[1], item[0]))
        ]
        return ", ".join(reasons) or "there is no node"
