"""Defragmentation proposes moves that can be made as they are, and gain what they say."""

import copy
from typing import Any

import pytest
from fleets import TYPES, demands, nodes, pool_of
from hypothesis import given, settings
from hypothesis import strategies as st

from noodle_ray.errors import NotFound
from noodle_ray.placement.allocation import Allocation
from noodle_ray.placement.defrag import LEAST_GAIN, Proposal, propose
from noodle_ray.placement.fragmentation import fragmentation
from noodle_ray.placement.ledger import ResourcePool
from noodle_ray.placement.request import Request
from noodle_ray.placement.workload import Workload
from noodle_ray.resources import Demand, NodeResources

WORKLOAD = Workload.of([Demand(gpus=1), Demand(gpus=2, cpus=1), Demand(gpu_share=0.5, cpus=0.5)] * 10)
HALF = Demand(gpu_share=0.5)


def held(pool: ResourcePool, key: str, node: str, demand: Demand = HALF, **more: Any) -> Allocation:
    request = Request(**{"bundles": (demand,), "movable": True, **more})
    bundles = pool.allocate(key, [(node, demand)], request.anti_affinity)
    return Allocation(id=key, epoch=1, state="held", request=request, bundles=bundles, policy="noodle", created_at=0)


def two_halves(**more: Any) -> tuple[ResourcePool, list[Allocation]]:
    """Two nodes with one GPU each, of which a half is in use: one move frees a whole GPU."""
    pool = pool_of(a=NodeResources.of(cpus=4, gpus=1), b=NodeResources.of(cpus=4, gpus=1))
    return pool, [held(pool, "x", "a", **more), held(pool, "y", "b", movable=False)]


def test_two_halves_become_a_whole() -> None:
    pool, allocations = two_halves()
    proposal = propose(pool, allocations, WORKLOAD)
    (move,) = proposal.moves
    assert (move.allocation_id, move.source, move.target) == ("x", "a", "b")
    assert move.gain_gpus == pytest.approx(1 / 3)  # a half is for a third of the demands, a whole one for two thirds
    assert (proposal.cost.restarts, proposal.cost.gpus, proposal.movable) == (1, 0.5, 1)
    assert pool.on_node("a") == ["x"]


@pytest.mark.parametrize(
    "change",
    [
        lambda pool, allocations: pool.cordon("b", True),
        lambda pool, allocations: pool.cordon("a", True),
        lambda pool, allocations: pool.earmark(["b"], "somebody"),
        lambda pool, allocations: pool.allocate("z", [("b", Demand(cpus=4))]),
        lambda pool, allocations: allocations.pop(0),
    ],
    ids=["target closed", "source closed", "target kept for another", "target full", "nothing movable"],
)
def test_no_move_that_may_not_be_made(change: Any) -> None:
    pool, allocations = two_halves(demand=Demand(gpu_share=0.5, cpus=1))
    assert propose(pool, allocations, WORKLOAD).moves
    change(pool, allocations)
    assert propose(pool, allocations, WORKLOAD).moves == ()


def test_company_that_is_not_wanted_and_labels_hold() -> None:
    pool, allocations = two_halves(anti_affinity="apart")
    assert propose(pool, allocations, WORKLOAD).moves
    pool.allocate("z", [("b", Demand(cpus=1))], "apart")
    assert propose(pool, allocations, WORKLOAD).moves == ()
    zone = {"zone": "x"}
    here, there = NodeResources.of(cpus=4, gpus=1, labels=zone), NodeResources.of(cpus=4, gpus=1)
    pool = pool_of(a=here, b=there)
    bound = [held(pool, "x", "a", Demand(gpu_share=0.5, labels=zone)), held(pool, "y", "b", movable=False)]
    assert propose(pool, bound, WORKLOAD).moves == ()


@pytest.mark.parametrize("state", ["waiting", "reserving", "releasing", "lost"])
def test_only_what_is_held_moves(state: str) -> None:
    pool, (first, second) = two_halves()
    assert propose(pool, [first.model_copy(update={"state": state}), second], WORKLOAD).moves == ()


def test_gangs_stay_also_where_only_one_of_them_is_in_sight() -> None:
    pool, (first, second) = two_halves()
    gang = first.model_copy(update={"request": Request(bundles=(HALF, HALF), movable=True)})
    assert propose(pool, [gang, second], WORKLOAD).moves == ()


