"""The planner: a demand in, a decision with its reasons out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from noodle_ray.base_model import Model
from noodle_ray.errors import DoesNotFit
from noodle_ray.placement.ledger import Bools, ResourcePool
from noodle_ray.placement.policies import DEFAULT_POLICY, Floats, policy_named
from noodle_ray.placement.refusal import Refusal
from noodle_ray.resources import Demand

SHOWN = 5
"""Candidates that an explanation keeps."""


class Candidate(Model):
    """A node on which the demand fits: its score (higher is better) and the penalties that make it."""

    node_id: str
    score: float
    parts: dict[str, float]


class Explanation(Model):
    """Why an allocation is where it is."""

    policy: str
    considered: int
    filtered: dict[str, int]
    candidates: tuple[Candidate, ...]
    chosen: str


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a demand goes."""

    node_id: str
    gpu_indices: tuple[int, ...]
    explanation: Explanation


def plan(
    pool: ResourcePool,
    demand: Demand,
    policy: str = DEFAULT_POLICY,
    excluded: frozenset[str] = frozenset(),
    random: np.random.Generator | None = None,
) -> Decision:
    """The best node for the demand under the policy; equal scores go to the lower node id.

    Raises DoesNotFit with the reason per dimension, NotFound for an unknown policy.
    """
    parts = policy_named(policy)(pool, demand, random or np.random.default_rng(0))
    failed = pool.failures(demand)
    if excluded:
        failed["tried in vain"] = np.array([node in excluded for node in pool.node_ids], np.bool_)
    fits = ~np.logical_or.reduce([np.zeros(len(pool.node_ids), np.bool_), *failed.values()])
    if not fits.any():
        raise DoesNotFit(_refusal(pool, demand, failed))
    ranked = _rank(pool, fits, {name: np.asarray(column, np.float64) for name, column in parts.items()})
    chosen = ranked[0].node_id
    explanation = Explanation(
        policy=policy,
        considered=len(pool.node_ids),
        filtered={name: int(column.sum()) for name, column in failed.items() if column.any()},
        candidates=tuple(ranked[:SHOWN]),
        chosen=chosen,
    )
    return Decision(chosen, pool.choose_gpus(chosen, demand), explanation)


def _rank(pool: ResourcePool, fits: Bools, parts: dict[str, Floats]) -> list[Candidate]:
    # Rounded, so that sums of the same numbers in another order do not break a tie.
    score = -np.round(np.sum(list(parts.values()), axis=0), 9)
    rows = sorted(np.flatnonzero(fits), key=lambda row: (-score[row], pool.node_ids[row]))
    return [
        Candidate(
            node_id=pool.node_ids[row],
            score=float(score[row]),
            parts={name: float(column[row]) for name, column in parts.items()},
        )
        for row in rows[:SHOWN]
    ]


def _refusal(pool: ResourcePool, demand: Demand, failed: dict[str, Bools]) -> Refusal:
    impossible = pool.failures(demand, empty=True)
    never = not len(pool.node_ids) or bool(np.logical_or.reduce(list(impossible.values())).all())
    return Refusal(
        demand=str(demand),
        nodes=len(pool.node_ids),
        failed_on={name: int(column.sum()) for name, column in failed.items() if column.any()},
        best=_best_available(pool, demand, failed),
        never=never,
    )


def _best_available(pool: ResourcePool, demand: Demand, failed: dict[str, Bools]) -> dict[str, str]:
    """For each failing amount, the most that any one node could give now."""
    best = {}
    for name, column in failed.items():
        rows = np.flatnonzero(column)
        if name == "tried in vain" or name == "cordoned" or not rows.size:
            continue
        if name in ("gpus", "gpu_share"):
            strength = (pool.gpu_free >= demand.gpu_units).sum(axis=1) * 10**6 + pool.gpu_free.max(axis=1, initial=0)
        elif name in pool.dimensions:
            strength = pool.free(name)
        else:
            continue
        row = int(rows[np.argmax(strength[rows])])
        best[name] = next(s.available for s in pool.shortfalls(pool.node_ids[row], demand) if s.dimension == name)
    return best
