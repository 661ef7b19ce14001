"""Instances: a trace of work that comes and goes, and a fleet on which it is short of room."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from noodle_ray.placement.columns import CPUS, MEMORY
from noodle_ray.placement.ledger import ResourcePool, amounts_of
from noodle_ray.replay.traces import Row, read_all
from noodle_ray.resources import UNITS, Demand, NodeResources

GPUS_PER_NODE = 8

GPU_PRESSURE, PRESSURE = 1.05, 0.9
"""Peak demand over what the fleet has: of GPUs, and of everything else."""

CUSTOM = ("rdma", "disk")
"""Requests beside CPUs, memory and GPUs: per cent of a network card, GiB of disk."""

_REQUESTS = [
    "app_name",
    "role",
    "cpu_request",
    "gpu_request",
    "rdma_request",
    "memory_request",
    "disk_request",
    "max_instance_per_node",
]
_TIMES = ["creation_time", "scheduled_time", "deletion_time"]


@dataclass(frozen=True, slots=True)
class Instance:
    """One piece of work: it arrives, and once it has started it runs that long. Seconds from the trace's beginning.

    `arrives_s` is None for what ran already when the trace began; `runs_s` is infinite for what outlives it. Instances
    that ask for the same share one `demand`.
    """

    demand: Demand
    arrives_s: float | None
    runs_s: float


def read_instances(path: Path) -> list[Instance]:
    """Reads the DLRM trace (alibaba/clusterdata, cluster-trace-gpu-v2025), plain or gzipped.

    Requests are CPUs, GPUs, per cent of a network card (`rdma`), GiB of memory and of disk. Where there is no creation
    time the instance ran from the beginning; where there is no deletion time it ran beyond the end. It runs as long as
    it ran there, from being scheduled to being deleted. `max_instance_per_node` is a resource of the instance's
    application and role, of which a node has 1 and the instance takes 1/n.

    Raises NotFound where there is no such file, InvalidInput with line, field and value where it is malformed.
    """
    demands: dict[tuple[object, ...], Demand] = {}
    return read_all(path, [*_REQUESTS, *_TIMES], lambda row: _instance(row, demands))


def _instance(row: Row, demands: dict[tuple[object, ...], Demand]) -> Instance:
    arrives = row.number("creation_time") if row.text("creation_time") else None
    begins = row.number("scheduled_time") if row.text("scheduled_time") else 0.0
    ends = row.number("deletion_time", least=begins) if row.text("deletion_time") else math.inf
    asked = tuple(row.text(name) for name in _REQUESTS)
    if asked not in demands:
        demands[asked] = _demand(row)
    return Instance(demands[asked], arrives, ends - begins)


def _demand(row: Row) -> Demand:
    limit = row.number("max_instance_per_node", least=-1, most=UNITS)
    apart = {} if limit <= 0 else {f"{row.text('app_name')}.{row.text('role')}": UNITS // int(limit) / UNITS}
    custom = {name: row.number(f"{name}_request", most=1e6) for name in CUSTOM}
    asked = row.number("cpu_request", most=1e6), row.number("memory_request", most=1e6)
    gpus = row.amount("gpu_request", most=GPUS_PER_NODE)
    if row.faults:
        return Demand(cpus=1)  # the faults are raised once the file is read
    return Demand(cpus=asked[0], memory=int(asked[1] * 2**30), gpus=gpus, custom=custom | apart)


# -- the fleet


def fleet_short_of_gpus(instances: Sequence[Instance], seed: int) -> ResourcePool:
    """Nodes of two kinds, for instances with GPUs and without; at the peak GPUs are short, and nothing else is.

    Nodes for GPUs have 8 of them, the others twice the CPUs that the largest instance asks for. Of everything else a
    node has its part of the peak with some to spare, and twice what the largest instance asks for at least. Any
    instance may go to any node that it fits. Names and order are by the seed.
    """
    nodes = [
        *_nodes([instance for instance in instances if instance.demand.gpus], "gpus", GPUS_PER_NODE, GPU_PRESSURE),
        *_nodes([instance for instance in instances if not instance.demand.gpus], CPUS, None, PRESSURE),
    ]
    pool = ResourcePool()
    for number, place in enumerate(np.random.default_rng(seed).permutation(len(nodes))):
        pool.add_node(f"node-{seed}-{number}", nodes[place])
    return pool


def _nodes(instances: Sequence[Instance], leading: str, size: int | None, pressure: float) -> list[NodeResources]:
    """As many nodes as make the peak demand for the leading amount `pressure` times what there is."""
    if not instances:
        return []
    wanted = [_amounts(instance.demand) for instance in instances]
    names = dict.fromkeys(name for amounts in wanted for name in amounts)
    twice = {name: 2 * max(amounts.get(name, 0) for amounts in wanted) for name in names}
    peaks = {name: peak(instances, [amounts.get(name, 0) for amounts in wanted]) for name in names}
    size = size or twice[leading]
    count = max(int(peaks[leading] / pressure / size), 1)
    parts = {name: max(math.ceil(peaks[name] / PRESSURE / count), twice[name]) for name in names}
    return [_node(parts | {leading: size}, instances)] * count


def _amounts(demand: Demand) -> dict[str, int]:
    """What counts towards a node's size: all but the limits of instances per node."""
    known = {name: amount for name, amount in amounts_of(demand).items() if "." not in name}
    return known | ({"gpus": demand.gpus} if demand.gpus else {})


def _node(each: Mapping[str, int], instances: Sequence[Instance]) -> NodeResources:
    limits = {name: UNITS for instance in instances for name in instance.demand.custom if "." in name}
    others = {name: amount for name, amount in each.items() if name not in ("gpus", CPUS, MEMORY)}
    return NodeResources(each[CPUS], each.get(MEMORY, 0), each.get("gpus", 0), custom_units=others | limits)


def peak(instances: Sequence[Instance], wanted: Sequence[int]) -> int:
    """The most that is asked for at one time, if nobody ever waits; `wanted` is what each instance asks for."""
    return max((level for _, level in levels(instances, wanted)), default=0)


def levels(instances: Sequence[Instance], wanted: Sequence[int]) -> list[tuple[float, int]]:
    """What is asked for from each moment on, if nobody ever waits: (seconds, sum), in order."""
    changes: dict[float, int] = {}
    for instance, amount in zip(instances, wanted, strict=True):
        start = instance.arrives_s or 0.0
        changes[start] = changes.get(start, 0) + amount
        changes[start + instance.runs_s] = changes.get(start + instance.runs_s, 0) - amount
    moments = sorted(moment for moment in changes if math.isfinite(moment))
    sums = np.cumsum([changes[moment] for moment in moments])
    return [(moment, int(total)) for moment, total in zip(moments, sums, strict=True)]
