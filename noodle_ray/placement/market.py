"""The market: what a unit of one type of accelerator costs more than of another, for some demands can use no other.

Groups of demands that may use the same types spend their share of the requested GPU on what is free of those types,
as they like; the price of a type is what is spent on it, over its share of what is free. In equilibrium each group buys
where it is cheapest (a Fisher market with equal utilities), and 1 is the price of everything where no demand is
particular. Found by proportional response (Zhang, "Proportional response dynamics in the Fisher market", 2011).
"""

from __future__ import annotations

import numpy as np

from noodle_ray.placement.columns import Ints
from noodle_ray.placement.prices import SCALE, Floats, Prices
from noodle_ray.resources import UNITS

HIGHEST_PRICE = 100.0
FIRST_ROUNDS, LATER_ROUNDS = 200, 10
"""Rounds of proportional response from nothing, and from the last equilibrium."""


class Market:
    """The types' prices, followed as what is free of each changes."""

    def __init__(self, prices: Prices) -> None:
        self._prices = prices
        self._shares = prices.constrained.astype(np.float64)

    def type_prices(self, free: Floats) -> Floats:
        """The price of each of K types; `free` (K) in any unit. Types that no demand knows cost 1."""
        known = self._prices.constrained.shape[1]
        found = np.ones(len(free))
        if len(self._prices.masses) > 1:
            found[:known] = self._respond(free[:known])
        return found

    def _respond(self, free: Floats) -> Floats:
        allowed, masses = self._prices.constrained, self._prices.masses[:, None]
        supply = (free + 1e-6) / (free.sum() + 1e-6)
        first = bool((self._shares == allowed).all())
        spent = self._shares * supply if first else np.where(allowed, self._shares + 1e-9, 0.0)
        spent *= masses / spent.sum(axis=1, keepdims=True)
        for _ in range(FIRST_ROUNDS if first else LATER_ROUNDS):
            bought = spent / np.maximum(spent.sum(axis=0) / supply, 1e-12)
            spent = bought * (masses / np.maximum(bought.sum(axis=1, keepdims=True), 1e-300))
        self._shares = spent
        price: Floats = np.minimum(spent.sum(axis=0) / supply, HIGHEST_PRICE)
        return price

    def surcharges(self, free: Ints) -> Ints:
        """What a unit of GPU costs on each type beside the node's own value, in the fixed point of scores."""
        return np.rint(self._prices.scarcity * self.type_prices(free / UNITS) * SCALE / UNITS).astype(np.int64)
