"""The chooser: one demand in, the best nodes for it out, with what makes them best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from noodle_ray.errors import DoesNotFit
from noodle_ray.placement import kernels
from noodle_ray.placement.columns import CPUS, MEMORY, Bools, Ints
from noodle_ray.placement.explanation import Candidate, Explanation
from noodle_ray.placement.ledger import ResourcePool
from noodle_ray.placement.policies import (
    DEFAULT_POLICY,
    Parts,
    Policy,
    View,
    custom_penalty,
    policy_named,
    valued_parts,
)
from noodle_ray.placement.prices import ENOUGH_SEEN, PriceInputs, Prices, compute
from noodle_ray.placement.request import Request
from noodle_ray.placement.scoreboard import Scoreboard
from noodle_ray.placement.shortage import refuse
from noodle_ray.placement.valuation import NEVER, Ask
from noodle_ray.placement.workload import Workload
from noodle_ray.resources import Demand

SHOWN = 5
"""Candidates that an explanation keeps."""

GROWN_BY = 2_000
"""New prices are due after a quarter more demands than at the last ones, or after this many."""

_ROUNDING = 10**9


@dataclass(frozen=True, slots=True)
class Limits:
    """What narrows the choice of nodes beside the demand itself.

    `excluded` were tried in vain; a gang's strategy leaves `only` some, and none that it has `taken`.
    """

    excluded: frozenset[str] = frozenset()
    only: frozenset[str] | None = None
    taken: frozenset[str] = frozenset()
    anti_affinity: str | None = None
    for_id: str = ""


class Chooser:
    """Ranks the nodes of a pool for a demand, under named policies. Reads the pool only.

    Policies by valuation go by the prices of the workload that was noted: `price_inputs` says when new ones are worth
    computing for the default policy, which takes some 50 ms and is left to the caller (`prices.compute`, then `use`).
    The first prices of a policy are computed when it is first asked for.
    """

    def __init__(self, pool: ResourcePool, workload: Workload | None = None, seed: int = 0) -> None:
        self.pool = pool
        self.workload = workload or Workload()
        self._random = np.random.default_rng(seed)
        self._boards: dict[str, Scoreboard] = {}
        self._priced_at: dict[str, int] = {}

    # -- prices

    def price_inputs(self) -> PriceInputs | None:
        """What to compute prices from, when new ones are due: the workload has grown, or the fleet has a new type."""
        board = self._boards.get(DEFAULT_POLICY)
        return None if board is not None and not self._is_due(board) else self._inputs(policy_named(DEFAULT_POLICY))

    def use(self, prices: Prices, policy: str = DEFAULT_POLICY) -> None:
        """From now on decides by these prices under the policy."""
        self._boards[policy] = Scoreboard(self.pool.columns, prices)
        self._priced_at[policy] = self.workload.seen if self.workload.seen >= ENOUGH_SEEN else 0

    def _is_due(self, board: Scoreboard) -> bool:
        seen, then = self.workload.seen, self._priced_at[DEFAULT_POLICY]
        grown = seen >= ENOUGH_SEEN and seen >= min(1.25 * then + 1, then + GROWN_BY)
        return grown or not board.knows_all_types()

    def _inputs(self, policy: Policy) -> PriceInputs:
        assert policy.weights is not None
        return PriceInputs.of(self.pool.columns, self.workload, policy.weights)

    def board(self, name: str) -> Scoreboard:
        """The scores under a policy by valuation."""
        board = self._boards.get(name)
        if board is None or not board.knows_all_types():
            self.use(compute(self._inputs(policy_named(name))), name)
        return self._boards[name]

    # -- choosing

    def explain(self, demand: Demand, policy: str, limits: Limits) -> Explanation:
        """The best nodes for one demand, with their scores.

        Raises DoesNotFit with the reason per dimension, NotFound for an unknown policy.
        """
        named = policy_named(policy)
        failed = self.failures(demand, limits)
        rows, parts = self._ranked(named, policy, demand, failed)
        if not len(rows):
            raise DoesNotFit(refuse(self.pool, Request.of(demand), demand, failed))
        ids = self.pool.columns.ids
        counts = {name: int(np.count_nonzero(column)) for name, column in failed.items()}
        return Explanation(
            policy=policy,
            considered=len(ids),
            filtered={name: count for name, count in counts.items() if count},
            candidates=self._candidates(rows, parts),
            chosen=ids[rows[0]],
        )

    def choose(self, demand: Demand, policy: str = DEFAULT_POLICY, own_choice: bool = False) -> int | None:
        """The best node's row without the reasons, None where there is none: for simulations, which ask often."""
        named, kinds = policy_named(policy), self.pool.kind_matches(demand)
        if named.weights is not None:
            special = _any(self.pool.special_failures(demand) | self.pool.custom_failures(demand))
            penalty = custom_penalty(self.pool, demand, named.weights)
            rows, _ = self.board(policy).best(Ask.of(demand, own_choice), kinds, special, 1, penalty)
        else:
            rows, _ = self._ranked(named, policy, demand, self.failures(demand, Limits()))
        return int(rows[0]) if len(rows) else None

    def is_valued(self, policy: str) -> bool:
        """Whether the policy goes by valuation, and so by the workload's prices."""
        return policy_named(policy).weights is not None

    def failures(self, demand: Demand, limits: Limits) -> dict[str, Bools]:
        """For each condition on which nodes it fails."""
        failed = self.pool.failures(demand, anti_affinity=limits.anti_affinity, for_id=limits.for_id)
        if limits.excluded:
            failed["tried in vain"] = self.pool.rows_of(limits.excluded)
        if limits.only is not None:
            failed["strategy"] = ~self.pool.rows_of(limits.only)
        elif limits.taken:
            failed["strategy"] = self.pool.rows_of(limits.taken)
        return failed

    def _ranked(self, named: Policy, policy: str, demand: Demand, failed: dict[str, Bools]) -> tuple[Ints, Parts]:
        """The best rows, best first, and the parts of their scores."""
        kinds = self.pool.kind_matches(demand)
        if named.weights is not None:
            board = self.board(policy)
            blocked = _any({name: column for name, column in failed.items() if name not in _SCORED})
            penalty = custom_penalty(self.pool, demand, named.weights)
            best, extra = board.best(Ask.of(demand), kinds, blocked, SHOWN, penalty)
            return best, valued_parts(self.pool, best, demand, board.prices, extra, penalty)
        assert named.score is not None
        unfit = _any(failed)
        rows = np.arange(len(self.pool.columns)) if unfit is None else np.flatnonzero(~unfit)
        parts = named.score(View(self.pool, rows, self._random), demand)
        scores = np.full(len(self.pool.columns), NEVER)
        # Rounded, so that sums of the same numbers in another order do not break a tie.
        scores[rows] = -np.rint(_ROUNDING * np.sum(list(parts.values()), axis=0)) if parts else 0
        none = np.zeros(len(kinds), np.int64)
        best = kernels.best_rows(scores, self.pool.columns, none, 0, kinds, None, SHOWN)
        places = np.searchsorted(rows, best)
        return best, {name: column[places] for name, column in parts.items()}

    def _candidates(self, rows: Ints, parts: Parts) -> tuple[Candidate, ...]:
        columns = [column.tolist() for column in parts.values()]
        by_row = zip(*columns, strict=True) if columns else [()] * len(rows)
        return tuple(
            Candidate(
                node_id=self.pool.columns.ids[row],
                score=-sum(penalties, 0.0),
                parts=dict(zip(parts, map(float, penalties), strict=True)),
            )
            for row, penalties in zip(rows.tolist(), by_row, strict=True)
        )

    def on_empty_fleet(self) -> Chooser:
        """A chooser over the same nodes with nothing on them."""
        pool = ResourcePool()
        for node_id, row in self.pool.columns.row.items():
            pool.add_node(node_id, self.pool.columns.resources(row))
        return Chooser(pool)


_SCORED = frozenset({CPUS, MEMORY, "gpus", "gpu_share", "accelerator_type", "cordoned"})
"""Conditions that the scoreboard sees to itself."""


def _any(failed: dict[str, Bools]) -> Bools | None:
    return np.logical_or.reduce(list(failed.values())) if failed else None
