"""The planner picks the best node under a policy, explains itself, and refuses with reasons."""

import pickle
from typing import Any

import numpy as np
import pytest
from fleets import pool_of
from hypothesis import given
from hypothesis import strategies as st

from noodle_ray.errors import DoesNotFit, NotFound
from noodle_ray.placement.chooser import Limits
from noodle_ray.placement.ledger import ResourcePool
from noodle_ray.placement.planner import Decision, Planner
from noodle_ray.placement.policies import POLICIES, calculate_fit_score
from noodle_ray.placement.prices import compute
from noodle_ray.placement.request import Request
from noodle_ray.resources import Demand, NodeResources

FLEET = {
    "big": NodeResources.of(cpus=16, memory="64GiB"),
    "small": NodeResources.of(cpus=2, memory="4GiB"),
    "gpu": NodeResources.of(cpus=4, memory="16GiB", gpus=2, accelerator_type="A100"),
}


def fleet(order: tuple[str, ...] = ("big", "small", "gpu")) -> ResourcePool:
    return pool_of(**{name: FLEET[name] for name in order})


def plan(pool: ResourcePool, wanted: Demand | Request, policy: str = "best-fit", **more: Any) -> Decision:
    return Planner(pool).plan(Request.of(wanted), policy, **more)


def node_of(decision: Decision) -> str:
    return decision.bundles[0].node_id


@pytest.mark.parametrize("policy", ["best-fit", "noodle"])
def test_takes_the_tightest_node_and_spares_gpu_nodes(policy: str) -> None:
    decision = plan(fleet(), Demand(cpus=2, memory="2GiB"), policy)
    assert node_of(decision) == "small"
    assert [candidate.node_id for candidate in decision.explanation.candidates] == ["small", "big", "gpu"]


def test_best_fit_says_why_it_spares_gpu_nodes() -> None:
    decision = plan(fleet(), Demand(cpus=2, memory="2GiB"))
    assert decision.explanation.candidates[2].parts["gpu left idle"] == 1.0


@pytest.mark.parametrize("policy", ["best-fit", "noodle", "fgd", "gpu-packing", "clustering"])
def test_fills_a_started_gpu(policy: str) -> None:
    pool = fleet()
    pool.add_node("gpu2", FLEET["gpu"])
    pool.allocate("x", [("gpu2", Demand(gpu_share=0.5))])
    decision = plan(pool, Demand(gpu_share=0.5), policy)
    assert (node_of(decision), decision.bundles[0].gpu_indices) == ("gpu2", (0,))


def test_spread_takes_the_emptiest_node() -> None:
    assert node_of(plan(fleet(), Demand(cpus=1, memory="1GiB"), "spread")) == "big"


def test_dot_product_takes_what_is_least_like_the_demand() -> None:
    assert node_of(plan(fleet(), Demand(cpus=1), "dot-product")) == "small"


def test_gpu_packing_starts_an_idle_gpu_of_a_started_node_before_an_idle_node() -> None:
    pool = fleet()
    pool.add_node("gpu2", FLEET["gpu"])
    pool.allocate("x", [("gpu2", Demand(gpus=1))])
    assert node_of(plan(pool, Demand(gpu_share=0.5), "gpu-packing")) == "gpu2"


def test_clustering_goes_to_its_like() -> None:
    pool = fleet()
    pool.add_node("gpu2", FLEET["gpu"])
    pool.allocate("whole", [("gpu", Demand(gpus=1))])
    pool.allocate("half", [("gpu2", Demand(gpu_share=0.5))])
    assert node_of(plan(pool, Demand(gpus=1), "clustering")) == "gpu"
    assert node_of(plan(pool, Demand(gpu_share=0.5), "clustering")) == "gpu2"