def test_of_equal_moves_the_smaller_is_made() -> None:
    pool = pool_of(a=NodeResources.of(cpus=4, memory="8GiB", gpus=1), b=NodeResources.of(cpus=4, memory="8GiB", gpus=1))
    heavy = held(pool, "a-heavy", "a", Demand(gpu_share=0.5, memory="2GiB"))
    light = held(pool, "light", "b", Demand(gpu_share=0.5, memory="1GiB"))
    assert [move.allocation_id for move in propose(pool, [heavy, light], WORKLOAD).moves] == ["light"]


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(NotFound, match="best-fit"):
        propose(ResourcePool(), [], WORKLOAD, "cleverest")


def test_an_empty_fleet_has_nothing_to_move() -> None:
    assert propose(ResourcePool(), [], WORKLOAD).moves == ()


filled_pools = st.lists(
    st.tuples(nodes, st.lists(st.tuples(demands, st.sampled_from([None, "k"])), max_size=4)), min_size=2, max_size=5
)


def fill(plan: list[tuple[NodeResources, list[tuple[Demand, str | None]]]]) -> tuple[ResourcePool, list[Allocation]]:
    pool = pool_of(**{f"n{number}": resources for number, (resources, _) in enumerate(plan)})
    allocations = []
    for number, (_, wanted) in enumerate(plan):
        for index, (demand, key) in enumerate(wanted):
            if not any(failed[number] for failed in pool.failures(demand, anti_affinity=key).values()):
                one = held(pool, f"a{number}.{index}", f"n{number}", demand, anti_affinity=key)
                allocations.append(one)
    return pool, allocations


@settings(max_examples=150, deadline=None)
@given(plan=filled_pools, policy=st.sampled_from(["noodle", "best-fit", "random"]), most=st.integers(1, 4))
def test_a_proposal_can_be_carried_out_and_gains_what_it_says(plan: Any, policy: str, most: int) -> None:
    pool, allocations = fill(plan)
    before = copy.deepcopy(pool)
    proposal = propose(pool, allocations, WORKLOAD, policy, most)
    assert (pool.gpu_free == before.gpu_free).all()
    assert len(proposal.moves) <= most
    carry_out(pool, {one.id: one.request for one in allocations}, proposal)
    assert proposal.fragmentation_after == pytest.approx(fragmentation(pool, WORKLOAD))
    gained = sum(move.gain_gpus for move in proposal.moves)
    assert gained == pytest.approx(proposal.fragmentation_before - proposal.fragmentation_after, abs=1e-4)
    assert gained == pytest.approx(proposal.usable_after - proposal.usable_before, abs=1e-4)


def carry_out(pool: ResourcePool, requests: dict[str, Request], proposal: Proposal) -> None:
    """Move by move; each is onto a node that takes it while it still runs on its own."""
    for move in proposal.moves:
        assert move.gain_gpus >= LEAST_GAIN
        key = requests[move.allocation_id].anti_affinity
        row = pool.columns.row[move.target]
        assert not any(failed[row] for failed in pool.failures(move.demand, anti_affinity=key).values())
        assert pool.bundles(move.allocation_id)[0].node_id == move.source != move.target
        pool.deallocate(move.allocation_id)
        pool.allocate(move.allocation_id, [(move.target, move.demand)], key)
    assert (pool.gpu_held <= pool.gpu_total).all()
    for dimension in pool.dimensions:
        assert (pool.held(dimension) <= pool.total(dimension)).all()


def test_no_single_move_would_have_gained_more() -> None:
    fleet = {f"n{n}": NodeResources.of(cpus=4, gpus=2, accelerator_type=TYPES[n % 2]) for n in range(4)}
    pool = pool_of(**fleet)
    sizes = [0.25, 0.5, 0.75, 0.5]
    allocations = [held(pool, f"x{n}", f"n{n}", Demand(gpu_share=size, cpus=1)) for n, size in enumerate(sizes)]
    best = propose(pool, allocations, WORKLOAD, most=1).moves[0].gain_gpus
    assert best == pytest.approx(max(gain_of(pool, one, target) for one in allocations for target in fleet), abs=1e-5)


def gain_of(pool: ResourcePool, allocation: Allocation, target: str) -> float:
    demand = allocation.request.bundles[0]
    if target == allocation.node_id or not pool.can_allocate(target, demand):
        return 0.0
    tried = copy.deepcopy(pool)
    tried.deallocate(allocation.id)
    tried.allocate(allocation.id, [(target, demand)])
    return fragmentation(pool, WORKLOAD) - fragmentation(tried, WORKLOAD)
