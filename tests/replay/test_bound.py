"""The bound is never below what can be placed, equals it where splitting pods does not help, and fits the traces."""

import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noodle_ray.errors import InvalidInput
from noodle_ray.replay import bound
from noodle_ray.replay.bound import allocation_bound_gpus, allocation_bound_percent, best_patterns
from noodle_ray.replay.published import POLICY_NAMES, read_published
from noodle_ray.replay.traces import Pod, TraceNode, find_traces, read_nodes, read_pods

SHARES = (50, 200, 330, 400, 500, 510, 700, 1000)
MODELS = ("T4", "P100")

NODES = st.builds(
    TraceNode, st.just("n"), st.integers(0, 4), st.integers(0, 4), st.integers(0, 2), st.sampled_from(MODELS)
)
SOME_MODELS = st.frozensets(st.sampled_from(MODELS))
PODS = st.one_of(
    st.builds(Pod, st.integers(0, 3), st.integers(0, 3), st.just(1), st.sampled_from(SHARES), SOME_MODELS),
    st.builds(Pod, st.integers(0, 3), st.integers(0, 3), st.just(2), st.just(1000), SOME_MODELS),
    st.builds(Pod, st.integers(0, 3), st.integers(0, 3)),
)


def node(gpus: int = 1, cpu: int = 100, memory: int = 100, model: str = "T4") -> TraceNode:
    return TraceNode("n", cpu, memory, gpus, model)


def share(milli: int, cpu: int = 0, memory: int = 0, *models: str) -> Pod:
    return Pod(cpu, memory, 1, milli, frozenset(models))


def bound_of(nodes: list[TraceNode], pods: list[Pod]) -> float:
    return allocation_bound_gpus(nodes, Counter(pods))


State = tuple[int, int, tuple[int, ...]]
"""What is free on one node: CPU, memory, and 1/1000 of each GPU, ascending."""


def placements(state: State, pod: Pod, there: TraceNode) -> Iterator[State]:
    """Every way to put the pod on the node, as what is free afterwards."""
    cpu, memory, free = state[0] - pod.cpu_milli, state[1] - pod.memory_mib, state[2]
    if cpu < 0 or memory < 0 or (pod.models and there.model not in pod.models):
        return
    for chosen in itertools.combinations(range(len(free)), pod.gpus):
        left = [milli - pod.gpu_milli * (gpu in chosen) for gpu, milli in enumerate(free)]
        if min(left, default=0) >= 0:
            yield cpu, memory, tuple(sorted(left))


def most_that_can_be_placed(nodes: list[TraceNode], pods: list[Pod]) -> float:
    """In GPUs, by trying everything: each pod on each node and GPU, or nowhere."""
    empty = tuple((n.cpu_milli, n.memory_mib, (1000,) * n.gpus) for n in nodes)
    reached: dict[tuple[State, ...], int] = {empty: 0}
    for pod in pods:
        for fleet, allocated in list(reached.items()):
            for index, state in enumerate(fleet):
                for after in placements(state, pod, nodes[index]):
                    key = (*fleet[:index], after, *fleet[index + 1 :])
                    reached[key] = max(reached.get(key, 0), allocated + pod.requested_milli)
    return max(reached.values()) / 1000


@settings(max_examples=150, deadline=None)
@given(st.lists(NODES, min_size=1, max_size=3), st.lists(PODS, max_size=5))
def test_nothing_can_be_placed_above_the_bound(nodes: list[TraceNode], pods: list[Pod]) -> None:
    best = bound_of(nodes, pods)
    assert best >= most_that_can_be_placed(nodes, pods) - 1e-6
    assert best <= min(sum(n.gpus for n in nodes), sum(pod.requested_milli for pod in pods) / 1000) + 1e-6


@settings(max_examples=60, deadline=None)
@given(st.lists(NODES, min_size=1, max_size=3), st.lists(PODS, max_size=5))
def test_giving_up_early_still_gives_a_bound(nodes: list[TraceNode], pods: list[Pod]) -> None:
    exact = bound_of(nodes, pods)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bound, "_MOST_ROUNDS", 1)
        assert bound_of(nodes, pods) >= exact - 1e-6


