"""The queue: who waits for room, and in which order room is offered."""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

AGEING_S = 60.0
"""Waiting this long counts as much as one level of priority.

All who wait age alike, so their order never changes while they wait: it is that of `since - AGEING_S * priority`.
"""

PATIENCE_S = 30.0
"""The first in the order waits this long before nodes are kept for it, so that smaller ones cannot starve it."""


@dataclass(frozen=True, slots=True, order=True)
class Turn:
    """One who waits, as it is ordered: by priority and age, then by who came first."""

    rank: float
    number: int
    allocation_id: str = field(compare=False)
    shape: str = field(compare=False)
    since: float = field(compare=False)


def rank(priority: int, since: float) -> float:
    """Who has less is served first."""
    return since - AGEING_S * priority


class WaitingQueue:
    """Turns in their order. A shape is what two claims have in common where none fits unless the other does."""

    def __init__(self) -> None:
        self._turns: dict[str, Turn] = {}
        self._order: list[Turn] = []
        self._alike: dict[str, list[Turn]] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, allocation_id: object) -> bool:
        return allocation_id in self._turns

    def __iter__(self) -> Iterator[Turn]:
        return iter(self._order)

    def add(self, allocation_id: str, shape: str, priority: int, since: float) -> None:
        """Lines up somebody who does not wait yet."""
        assert allocation_id not in self._turns, f"{allocation_id} waits already"
        self._count += 1
        turn = Turn(rank(priority, since), self._count, allocation_id, shape, since)
        self._turns[allocation_id] = turn
        insort(self._order, turn)
        insort(self._alike.setdefault(shape, []), turn)

    def remove(self, allocation_id: str) -> None:
        """Takes somebody out, if it waits."""
        turn = self._turns.pop(allocation_id, None)
        if turn is None:
            return
        alike = self._alike[turn.shape]
        for line in (self._order, alike):
            del line[bisect_left(line, turn)]
        if not alike:
            del self._alike[turn.shape]

    @property
    def first(self) -> Turn | None:
        return self._order[0] if self._order else None

    def position(self, allocation_id: str) -> int | None:
        """1 for the next; None for somebody who does not wait."""
        turn = self._turns.get(allocation_id)
        return None if turn is None else bisect_left(self._order, turn) + 1

    def ahead(self, shape: str, priority: int, since: float) -> str | None:
        """Who of this shape would be served before a newcomer, if anybody."""
        alike = self._alike.get(shape)
        return alike[0].allocation_id if alike and alike[0].rank <= rank(priority, since) else None

    def oldest_wait_s(self, now: float) -> float:
        return max((now - turn.since for turn in self._order), default=0.0)

    def serve(self, place: Callable[[str], bool]) -> None:
        """Offers room to each in order; of a shape that found none, nobody else is asked again in this round.

        `place` says whether the one found room; then its turn is over. Smaller ones may thus overtake a bigger one.
        """
        heads = [alike[0] for alike in self._alike.values()]
        heapq.heapify(heads)
        while heads:
            turn = heapq.heappop(heads)
            if turn.allocation_id in self._turns and not place(turn.allocation_id):
                continue
            self.remove(turn.allocation_id)
            if turn.shape in self._alike:
                heapq.heappush(heads, self._alike[turn.shape][0])