def test_random_is_seeded() -> None:
    def homes(seed: int) -> list[str]:
        planner = Planner(fleet(), seed=seed)
        return [node_of(planner.plan(Request.of(Demand(cpus=1)), "random")) for _ in range(10)]

    assert homes(1) == homes(1)
    assert len(set(homes(1))) > 1


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_an_explanation_counts_what_was_filtered(policy: str) -> None:
    explanation = plan(fleet(), Demand(cpus=1, gpu_share=0.5), policy).explanation
    assert explanation.considered == 3
    assert explanation.filtered == {"gpu_share": 2}
    assert explanation.chosen == "gpu"
    (candidate,) = explanation.candidates
    assert candidate.score == pytest.approx(-sum(candidate.parts.values()))


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_conditions_hold_under_every_policy(policy: str) -> None:
    pool = pool_of(
        a=NodeResources.of(cpus=4, gpus=1, accelerator_type="A100", labels={"zone": "eu"}),
        b=NodeResources.of(cpus=4, gpus=1, accelerator_type="A100", labels={"zone": "us"}),
        c=NodeResources.of(cpus=4, gpus=1, accelerator_type="L4", labels={"zone": "us"}),
        d=NodeResources.of(cpus=4, gpus=1, accelerator_type="A100", custom_units={"disk": 10_000}),
    )
    assert node_of(plan(pool, Demand(gpus=1, labels={"zone": "eu"}), policy)) == "a"
    assert node_of(plan(pool, Demand(gpus=1, accelerator_type="L4"), policy)) == "c"
    assert node_of(plan(pool, Demand(cpus=1, custom={"disk": 1}), policy)) == "d"
    assert node_of(plan(pool, Demand(gpus=1, labels={"zone": "us"}), policy, excluded=frozenset({"b"}))) == "c"
    pool.cordon("a", True)
    with pytest.raises(DoesNotFit, match="cordoned"):
        plan(pool, Demand(gpus=1, labels={"zone": "eu"}), policy)
    pool.cordon("a", False)
    pool.allocate("x", [("b", Demand(cpus=1))], anti_affinity="db")
    apart = Request(bundles=(Demand(cpus=1, labels={"zone": "us"}),), anti_affinity="db")
    assert node_of(plan(pool, apart, policy)) == "c"
    pool.earmark(["c"], "big")
    with pytest.raises(DoesNotFit, match="earmarked"):
        plan(pool, apart, policy)
    assert node_of(plan(pool, apart, policy, for_id="big")) == "c"


@pytest.mark.parametrize("bundles", [1, 2])
def test_soft_anti_affinity_takes_company_only_where_there_is_no_other_room(bundles: int) -> None:
    pool = pool_of(a=NodeResources.of(cpus=4), b=NodeResources.of(cpus=2))
    apart = Request(bundles=(Demand(cpus=1),) * bundles, strategy="strict-pack", anti_affinity="db")
    soft = apart.model_copy(update={"anti_affinity_soft": True})
    pool.allocate("x", [("a", Demand(cpus=1))], "db")
    assert node_of(plan(pool, soft)) == "b"
    pool.allocate("full", [("b", Demand(cpus=2))])
    assert node_of(plan(pool, soft)) == "a"
    with pytest.raises(DoesNotFit, match="anti_affinity"):
        plan(pool, apart)
    with pytest.raises(DoesNotFit, match="cordoned"):
        pool.cordon("a", True)
        plan(pool, soft)


def test_calculate_fit_score_explains_one_node() -> None:
    score, parts = calculate_fit_score(fleet(), "big", Demand(cpus=4), "best-fit")
    assert parts == {"cpus": pytest.approx(0.75), "gpu left idle": 0.0}
    assert score == pytest.approx(-0.75)
    assert calculate_fit_score(fleet(), "small", Demand(cpus=4), "best-fit") == (float("-inf"), {})
    with pytest.raises(NotFound, match="no node"):
        calculate_fit_score(fleet(), "nowhere", Demand(cpus=4))


def test_calculate_fit_score_says_what_the_planner_says() -> None:
    pool = fleet()
    explanation = plan(pool, Demand(cpus=1), "noodle").explanation
    scores = [calculate_fit_score(pool, candidate.node_id, Demand(cpus=1)) for candidate in explanation.candidates]
    assert [score for score, _ in scores] == sorted((score for score, _ in scores), reverse=True)


def test_an_unknown_policy_lists_the_known_ones() -> None:
    with pytest.raises(NotFound, match="known: best-fit, clustering, dot-product, fgd, gpu-packing, noodle, random"):
        plan(fleet(), Demand(cpus=1), "wurst")
    with pytest.raises(NotFound, match="known: best-fit"):
        plan(fleet(), Request(bundles=(Demand(cpus=1), Demand(cpus=1))), "wurst")


def test_a_refusal_says_which_dimension_fails_on_how_many_nodes() -> None:
    with pytest.raises(DoesNotFit) as caught:
        plan(fleet(), Demand(cpus=8, gpus=4))
    assert caught.value.refusal.failed_on == {"gpus": 3, "cpus": 2}
    assert str(caught.value) == (
        "cannot place 8 CPU, 4 GPU: gpus fails on 3 of 3 (best: 2), cpus fails on 2 of 3 (best: 4); "
        "no node would fit it even when empty"
    )
    copy = pickle.loads(pickle.dumps(caught.value))
    assert str(copy) == str(caught.value)
    assert copy.to_json()["error"]["never"] is True


