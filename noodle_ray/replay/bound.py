"""Bound: how much GPU no policy can exceed on a trace, by a linear program over patterns of shares on one GPU."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noodle_ray.errors import InvalidInput
from noodle_ray.replay.traces import WHOLE_GPU_MILLI, Pod, TraceNode, require_gpu_request

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_RELATIVE_GAP = 1e-7
_MOST_ROUNDS = 100
"""Every round's bound is valid, so that giving up early costs tightness only; the openb traces need fewer than 10."""


def allocation_bound_percent(nodes: Sequence[TraceNode], pods: Sequence[Pod], at: float) -> float:
    """GPU in % of capacity, of which no policy allocates more on average when `at` % of capacity has been asked for.

    By then every pod of the list has arrived equally often on average, and the optimum is concave in the numbers of
    arrivals: the optimum of the average arrivals bounds the average optimum (Jensen). Takes seconds; needs scipy.
    A replay averages over arrivals that round to `at`, so where all fits it may show some 0.02 more.
    Raises InvalidInput where there is no GPU, nobody asks for one, or `at` is no finite number of 0 or more.
    """
    capacity = WHOLE_GPU_MILLI * sum(node.gpus for node in nodes)
    require_gpu_request(pods, capacity)
    if not (math.isfinite(at) and at >= 0):
        raise InvalidInput.of("at", "must be a finite number of percent, 0 or more", at)
    times = at / 100 * capacity / sum(pod.requested_milli for pod in pods)
    demand = {pod: count * times for pod, count in Counter(pods).items()}
    return 100 * WHOLE_GPU_MILLI * allocation_bound_gpus(nodes, demand) / capacity