@pytest.mark.parametrize(
    ("nodes", "pods", "gpus"),
    [
        pytest.param([node(gpus=4)], [share(500), share(300), Pod(1, 1, 2, 1000)], 2.8, id="everything fits"),
        pytest.param([node(gpus=2)], [share(600)] * 3, 1.2, id="shares of 600 do not meet on one GPU"),
        pytest.param([node(gpus=2)], [share(700)] * 2 + [share(400)] * 2, 1.5, id="two of 400 waste least"),
        pytest.param([node(gpus=3)], [share(510)] * 6 + [share(490)] * 2, 2.51, id="found by pricing only"),
        pytest.param([node(gpus=4)] * 2, [Pod(1, 1, 8, 1000)], 0.0, id="no node has eight GPUs"),
        pytest.param([node(gpus=8)], [Pod(1, 1, 8, 1000)], 8.0, id="a whole node"),
        pytest.param([node(gpus=4)], [Pod(1, 1, 2, 1000)] * 3, 4.0, id="GPUs are short"),
        pytest.param([node(gpus=4, cpu=4)], [share(1000, cpu=2)] * 4, 2.0, id="CPU is short"),
        pytest.param([node(gpus=4, memory=3)], [share(500, memory=1)] * 8, 1.5, id="memory is short"),
        pytest.param([node(cpu=1)] * 4, [share(1000, cpu=2)], 0.0, id="no node has enough CPU, all together have"),
        pytest.param([node(), node(model="P100")], [share(800, 0, 0, "P100")] * 2, 0.8, id="one model only"),
        pytest.param([node()], [share(800, 0, 0, "A10")], 0.0, id="a model that is not there"),
        pytest.param([node(gpus=0), node()], [Pod(9, 9), share(250)], 0.25, id="pods and nodes without GPU"),
    ],
)
def test_the_bound_is_exact_where_splitting_does_not_help(nodes: list[TraceNode], pods: list[Pod], gpus: float) -> None:
    assert bound_of(nodes, pods) == pytest.approx(gpus, abs=1e-6)
    assert most_that_can_be_placed(nodes, pods) == pytest.approx(gpus)


@settings(deadline=None)
@given(
    st.lists(st.integers(7, 100).map(lambda tenths: 10 * tenths), min_size=1, max_size=4, unique=True).map(sorted),
    st.lists(st.lists(st.floats(0, 10), min_size=4, max_size=4), min_size=1, max_size=3),
)
def test_the_best_pattern_is_the_best_of_all(sizes: list[int], worths: list[list[float]]) -> None:
    rows = np.array(worths)[:, : len(sizes)]
    totals, patterns = best_patterns(rows, np.array(sizes))
    counts = itertools.product(*(range(1000 // size + 1) for size in sizes))
    every = np.array([times for times in counts if np.dot(times, sizes) <= 1000])
    for size in range(len(sizes)):
        assert totals[:, size] == pytest.approx((rows @ every[every[:, size] > 0].T).max(axis=1))
        assert (patterns[:, size, size] > 0).all()
    assert (rows[:, None, :] * patterns).sum(axis=2) == pytest.approx(totals)
    assert (patterns @ np.array(sizes) <= 1000).all()


def test_the_level_scales_the_arrivals() -> None:
    nodes, pods = [node(gpus=10)], [share(600), Pod(5, 5)]
    assert allocation_bound_percent(nodes, pods, 0) == 0
    assert allocation_bound_percent(nodes, pods, 30) == pytest.approx(30)
    assert allocation_bound_percent(nodes, pods, 100) == pytest.approx(60)
    assert allocation_bound_percent(nodes, pods, 1e12) == pytest.approx(60)


def test_what_has_no_level_is_refused() -> None:
    with pytest.raises(InvalidInput, match="pods: at least one must ask for GPU"):
        allocation_bound_percent([node()], [Pod(1, 1)], 100)
    with pytest.raises(InvalidInput, match="nodes: must have at least one GPU"):
        allocation_bound_percent([node(gpus=0)], [share(500)], 100)
    for at in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InvalidInput, match="at: must be a finite number of percent"):
            allocation_bound_percent([node()], [share(500)], at)


@pytest.mark.parametrize(
    ("trace", "at", "percent"),
    [("default", 100, 96.90), ("gpuspec33", 90, 87.98), ("gpuspec33", 100, 96.40), ("gpushare100", 130, 91.61)],
)
def test_nobody_has_published_more_than_the_bound(traces_dir: Path, trace: str, at: int, percent: float) -> None:
    found = find_traces(traces_dir)
    best = allocation_bound_percent(read_nodes(found.nodes_file), read_pods(found.pods[trace]), at)
    assert best == pytest.approx(percent, abs=0.01)
    published = read_published(traces_dir)
    for policy in POLICY_NAMES.values():
        allocation = published.allocation(trace, policy, at)
        assert allocation is not None
        assert allocation.mean <= best + 0.02
