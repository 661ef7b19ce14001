"""Gangs are placed together or not at all, and lie to each other as their strategy says."""

import pytest
from fleets import demands, nodes, pool_of
from hypothesis import given, settings
from hypothesis import strategies as st

from noodle_ray.errors import DoesNotFit, InvalidInput
from noodle_ray.placement.columns import CPUS
from noodle_ray.placement.ledger import ResourcePool
from noodle_ray.placement.planner import Decision, Planner
from noodle_ray.placement.request import Request, Strategy
from noodle_ray.resources import Demand, NodeResources

STRATEGIES: tuple[Strategy, ...] = ("pack", "spread", "strict-pack", "strict-spread")


def three() -> ResourcePool:
    return pool_of(
        a=NodeResources.of(cpus=4, gpus=2, memory="8GiB"),
        b=NodeResources.of(cpus=4, gpus=2, memory="8GiB"),
        c=NodeResources.of(cpus=2, gpus=1, memory="8GiB"),
    )


def plan(pool: ResourcePool, *bundles: Demand, strategy: Strategy = "pack", policy: str = "noodle") -> Decision:
    return Planner(pool).plan(Request(bundles=bundles, strategy=strategy), policy)


def nodes_of(decision: Decision) -> list[str]:
    return [bundle.node_id for bundle in decision.bundles]


def test_pack_takes_one_node_where_it_can_and_few_where_not() -> None:
    assert len(set(nodes_of(plan(three(), *[Demand(gpus=1)] * 2)))) == 1
    assert len(set(nodes_of(plan(three(), *[Demand(gpus=1)] * 4)))) == 2


def test_strict_pack_takes_one_node_or_none() -> None:
    assert len(set(nodes_of(plan(three(), *[Demand(cpus=2)] * 2, strategy="strict-pack")))) == 1
    with pytest.raises(DoesNotFit) as caught:
        plan(three(), *[Demand(cpus=2)] * 3, strategy="strict-pack")
    assert caught.value.refusal.never
    assert "3 x (2 CPU) strict-pack" in str(caught.value)


def test_strict_pack_is_not_fooled_by_sums() -> None:
    """Two GPUs with .5 free each are no home for .6 and .4; the next node is."""
    pool = three()
    for number in range(2):
        pool.allocate(f"x{number}", [("a", Demand(gpu_share=0.5001))])
        pool.allocate(f"y{number}", [("b", Demand(gpu_share=0.5001))])
    bundles = Demand(gpu_share=0.4), Demand(gpu_share=0.55)
    assert nodes_of(plan(pool, *bundles, strategy="strict-pack")) == ["c", "c"]


def test_spread_takes_as_many_nodes_as_it_can() -> None:
    assert sorted(nodes_of(plan(three(), *[Demand(cpus=1)] * 3, strategy="spread"))) == ["a", "b", "c"]
    assert len(nodes_of(plan(three(), *[Demand(cpus=1)] * 5, strategy="spread"))) == 5


def test_strict_spread_takes_each_node_once_or_refuses() -> None:
    assert sorted(nodes_of(plan(three(), *[Demand(cpus=1)] * 3, strategy="strict-spread"))) == ["a", "b", "c"]
    with pytest.raises(DoesNotFit) as caught:
        plan(three(), *[Demand(cpus=1)] * 4, strategy="strict-spread")
    assert caught.value.refusal.never
    assert caught.value.refusal.failed_on == {"strategy": 3}


def test_strict_spread_finds_the_one_way_that_there_is() -> None:
    """Each bundle has two homes, but only one way leaves each bundle one: greed alone may miss it."""
    labels = {"a": {"x": "1", "y": "1"}, "b": {"y": "1", "z": "1"}, "c": {"z": "1"}}
    pool = pool_of(
        **{name: NodeResources.of(cpus=number + 1, labels=labels[name]) for number, name in enumerate("abc")}
    )
    bundles = [Demand(cpus=1, labels={label: "1"}) for label in ("z", "y", "z")]
    with pytest.raises(DoesNotFit):
        plan(pool, *bundles, Demand(cpus=1), strategy="strict-spread")
    assert sorted(nodes_of(plan(pool, *bundles, strategy="strict-spread"))) == ["a", "b", "c"]


