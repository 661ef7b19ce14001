"""A dry run says what would happen, changes nothing, and knows what another node would be good for."""

import copy
from typing import Any

import pytest
from fleets import demands, nodes, pool_of
from hypothesis import given, settings
from hypothesis import strategies as st

from noodle_ray.errors import NotFound
from noodle_ray.placement.dry_run import DryRun, Wanted, dry_run
from noodle_ray.placement.ledger import ResourcePool
from noodle_ray.placement.request import Request
from noodle_ray.placement.workload import Workload
from noodle_ray.resources import Demand, NodeResources

GPU_NODE = NodeResources.of(cpus=8, memory="16GiB", gpus=2, accelerator_type="L4")


def wanted(name: str, demand: Demand, priority: int = 0, **more: Any) -> Wanted:
    return Wanted(name=name, request=Request(bundles=(demand,), **more), priority=priority)


def run(pool: ResourcePool, *some: Wanted, policy: str = "noodle") -> DryRun:
    return dry_run(pool, Workload(), some, policy)


def test_priority_comes_first_then_the_order_given() -> None:
    pool = pool_of(n=GPU_NODE)
    result = run(
        pool, wanted("a", Demand(gpus=1)), wanted("b", Demand(gpus=1)), wanted("c", Demand(gpus=1), priority=1)
    )
    assert [outcome.name for outcome in result.placed] == ["c", "a"]
    (left,) = result.unplaced
    assert (left.name, left.never, left.reason) == ("b", False, "gpus fails on 1 of 1 (best: 0)")


def test_what_can_never_run_is_told_apart() -> None:
    (outcome,) = run(pool_of(n=GPU_NODE), wanted("a", Demand(gpus=3))).outcomes
    assert outcome.never


def test_requests_that_are_alike_all_get_their_answer() -> None:
    result = run(pool_of(n=GPU_NODE), *(wanted(f"a{number}", Demand(gpus=1)) for number in range(5)))
    assert (len(result.placed), len(result.unplaced)) == (2, 3)


def test_what_is_held_and_kept_is_respected() -> None:
    pool = pool_of(n=GPU_NODE, m=GPU_NODE)
    pool.allocate("x", [("n", Demand(gpus=1))], "key")
    pool.earmark(["m"], "somebody")
    result = run(pool, wanted("a", Demand(gpus=1), anti_affinity="key"), wanted("b", Demand(gpus=1)))
    assert [outcome.name for outcome in result.placed] == ["b"]
    assert result.placed[0].bundles[0].node_id == "n"
    assert "earmarked" in result.unplaced[0].reason


def test_one_more_node_of_each_type() -> None:
    pool = pool_of(g1=GPU_NODE, g2=GPU_NODE, c=NodeResources.of(cpus=4))
    gang = Wanted(name="gang", request=Request(bundles=(Demand(gpus=2),) * 3, strategy="strict-spread"))
    result = run(pool, gang, wanted("big", Demand(cpus=12)))
    assert [outcome.never for outcome in result.unplaced] == [True, True]
    assert [(one.like, one.nodes, one.placed) for one in result.growth] == [("g1", 2, ("gang",)), ("c", 1, ())]
    assert result.growth[0].resources == GPU_NODE


def test_one_more_node_is_not_asked_for_where_all_run() -> None:
    assert run(pool_of(n=GPU_NODE), wanted("a", Demand(cpus=1))).growth == ()


def test_nodes_are_of_one_type_whatever_they_are_called() -> None:
    def node(name: str, zone: str, memory: str) -> NodeResources:
        labels = {"ray.io/node-id": name, "noodle-ray.io/name": name, "zone": zone}
        return NodeResources.of(cpus=1, memory=memory, labels=labels)

    pool = pool_of(
        a=node("a", "x", "64GiB"), b=node("b", "x", "64.01GiB"), c=node("c", "y", "64GiB"), d=node("d", "x", "32GiB")
    )
    result = run(pool, wanted("other", Demand(cpus=2)))
    assert [(one.like, one.nodes) for one in result.growth] == [("a", 2), ("c", 1), ("d", 1)]
    bound = wanted("bound", Demand(cpus=1, labels={"ray.io/node-id": "a"}))
    pool.cordon("a", True)
    assert run(pool, bound).growth[0].placed == ()  # another node like a is not a


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(NotFound, match="no policy 'cleverest'"):
        run(pool_of(n=GPU_NODE), wanted("a", Demand(cpus=1)), policy="cleverest")


@settings(max_examples=100, deadline=None)
@given(
    fleet=st.lists(nodes, min_size=1, max_size=4),
    some=st.lists(demands, min_size=1, max_size=6),
    policy=st.sampled_from(["noodle", "best-fit", "spread"]),
)
def test_it_fits_as_it_says_and_nothing_is_changed(fleet: list[NodeResources], some: list[Demand], policy: str) -> None:
    pool = pool_of(**{f"n{number}": resources for number, resources in enumerate(fleet)})
    before = copy.deepcopy(pool)
    result = run(pool, *(wanted(f"w{number}", demand) for number, demand in enumerate(some)), policy=policy)
    assert (pool.gpu_free == before.gpu_free).all()
    assert all((pool.free(name) == before.free(name)).all() for name in before.dimensions)
    for outcome in result.placed:
        pool.allocate(outcome.name, [(bundle.node_id, bundle.demand) for bundle in outcome.bundles])
        assert pool.bundles(outcome.name) == outcome.bundles
    for outcome in result.unplaced:
        assert not any(pool.can_allocate(node, outcome.request.bundles[0]) for node in pool.node_ids)
    for one in result.growth:
        pool.add_node("more", one.resources)
        fits = [left.name for left in result.unplaced if pool.can_allocate("more", left.request.bundles[0])]
        assert bool(fits) == bool(one.placed)
        pool.remove_node("more")
