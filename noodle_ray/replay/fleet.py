"""The fleet: a trace's nodes and pods as placement knows them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from noodle_ray.placement.ledger import ResourcePool
from noodle_ray.replay.traces import WHOLE_GPU_MILLI, Pod, TraceNode
from noodle_ray.resources import ACCELERATOR_LABEL, UNITS, Demand, NodeResources


def fleet_of(nodes: Sequence[TraceNode], seed: int | None) -> ResourcePool:
    """The trace's nodes as a pool; with a seed in a random order, under names that say nothing."""
    order = np.arange(len(nodes)) if seed is None else np.random.default_rng(seed).permutation(len(nodes))
    pool = ResourcePool()
    for number, place in enumerate(order):
        name = nodes[place].name if seed is None else f"node-{seed}-{number}"
        pool.add_node(name, resources_of(nodes[place]))
    return pool


def resources_of(node: TraceNode) -> NodeResources:
    """What a node of a trace has."""
    return NodeResources(
        cpu_units=node.cpu_milli * UNITS // 1000,
        memory_bytes=node.memory_mib * 2**20,
        gpus=node.gpus,
        accelerator_type=node.model or None,
    )


def demand_of(pod: Pod) -> Demand:
    """A pod as our demand; several models that will do become a label selector."""
    models = sorted(pod.models)
    whole = pod.gpu_milli == WHOLE_GPU_MILLI
    return Demand(
        cpus=pod.cpu_milli / 1000,
        memory=pod.memory_mib * 2**20,
        gpus=pod.gpus if whole else 0,
        gpu_share=pod.gpu_milli / WHOLE_GPU_MILLI if pod.gpus and not whole else None,
        labels={ACCELERATOR_LABEL: f"in({','.join(models)})"} if models else {},
    )


def demands_of(pods: Sequence[Pod]) -> list[Demand]:
    """All pods as demands; equal pods share one."""
    known = {pod: demand_of(pod) for pod in dict.fromkeys(pods)}
    return [known[pod] for pod in pods]
