"""Neither the names of nodes nor the order in which they came decide what becomes of a fleet."""

from collections import Counter

import numpy as np
import pytest
from fleets import TYPES, demands, nodes
from hypothesis import given, settings
from hypothesis import strategies as st

from noodle_ray.errors import DoesNotFit
from noodle_ray.placement.columns import CPUS, MEMORY
from noodle_ray.placement.ledger import ResourcePool
from noodle_ray.placement.planner import Planner
from noodle_ray.placement.request import Request
from noodle_ray.placement.workload import Workload
from noodle_ray.resources import Demand, NodeResources


def outcome(fleet: list[NodeResources], names: list[str], wanted: list[Demand], policy: str) -> Counter[object]:
    """The nodes' states after all demands came, however they are called."""
    pool = ResourcePool()
    for name, resources in zip(names, fleet, strict=True):
        pool.add_node(name, resources)
    planner = Planner(pool, Workload.of(wanted * 20))
    for number, demand in enumerate(wanted):
        try:
            decision = planner.plan(Request.of(demand), policy)
        except DoesNotFit:
            continue
        pool.allocate(f"a{number}", [(decision.bundles[0].node_id, demand)])
    return Counter(
        (
            str(pool.columns.resources(row)),
            int(pool.free(CPUS)[row]),
            int(pool.free(MEMORY)[row]),
            tuple(sorted(pool.gpu_free[row].tolist())),
        )
        for row in range(len(fleet))
    )


@settings(deadline=None, max_examples=100)
@given(
    fleet=st.lists(nodes, min_size=2, max_size=6),
    wanted=st.lists(demands, min_size=1, max_size=12),
    policy=st.sampled_from(["noodle", "fgd", "best-fit", "spread", "dot-product", "gpu-packing"]),
    data=st.data(),
)
def test_names_and_order_do_not_decide(
    fleet: list[NodeResources], wanted: list[Demand], policy: str, data: st.DataObject
) -> None:
    fleet = fleet + fleet[:2]  # some that are alike
    order = data.draw(st.permutations(range(len(fleet))))
    names = [f"node-{seed}" for seed in data.draw(st.permutations(range(100, 100 + len(fleet))))]
    plain = outcome(fleet, [f"n{number}" for number in range(len(fleet))], wanted, policy)
    assert outcome([fleet[place] for place in order], names, wanted, policy) == plain


@pytest.mark.parametrize("policy", ["noodle", "best-fit"])
def test_a_whole_day_of_arrivals_is_the_same_under_other_names(policy: str) -> None:
    chance = np.random.default_rng(7)
    fleet = [
        NodeResources.of(cpus=int(chance.integers(8, 64)), memory="64GiB", gpus=int(gpus), accelerator_type=kind)
        for gpus, kind in zip(chance.choice([1, 2, 4, 8], 40), chance.choice(TYPES, 40), strict=True)
    ]
    kinds = [Demand(gpu_share=0.3, cpus=2), Demand(gpu_share=0.6, cpus=1), Demand(gpus=1, cpus=4), Demand(cpus=6)]
    wanted = [kinds[index] for index in chance.integers(0, len(kinds), 300)]
    first = outcome(fleet, [f"a{number}" for number in range(40)], wanted, policy)
    order = chance.permutation(40)
    assert outcome([fleet[place] for place in order], [f"z{number}" for number in range(40)], wanted, policy) == first