@pytest.mark.parametrize("policy", ["best-fit", "noodle"])
def test_a_refusal_says_when_a_release_would_help(policy: str) -> None:
    pool = fleet()
    pool.allocate("x", [("gpu", Demand(gpus=2))])
    with pytest.raises(DoesNotFit, match="it would fit once something is released") as caught:
        plan(pool, Demand(gpus=1), policy)
    assert caught.value.refusal.best == {"gpus": "0"}


def test_a_refusal_names_conditions_too() -> None:
    pool = fleet()
    pool.cordon("gpu", True)
    wanted = Demand(cpus=1, accelerator_type="A100", labels={"zone": "eu"})
    with pytest.raises(DoesNotFit) as caught:
        plan(pool, wanted, excluded=frozenset({"big"}))
    assert caught.value.refusal.failed_on == {"accelerator_type": 2, "label zone": 3, "cordoned": 1, "tried in vain": 1}


def test_an_empty_fleet_refuses() -> None:
    for policy in ("best-fit", "noodle"):
        with pytest.raises(DoesNotFit, match="there is no node"):
            plan(ResourcePool(), Demand(cpus=1), policy)


@given(
    order=st.permutations(sorted(FLEET)),
    policy=st.sampled_from(sorted(set(POLICIES) - {"random"})),
    demand=st.sampled_from(
        [Demand(cpus=1), Demand(cpus=2, memory="1GiB"), Demand(gpu_share=0.3), Demand(memory="8GiB")]
    ),
)
def test_the_order_of_nodes_does_not_decide(order: list[str], policy: str, demand: Demand) -> None:
    assert node_of(plan(fleet(tuple(order)), demand, policy)) == node_of(plan(fleet(), demand, policy))


def test_prices_follow_the_workload() -> None:
    pool = fleet()
    planner = Planner(pool)
    assert planner.price_inputs() is not None  # the first, of an unknown workload
    planner.plan(Request.of(Demand(cpus=1)))
    assert planner.price_inputs() is None
    for _ in range(20):
        planner.note(Request.of(Demand(gpu_share=0.8)))
    inputs = planner.price_inputs()
    assert inputs is not None
    planner.use(compute(inputs))
    assert planner.price_inputs() is None
    for _ in range(6):
        planner.note(Request.of(Demand(gpu_share=0.2)))
    assert planner.price_inputs() is not None  # a quarter more have come


def test_a_new_type_of_accelerator_is_learned_at_once() -> None:
    pool = fleet()
    planner = Planner(pool)
    planner.plan(Request.of(Demand(gpus=1)))
    pool.add_node("new", NodeResources.of(cpus=4, gpus=4, accelerator_type="B200"))
    assert planner.price_inputs() is not None
    assert node_of(planner.plan(Request.of(Demand(gpus=4)))) == "new"


def test_choose_is_plan_without_the_reasons() -> None:
    pool = fleet()
    planner = Planner(pool)
    for policy in sorted(set(POLICIES) - {"random"}):
        for demand in (Demand(cpus=1), Demand(gpu_share=0.5), Demand(cpus=1, custom={"disk": 1}), Demand(gpus=8)):
            row = planner.chooser.choose(demand, policy)
            try:
                planned = node_of(planner.plan(Request.of(demand), policy))
            except DoesNotFit:
                planned = None
            assert (None if row is None else pool.node_ids[row]) == planned


def test_limits_to_some_nodes() -> None:
    found = Planner(fleet()).chooser.explain(Demand(cpus=1), "noodle", Limits(only=frozenset({"gpu"})))
    assert found.chosen == "gpu"
    assert found.filtered == {"strategy": 2}
    assert np.isfinite(found.candidates[0].score)


def test_custom_resources_go_where_they_fit_best() -> None:
    pool = pool_of(
        wide=NodeResources.of(cpus=8, custom_units={"disk": 80_000}),
        tight=NodeResources.of(cpus=8, custom_units={"disk": 20_000}),
    )
    decision = plan(pool, Demand(cpus=1, custom={"disk": 2}), "noodle")
    assert node_of(decision) == "tight"
    assert decision.explanation.candidates[1].parts["custom"] == pytest.approx(0.75)
    score, parts = calculate_fit_score(pool, "wide", Demand(cpus=1, custom={"disk": 2}))
    assert parts["custom"] == pytest.approx(0.75)
    assert score == pytest.approx(decision.explanation.candidates[1].score)
