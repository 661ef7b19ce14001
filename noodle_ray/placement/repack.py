"""Repacking: the one move that makes room for a demand that fits nowhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from noodle_ray.errors import DoesNotFit
from noodle_ray.placement import gpu_rule
from noodle_ray.placement.allocation import Bundle
from noodle_ray.placement.chooser import Chooser, Limits
from noodle_ray.placement.columns import Ints
from noodle_ray.placement.lack import lack
from noodle_ray.placement.ledger import ResourcePool, amounts_of
from noodle_ray.resources import UNITS, Demand

NODES_LOOKED_AT = 64
MOVES_TRIED = 16


@dataclass(frozen=True, slots=True)
class Move:
    """An allocation of one bundle that goes from its node to another."""

    allocation_id: str
    source: str
    target: str


def find_move(
    pool: ResourcePool, chooser: Chooser, demand: Demand, policy: str, movable: Callable[[str], bool]
) -> Move | None:
    """The move after which the demand fits the node that was left; None where one move does not help.

    Of several the one that moves the least GPU, then the fewest CPUs. Looks at the nodes that lack the least.
    """
    found = [entry for row in _promising(pool, demand) for entry in _helpful(pool, int(row), demand, movable)]
    found.sort(key=lambda entry: (entry[1].demand.gpu_units * entry[1].demand.gpu_count, entry[1].demand.cpu_units))
    for allocation_id, bundle in found[:MOVES_TRIED]:
        try:
            target = chooser.explain(bundle.demand, policy, Limits(excluded=frozenset({bundle.node_id}))).chosen
        except DoesNotFit:
            continue
        return Move(allocation_id, bundle.node_id, target)
    return None


def _promising(pool: ResourcePool, demand: Demand) -> Ints:
    """Rows of nodes that the demand fits when they are empty, those that lack the least first."""
    fits_empty = ~np.logical_or.reduce(
        [*pool.failures(demand, empty=True).values(), *pool.special_failures(demand).values(), ~pool.columns.open]
    )
    rows = np.flatnonzero(fits_empty)
    order = np.argsort(lack(demand, pool)[rows], kind="stable")
    return np.asarray(rows[order[:NODES_LOOKED_AT]], np.int64)


def _helpful(
    pool: ResourcePool, row: int, demand: Demand, movable: Callable[[str], bool]
) -> Iterator[tuple[str, Bundle]]:
    """The allocations on a node without any one of which the demand would fit it."""
    for allocation_id in pool.on_node(pool.columns.ids[row]):
        bundles = pool.bundles(allocation_id)
        if len(bundles) == 1 and movable(allocation_id) and _fits_without(pool, row, bundles[0], demand):
            yield allocation_id, bundles[0]


def _fits_without(pool: ResourcePool, row: int, bundle: Bundle, demand: Demand) -> bool:
    freed = amounts_of(bundle.demand)
    for dimension, wanted in amounts_of(demand).items():
        if int(pool.free(dimension)[row]) + freed.get(dimension, 0) < wanted:
            return False
    free = pool.gpu_free[row].copy()
    free[list(bundle.gpu_indices)] += bundle.demand.gpu_units
    return not demand.gpu_count or bool(gpu_rule.pick(free.clip(max=UNITS), demand))
