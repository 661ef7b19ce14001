"""Counts by key, and how often each was added to."""

from __future__ import annotations

from typing import Any


class Counter:
    """A count for each key; all begin at 0."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._additions: dict[str, int] = {}

    async def add(self, key: str, n: int = 1) -> int:
        """Adds to a count, and gives what it is now. Asynchronous, so that no two calls run in it at once."""
        self._counts[key] = self._counts.get(key, 0) + n
        self._additions[key] = self._additions.get(key, 0) + 1
        return self._counts[key]

    def value(self, key: str) -> int:
        return self._counts.get(key, 0)

    def additions(self, key: str) -> int:
        """How often it was added to, since version 2 counts that."""
        return self._additions.get(key, 0)

    def export_state(self) -> dict[str, Any]:
        """Schema 2: the counts, and beside them the additions."""
        return {"counts": dict(self._counts), "additions": dict(self._additions)}

    def import_state(self, state: dict[str, Any], from_version: int) -> None:
        """Reads schema 1 too, which was the counts alone."""
        if from_version == 1:
            state = {"counts": state, "additions": {}}
        self._counts, self._additions = dict(state["counts"]), dict(state["additions"])

    def is_well(self) -> bool:
        return self._additions.keys() <= self._counts.keys()
