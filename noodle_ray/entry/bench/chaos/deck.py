"""A deck: all items in random order, then all again in another, so that each has its turn before one comes again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import numpy as np

T = TypeVar("T")


class Deck(Generic[T]):
    """Gives out items in turn. What may not be given out now keeps its place."""

    def __init__(self, items: Sequence[T], chance: np.random.Generator) -> None:
        self._items = list(items)
        self._chance = chance
        self._left: list[T] = []

    def draw(self, allowed: Callable[[T], bool] = lambda item: True) -> T:
        """The next one that is allowed; one at least must be."""
        place = self._place(allowed)
        if place is None:
            self._left += [self._items[number] for number in self._chance.permutation(len(self._items))]
            place = self._place(allowed)
        assert place is not None
        return self._left.pop(place)

    def _place(self, allowed: Callable[[T], bool]) -> int | None:
        return next((place for place, item in enumerate(self._left) if allowed(item)), None)
