"""The store: rows that survive the manager, written a moment after it wanted them kept, in order and in batches."""

from __future__ import annotations

from noodle_ray.simulation.world import Call, World
from noodle_ray.store.changes import Change, Document, Put


class Store:
    """Tables of rows, and the journal of a manager before them: what a crash finds in the journal is lost."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = world.stream("store")
        self.tables: dict[str, dict[str, Document]] = {"allocations": {}, "nodes": {}}
        self._pending: list[Change] = []
        self._waiting: list[Call] = []
        self._writer = 0

    def add(self, change: Change) -> None:
        self._pending.append(change)
        if len(self._pending) == 1 and not self._waiting:
            self._write_soon()

    def kept(self, then: Call) -> None:
        """Calls when all that was added so far is written."""
        if not self._pending:
            self._world.after(0.0, then)
        else:
            self._waiting.append(then)

    def _write_soon(self) -> None:
        writer = self._writer
        self._world.after(self._random.uniform(0.002, 0.05), lambda: self._write(writer))

    def _write(self, writer: int) -> None:
        if writer != self._writer:
            return
        changes, self._pending = self._pending, []
        waiting, self._waiting = self._waiting, []
        for change in changes:
            self._apply(change)
        for then in waiting:
            then()

    def _apply(self, change: Change) -> None:
        rows = self.tables[change.table]
        if isinstance(change, Put):
            rows[change.key] = change.document
        else:
            rows.pop(change.key, None)

    def crash(self) -> None:
        """The manager is gone: what it had not written yet is forgotten, and nobody waits for it any more."""
        self._pending, self._waiting = [], []
        self._writer += 1