def allocation_bound_gpus(nodes: Sequence[TraceNode], demand: Mapping[Pod, float]) -> float:
    """The number of GPUs of which no placement allocates more, where each pod comes as often as `demand` says.

    A relaxation: pods may be split and moved at will, those without GPU are left out, and the CPU, memory and GPUs of
    like nodes count together. What remains strict: shares must fit together on single GPUs, whole GPUs are wholly
    free, models are respected, and a pod goes only where it fits an empty node.
    Source: Gilmore and Gomory, "A Linear Programming Approach to the Cutting-Stock Problem", 1961 (column generation).
    """
    kinds = Counter(_Kind(node.cpu_milli, node.memory_mib, node.gpus, node.model) for node in nodes if node.gpus)
    program = _Program(kinds, {pod: times for pod, times in demand.items() if pod.gpus})
    if not len(program.pod):
        return 0.0
    best, patterns = math.inf, np.diag(WHOLE_GPU_MILLI // program.sizes)
    for _ in range(_MOST_ROUNDS):
        allocated, gpu_prices, share_prices = program.solve(patterns)
        worths, found = best_patterns(share_prices, program.sizes)
        missing = np.maximum(worths - gpu_prices[:, None], 0.0)
        # With every GPU priced at what its best pattern is worth, the prices are feasible for all patterns at once.
        best = min(best, allocated + float(missing.max(axis=1) @ program.gpus))
        enlarged = np.unique(np.vstack([patterns, found[missing > 0]]), axis=0)
        if best - allocated <= _RELATIVE_GAP * allocated or len(enlarged) == len(patterns):
            break
        patterns = enlarged
    return best


def best_patterns(worths: Floats, sizes: Ints) -> tuple[Floats, Ints]:
    """What shares on one GPU are worth most, if one of them has a given size, and how many there are of each size.

    `worths` says what one share is worth (kinds x sizes). Returns the best totals (kinds x sizes, by the given size)
    and the patterns (kinds x sizes x sizes). The unbounded knapsack problem, for all kinds at once.
    """
    unit = math.gcd(WHOLE_GPU_MILLI, *map(int, sizes))
    lengths = np.append(sizes // unit, 1)  # the last one stands for a unit that stays empty
    chosen, best = _knapsack(np.vstack([worths.T, np.zeros(len(worths))]), lengths, WHOLE_GPU_MILLI // unit)
    kinds, given = np.indices(worths.shape)
    left = (WHOLE_GPU_MILLI // unit - lengths)[given]
    totals = best[left, kinds] + worths
    patterns = np.zeros((*worths.shape, len(lengths)), dtype=np.int64)
    patterns[kinds, given, given] = 1
    while left.any():
        picked = chosen[left, kinds]
        patterns[kinds, given, picked] += 1
        left = np.maximum(left - lengths[picked], 0)
    return totals, patterns[:, :, :-1]


def _knapsack(worths: Floats, lengths: Ints, room: int) -> tuple[Ints, Floats]:
    """For each space up to `room` and each column of worths: the item to put in first, and the best total."""
    best = np.zeros((room + 1, worths.shape[1]))
    chosen = np.full(best.shape, len(lengths) - 1)  # where no space is left, more emptiness does no harm
    for space in range(1, room + 1):
        fitting = np.flatnonzero(lengths <= space)
        totals = best[space - lengths[fitting]] + worths[fitting]
        chosen[space], best[space] = fitting[totals.argmax(axis=0)], totals.max(axis=0)
    return chosen, best


@dataclass(frozen=True, slots=True)
class _Kind:
    """Nodes that are alike in everything but their names."""

    cpu_milli: int
    memory_mib: int
    gpus: int
    model: str

    def takes(self, pod: Pod) -> bool:
        """Whether the pod fits an empty node of this kind."""
        enough = pod.cpu_milli <= self.cpu_milli and pod.memory_mib <= self.memory_mib and pod.gpus <= self.gpus
        return enough and (not pod.models or self.model in pod.models)


class _Program:
    """The linear program. Its variables: pods of one class on one kind of node, and GPUs of one kind with one pattern.

    `pod[i]` and `kind[i]` are the class and the kind of variable i; `sizes` are the amounts that are asked of single
    GPUs, ascending, in 1/1000; `gpus` is the number of GPUs of each kind.
    """

    def __init__(self, kinds: Mapping[_Kind, int], demand: Mapping[Pod, float]) -> None:
        self.kinds, self.pods = list(kinds), list(demand)
        self.count = np.array(list(kinds.values()))
        self.gpus = self.count * [kind.gpus for kind in kinds]
        pairs = [(p, k) for p, pod in enumerate(self.pods) for k, kind in enumerate(self.kinds) if kind.takes(pod)]
        self.pod, self.kind = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        self.sizes, self.size_of_pod = np.unique([pod.gpu_milli for pod in self.pods], return_inverse=True)
        self.requested = np.array([pod.requested_milli / WHOLE_GPU_MILLI for pod in self.pods])
        # More than fills every GPU is never placed; leaving it out keeps the numbers in a range that solvers like.
        self.wanted = np.minimum(list(demand.values()), self.gpus.sum() / self.requested)

    def solve(self, patterns: Ints) -> tuple[float, Floats, Floats]:
        """The most GPU allocated with these patterns (each may be used on any kind) and the prices of scarce things.

        Prices: of one GPU of each kind, and of one piece of each size on each kind (kinds x sizes).
        """
        # Imported here: the core must import without scipy.
        from scipy.optimize import linprog

        matrix, limits = self._constraints(patterns)
        gains = np.zeros(matrix.shape[1])
        gains[: len(self.pod)] = self.requested[self.pod]
        # The interior-point method: on many classes of pods the simplex method takes many times as long.
        solved = linprog(-gains, A_ub=matrix, b_ub=limits, method="highs-ipm")
        if solved.status != 0:
            raise RuntimeError(f"the linear program of the bound was not solved: {solved.message}")
        prices = np.maximum(-solved.ineqlin.marginals, 0.0)
        kinds, shares = len(self.kinds), len(self.kinds) * len(self.sizes)
        return -solved.fun, prices[:kinds], prices[kinds : kinds + shares].reshape(kinds, -1)

    def _constraints(self, patterns: Ints) -> tuple[Any, Floats]:
        from scipy.sparse import block_array, eye_array, kron

        kinds, each_kind = len(self.kinds), eye_array(len(self.kinds))
        cpus, memory = (self._part_of_node(name) for name in ("cpu_milli", "memory_mib"))
        pieces = np.array([pod.gpus for pod in self.pods])[self.pod]
        rows_of_pieces = self.kind * len(self.sizes) + self.size_of_pod[self.pod]
        blocks = [
            [None, kron(each_kind, np.ones((1, len(patterns))))],  # a GPU has one pattern
            [self._sum(pieces, rows_of_pieces, kinds * len(self.sizes)), kron(each_kind, -patterns.T)],
            [self._sum(cpus, self.kind, kinds), None],
            [self._sum(memory, self.kind, kinds), None],
            [self._sum(np.ones(len(self.pod)), self.pod, len(self.pods)), None],  # no more than have arrived
        ]
        no_pieces = np.zeros(kinds * len(self.sizes))
        limits = np.concatenate([self.gpus, no_pieces, self.count, self.count, self.wanted])
        return block_array(blocks, format="csr"), limits

    def _part_of_node(self, resource: str) -> Floats:
        """For each variable of pods, the part of one node's resource that one pod takes."""
        taken = np.array([getattr(pod, resource) for pod in self.pods])
        there = np.array([getattr(kind, resource) for kind in self.kinds])
        return np.asarray(taken[self.pod] / np.maximum(there[self.kind], 1))

    def _sum(self, weights: Floats | Ints, rows: Ints, height: int) -> Any:
        """The matrix that adds the variables of pods, weighted, each into the row given for it."""
        from scipy.sparse import csr_array

        columns = np.arange(len(self.pod))
        return csr_array((weights, (rows, columns)), shape=(height, len(columns)))
