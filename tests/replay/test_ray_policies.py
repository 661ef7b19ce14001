"""Ray's rules, by cases that were worked out by hand from its source."""

from collections import Counter

import numpy as np
import pytest

from noodle_ray.placement.allocation import Bundle
from noodle_ray.placement.ledger import ResourcePool
from noodle_ray.placement.policies import View
from noodle_ray.replay.ray_policies import RAY_POLICIES, Spread, hybrid, pack
from noodle_ray.resources import Demand, NodeResources

CPU = Demand(cpus=1)


def pool_of(*nodes: NodeResources) -> ResourcePool:
    pool = ResourcePool()
    for number, node in enumerate(nodes):
        pool.add_node(f"n{number}", node)
    return pool


def use(pool: ResourcePool, node: int, demand: Demand, gpus: tuple[int, ...] = ()) -> None:
    pool.restore(f"{node}-{demand}", [Bundle(demand=demand, node_id=f"n{node}", gpu_indices=gpus)])


def view(pool: ResourcePool, *rows: int, seed: int = 0) -> View:
    places = np.array(rows or range(len(pool.node_ids)), np.int64)
    return View(pool, places, np.random.default_rng(seed))


def test_hybrid_packs_by_id_below_the_threshold_and_spreads_above_it() -> None:
    pool = pool_of(*[NodeResources.of(cpus=10, memory=100)] * 4)
    use(pool, 0, Demand(cpus=5))  # used by half: counts as used
    use(pool, 1, Demand(cpus=4))  # below the threshold: counts as unused
    assert hybrid(view(pool), CPU) == 1
    for node, cpus in ((1, 4), (2, 7), (3, 6)):
        use(pool, node, Demand(cpus=cpus + 0.5))
    assert hybrid(view(pool), CPU) == 0  # .5 against .85, .75 and .65


def test_hybrid_goes_by_what_is_used_most_of_cpus_and_memory_and_not_by_gpus() -> None:
    pool = pool_of(*[NodeResources.of(cpus=10, memory=100, gpus=2)] * 3)
    use(pool, 0, Demand(memory=90))
    use(pool, 1, Demand(gpus=2), (0, 1))
    use(pool, 2, Demand(cpus=6))
    assert hybrid(view(pool), Demand(cpus=1, memory=1)) == 1
    assert hybrid(view(pool, 0, 2), Demand(gpus=1)) == 2


def test_hybrid_picks_any_of_the_best_fifth_of_all_nodes() -> None:
    pool = pool_of(*[NodeResources.of(cpus=10)] * 20)
    use(pool, 1, Demand(cpus=9))
    picked = Counter(hybrid(view(pool, seed=seed), CPU) for seed in range(400))
    assert set(picked) == {0, 2, 3, 4}
    assert min(picked.values()) > 60
    assert {hybrid(view(pool, 7, 9, seed=seed), CPU) for seed in range(40)} == {7, 9}


def test_hybrid_keeps_work_without_gpus_off_nodes_that_have_some() -> None:
    pool = pool_of(NodeResources.of(cpus=10, gpus=1), NodeResources.of(cpus=10), NodeResources.of(cpus=10, gpus=1))
    use(pool, 1, Demand(cpus=9))
    assert hybrid(view(pool), CPU) == 1
    assert hybrid(view(pool, 0, 2), CPU) == 0
    assert hybrid(view(pool), Demand(cpus=1, gpus=1)) == 0


def test_spread_goes_round_and_passes_over_what_does_not_fit() -> None:
    pool = pool_of(*[NodeResources.of(cpus=10)] * 4)
    spread = Spread()
    assert [spread(view(pool), CPU) for _ in range(5)] == [0, 1, 2, 3, 0]
    assert spread(view(pool, 0, 3), CPU) == 3
    assert spread(view(pool, 1, 2), CPU) == 1
    assert spread(view(pool, 0, 1), CPU) == 0
    assert Spread()(view(pool), CPU) == 0


def test_pack_leaves_the_largest_part_of_what_is_free() -> None:
    pool = pool_of(NodeResources.of(cpus=10, gpus=2), NodeResources.of(cpus=4, gpus=8), NodeResources.of(cpus=20))
    assert pack(view(pool), CPU) == 2  # 19/20 against 9/10 and 3/4
    half = Demand(cpus=1, gpu_share=0.5)
    assert pack(view(pool, 0, 1), half) == 1  # 3/4 + 15/16 against 9/10 + 3/4
    use(pool, 1, Demand(gpus=7), tuple(range(7)))
    assert pack(view(pool, 0, 1), half) == 0  # 3/4 + 1/2 against 9/10 + 3/4
    assert pack(view(pool_of(*[NodeResources.of(cpus=3)] * 3)), CPU) == 0


@pytest.mark.parametrize("name", sorted(RAY_POLICIES))
def test_only_nodes_of_the_view_are_chosen(name: str) -> None:
    pool = pool_of(*[NodeResources.of(cpus=10, memory=100, gpus=1)] * 9)
    rule = RAY_POLICIES[name]()
    for demand in (CPU, Demand(gpu_share=0.5), Demand(cpus=1, memory=5, gpus=1)):
        assert {rule(view(pool, 2, 5, 8, seed=seed), demand) for seed in range(20)} <= {2, 5, 8}
