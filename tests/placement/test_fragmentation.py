"""Fragmentation is between nothing and all that is free, and what counting by classes says."""

import pytest
from fleets import demands, gpu_demands, nodes, pool_of
from hypothesis import given, settings
from hypothesis import strategies as st

from noodle_ray.placement.columns import CPUS
from noodle_ray.placement.fragmentation import fragmentation, unusable
from noodle_ray.placement.ledger import ResourcePool
from noodle_ray.placement.workload import DemandClass, Workload
from noodle_ray.resources import UNITS, Demand, NodeResources

filled_pools = st.lists(st.tuples(nodes, st.lists(demands, max_size=4)), min_size=1, max_size=5)
workloads = st.lists(demands, max_size=8).map(lambda some: Workload.of(some * 20))


def build(plan: list[tuple[NodeResources, list[Demand]]]) -> ResourcePool:
    pool = pool_of(**{f"n{number}": resources for number, (resources, _) in enumerate(plan)})
    for number, (_, wanted) in enumerate(plan):
        for index, demand in enumerate(wanted):
            if pool.can_allocate(f"n{number}", demand):
                pool.allocate(f"a{number}.{index}", [(f"n{number}", demand)])
    return pool


def usable_for(kind: DemandClass, pool: ResourcePool, row: int) -> float:
    """Counted GPU by GPU, in the words of the paper."""
    runs = kind.runs_on(pool.columns.resources(row).accelerator_type or "")
    if not runs or pool.free(CPUS)[row] < kind.cpu_units:
        return 0.0
    amounts = [int(free) for free in pool.gpu_free[row]]
    able = [amount for amount in amounts if amount >= kind.gpu_units]
    return sum(able) / UNITS if len(able) >= kind.gpu_count else 0.0


@settings(max_examples=200, deadline=None)
@given(plan=filled_pools, workload=workloads)
def test_it_is_between_nothing_and_what_is_free(
    plan: list[tuple[NodeResources, list[Demand]]], workload: Workload
) -> None:
    pool = build(plan)
    by_node, free = unusable(pool, workload), pool.gpu_free.sum(axis=1) / UNITS
    assert (by_node >= 0).all()
    assert (by_node <= free).all()
    assert fragmentation(pool, workload) == pytest.approx(by_node.sum())


@settings(max_examples=200, deadline=None)
@given(plan=filled_pools, wanted=st.lists(gpu_demands, min_size=1, max_size=5))
def test_it_is_what_counting_by_classes_says(
    plan: list[tuple[NodeResources, list[Demand]]], wanted: list[Demand]
) -> None:
    pool = build(plan)
    with_others = [*wanted, Demand(cpus=1)] * 20  # work without GPUs says nothing about them
    expected = [
        int(pool.gpu_free[row].sum()) / UNITS
        - sum(usable_for(DemandClass.of(demand), pool, row) for demand in wanted) / len(wanted)
        for row in range(len(plan))
    ]
    assert unusable(pool, Workload.of(with_others)).tolist() == pytest.approx(expected, abs=1e-4)


@given(counts=st.lists(st.integers(2, 8), min_size=1, max_size=5))
def test_nothing_is_fragmented_where_all_is_free_and_everything_fits(counts: list[int]) -> None:
    fleet = {f"n{number}": NodeResources.of(cpus=16, gpus=count) for number, count in enumerate(counts)}
    workload = Workload.of([Demand(gpus=2, cpus=16), Demand(gpu_share=0.3), Demand(gpus=1, cpus=1)] * 10)
    assert fragmentation(pool_of(**fleet), workload) == pytest.approx(0, abs=1e-5)


def test_a_hole_counts_for_those_whom_it_is_too_small_for() -> None:
    pool = pool_of(n=NodeResources.of(cpus=8, gpus=2))
    pool.allocate("x", [("n", Demand(gpu_share=0.6))])
    workload = Workload.of([Demand(gpu_share=0.25), Demand(gpu_share=0.5)] * 10)
    assert fragmentation(pool, workload) == pytest.approx(0.2)  # the hole of .4, for half of the demands


def test_before_anything_is_seen_whole_gpus_and_halves_are_expected() -> None:
    pool = pool_of(n=NodeResources.of(cpus=8, gpus=1))
    pool.allocate("x", [("n", Demand(gpu_share=0.4))])
    assert fragmentation(pool, Workload()) == pytest.approx(0.6 * 0.6)