def test_the_best_home_of_one_is_left_to_another_that_has_no_other() -> None:
    """Three GPUs go on either node, but the two pairs fit together on the larger one only."""
    nodes = {"a": NodeResources.of(gpus=4, accelerator_type="A100"), "b": NodeResources.of(gpus=3, cpus=1)}
    bundles = Demand(gpus=2), Demand(gpus=2), Demand(gpus=3)
    for strategy in ("pack", "spread"):
        assert nodes_of(plan(pool_of(**nodes), *bundles, strategy=strategy)) == ["a", "a", "b"]


def test_shares_fit_in_the_order_in_which_ray_gives_them_out() -> None:
    """Largest first they would fill both GPUs; as they are listed, best fit puts .3 and .4 together."""
    pool = pool_of(a=NodeResources.of(gpus=2))
    shares = [Demand(gpu_share=share) for share in (0.3, 0.4, 0.6, 0.7)]
    with pytest.raises(DoesNotFit):
        plan(pool, *shares)
    assert nodes_of(plan(pool, *reversed(shares))) == ["a"] * 4


def test_a_search_ends() -> None:
    """Sixty bundles of many sizes that just do not fit: no way of placing them is tried for ever."""
    pool = pool_of(**{f"n{number}": NodeResources.of(cpus=10 + number / 7) for number in range(20)})
    with pytest.raises(DoesNotFit):
        plan(pool, *[Demand(cpus=3.3 + number / 100) for number in range(60)], *[Demand(cpus=1)] * 20)


def test_a_gang_that_must_wait_is_told_so() -> None:
    pool = three()
    pool.allocate("x", [("a", Demand(gpus=2))])
    with pytest.raises(DoesNotFit, match="it would fit once something is released"):
        plan(pool, *[Demand(gpus=1)] * 4)


def test_a_gang_stays_apart_from_its_like() -> None:
    pool = three()
    pool.allocate("x", [("a", Demand(cpus=1))], anti_affinity="db")
    request = Request(bundles=(Demand(cpus=1), Demand(cpus=1)), anti_affinity="db", strategy="spread")
    assert sorted(nodes_of(Planner(pool).plan(request))) == ["b", "c"]


@settings(deadline=None, max_examples=100)
@given(
    fleet=st.lists(nodes, min_size=1, max_size=4),
    bundles=st.lists(demands, min_size=2, max_size=5),
    strategy=st.sampled_from(STRATEGIES),
    policy=st.sampled_from(["noodle", "best-fit"]),
)
def test_all_or_nothing(fleet: list[NodeResources], bundles: list[Demand], strategy: Strategy, policy: str) -> None:
    pool = ResourcePool()
    for number, resources in enumerate(fleet):
        pool.add_node(f"n{number}", resources)
    before = pool.free(CPUS).tolist(), pool.gpu_free.tolist()
    try:
        decision = plan(pool, *bundles, strategy=strategy, policy=policy)
    except DoesNotFit as error:
        assert error.refusal.never  # the fleet is empty
        decision = None
    assert (pool.free(CPUS).tolist(), pool.gpu_free.tolist()) == before
    if decision is None:
        return
    assert [bundle.demand for bundle in decision.bundles] == bundles
    used = nodes_of(decision)
    assert len(set(used)) == {"strict-pack": 1, "strict-spread": len(used)}.get(strategy, len(set(used)))
    given_out = pool.allocate("gang", list(zip(used, bundles, strict=True)))
    assert {bundle.node_id for bundle in given_out} == set(used)


def test_a_request_says_what_is_wrong_with_it() -> None:
    with pytest.raises(InvalidInput, match="bundles"):
        Request(bundles=())
    with pytest.raises(InvalidInput, match="strategy"):
        Request.parse({"bundles": [{"cpus": 1}], "strategy": "heap"})
    assert str(Request(bundles=(Demand(cpus=1),), anti_affinity="db")) == "1 CPU, apart from db"
    assert str(Request(bundles=(Demand(cpus=1), Demand(gpus=1)))) == "1 x (1 CPU) + 1 x (1 GPU) pack"
