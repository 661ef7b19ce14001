"""Counts by key."""

from __future__ import annotations


class Counter:
    """A count for each key; all begin at 0."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    async def add(self, key: str, n: int = 1) -> int:
        """Adds to a count, and gives what it is now. Asynchronous, so that no two calls run in it at once."""
        self._counts[key] = self._counts.get(key, 0) + n
        return self._counts[key]

    def value(self, key: str) -> int:
        return self._counts.get(key, 0)

    def export_state(self) -> dict[str, int]:
        """Schema 1: key → count."""
        return dict(self._counts)

    def import_state(self, state: dict[str, int], from_version: int) -> None:
        self._counts = dict(state)

    def is_well(self) -> bool:
        return all(isinstance(count, int) for count in self._counts.values())
