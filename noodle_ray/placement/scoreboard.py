"""The scoreboard: scores of all nodes for the demands that keep coming, computed anew only where a node changed."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from noodle_ray.placement import kernels
from noodle_ray.placement.columns import Bools, Columns, Ints
from noodle_ray.placement.market import Market
from noodle_ray.placement.prices import Prices
from noodle_ray.placement.valuation import NEVER, Ask

BYTES_AT_MOST = 128 * 2**20
"""For all scores that are kept."""

MARKET_EVERY = 20
"""Decisions after which the types' prices are computed anew."""


class Scoreboard:
    """Scores at given prices. A node's score for a demand is minus what placing it there costs; higher is better."""

    def __init__(self, columns: Columns, prices: Prices) -> None:
        self.prices = prices
        self._columns = columns
        self._kept: OrderedDict[Ask, tuple[Ints, int]] = OrderedDict()
        self._market = Market(prices)
        self._surcharges = np.zeros(0, np.int64)
        self._decisions = 0

    def scores(self, ask: Ask) -> Ints:
        """Every node's score, brought up to date; NEVER where CPUs, memory or GPUs are too few."""
        position = self._columns.changes.position
        scores, since = self._kept.pop(ask, (np.zeros(0, np.int64), -1))
        rows = self._columns.changes.since(since, len(self._columns))
        if rows is None or len(rows) > len(self._columns) // 2:
            scores = np.empty(len(self._columns), np.int64)
            rows = np.arange(len(scores))
        else:
            scores = _resized(scores, len(self._columns))
        if len(rows):
            kernels.score_into(scores, rows, self.prices, self._columns, ask)
        self._keep(ask, scores, position)
        return scores

    def _keep(self, ask: Ask, scores: Ints, position: int) -> None:
        self._kept[ask] = (scores, position)
        while len(self._kept) > 1 and len(self._kept) * scores.nbytes > BYTES_AT_MOST:
            self._kept.popitem(last=False)

    def knows_all_types(self) -> bool:
        """Whether the prices have a table for each accelerator type of the fleet."""
        return len(self._columns.kinds) <= int(self.prices.usable.shape[0])

    def best(
        self, ask: Ask, allowed: Bools, blocked: Bools | None, count: int, penalty: Ints | None = None
    ) -> tuple[Ints, Ints]:
        """The best nodes' rows, best first, and the surcharges that they were found with.

        `allowed` by kind, `blocked` by row (see `kernels.best_rows`), `penalty` by row: taken off the scores.
        """
        scores, extra = self.scores(ask), self._surcharges_now()
        if penalty is not None:
            scores = np.where(scores == NEVER, NEVER, scores - penalty)
        units = ask.gpu_units * ask.gpu_count
        return kernels.best_rows(scores, self._columns, extra, units, allowed, blocked, count), extra

    def _surcharges_now(self) -> Ints:
        """What a unit of GPU costs on each type because of those who can use no other; renewed now and then."""
        if self._decisions % MARKET_EVERY == 0 or len(self._surcharges) != len(self._columns.kinds):
            self._surcharges = self._market.surcharges(self._columns.gpu_free_by_kind)
        self._decisions += 1
        return self._surcharges


def _resized(scores: Ints, length: int) -> Ints:
    return scores[:length] if len(scores) >= length else np.pad(scores, (0, length - len(scores)))
