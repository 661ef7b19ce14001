"""A large fleet: a trace's nodes over and over under new names, as full as a busy cluster is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from noodle_ray.placement.allocation import Bundle
from noodle_ray.placement.ledger import ResourcePool
from noodle_ray.placement.policies import DEFAULT_POLICY
from noodle_ray.replay.contenders import contender_named
from noodle_ray.replay.fleet import demands_of, fleet_of
from noodle_ray.replay.player import Player
from noodle_ray.replay.traces import WHOLE_GPU_MILLI, Pod, TraceNode, arrivals
from noodle_ray.resources import NodeResources

LOAD = 0.85
"""Requested GPU over what there is."""

_BLOCKS = 4
"""Different fillings of the trace's fleet, one after the other: with one only, too many nodes would be equal."""


@dataclass(frozen=True, slots=True)
class FilledNode:
    """A node and what it holds."""

    resources: NodeResources
    bundles: tuple[Bundle, ...]


def filled_nodes(nodes: Sequence[TraceNode], pods: Sequence[Pod], count: int, seed: int) -> list[FilledNode]:
    """So many nodes, on which the trace's pods have been placed by our default until `LOAD` was asked for."""
    blocks = min(_BLOCKS, -(-count // len(nodes)))
    filled = [node for block in range(blocks) for node in _filled(nodes, pods, seed + block)]
    return [filled[number % len(filled)] for number in range(count)]


def _filled(nodes: Sequence[TraceNode], pods: Sequence[Pod], seed: int) -> list[FilledNode]:
    demands = demands_of(pods)
    player = Player(fleet_of(nodes, seed), contender_named(DEFAULT_POLICY), demands, seed)
    held: dict[str, list[Bundle]] = {node_id: [] for node_id in player.pool.node_ids}
    for number, place in enumerate(arrivals(pods, WHOLE_GPU_MILLI * sum(node.gpus for node in nodes), seed, LOAD)):
        if player.place(str(number), demands[place]):
            bundle = player.pool.bundles(str(number))[0]
            held[bundle.node_id].append(bundle)
    columns = player.pool.columns
    return [FilledNode(columns.resources(row), tuple(held[node_id])) for node_id, row in columns.row.items()]


def empty_pool(nodes: Sequence[FilledNode]) -> ResourcePool:
    """The nodes alone, by number."""
    pool = ResourcePool()
    for number, node in enumerate(nodes):
        pool.add_node(f"node-{number}", node.resources)
    return pool


def fill(pool: ResourcePool, nodes: Sequence[FilledNode]) -> list[str]:
    """Gives an empty pool of these nodes what they hold, each bundle as an allocation; their ids."""
    keys = []
    for number, node in enumerate(nodes):
        for place, bundle in enumerate(node.bundles):
            keys.append(f"{number}.{place}")
            moved = Bundle(demand=bundle.demand, node_id=f"node-{number}", gpu_indices=bundle.gpu_indices)
            pool.restore(keys[-1], [moved])
    return keys
