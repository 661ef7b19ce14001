"""The planner picks the best node under a policy, explains itself, and refuses with reasons."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noodle_ray.errors import DoesNotFit, NotFound
from noodle_ray.placement.ledger import ResourcePool
from noodle_ray.placement.planner import plan
from noodle_ray.placement.policies import POLICIES, calculate_fit_score
from noodle_ray.resources import Demand, NodeResources

FLEET = {
    "big": NodeResources.of(cpus=16, memory="64GiB"),
    "small": NodeResources.of(cpus=2, memory="4GiB"),
    "gpu": NodeResources.of(cpus=4, memory="16GiB", gpus=2, accelerator_type="A100"),
}


def fleet(order: tuple[str, ...] = ("big", "small", "gpu")) -> ResourcePool:
    pool = ResourcePool()
    for name in order:
        pool.add_node(name, FLEET[name])
    return pool


def test_best_fit_takes_the_tightest_node_and_spares_gpu_nodes() -> None:
    decision = plan(fleet(), Demand(cpus=2, memory="2GiB"))
    assert decision.node_id == "small"
    assert [candidate.node_id for candidate in decision.explanation.candidates] == ["small", "big", "gpu"]
    assert decision.explanation.candidates[2].parts["gpu left idle"] == 1.0


def test_best_fit_fills_a_started_gpu() -> None:
    pool = fleet()
    pool.add_node("gpu2", FLEET["gpu"])
    pool.allocate("x", "gpu2", Demand(gpu_share=0.5))
    decision = plan(pool, Demand(gpu_share=0.5))
    assert (decision.node_id, decision.gpu_indices) == ("gpu2", (0,))


def test_spread_takes_the_emptiest_node() -> None:
    pool = fleet()
    assert plan(pool, Demand(cpus=1, memory="1GiB"), "spread").node_id == "big"


def test_random_is_seeded() -> None:
    def homes(seed: int) -> list[str]:
        random = np.random.default_rng(seed)
        return [plan(fleet(), Demand(cpus=1), "random", random=random).node_id for _ in range(10)]

    assert homes(1) == homes(1)
    assert len(set(homes(1))) > 1


def test_an_explanation_counts_what_was_filtered() -> None:
    explanation = plan(fleet(), Demand(cpus=1, gpu_share=0.5)).explanation
    assert explanation.considered == 3
    assert explanation.filtered == {"gpu_share": 2}
    assert explanation.chosen == "gpu"


def test_calculate_fit_score_explains_one_node() -> None:
    score, parts = calculate_fit_score(fleet(), "big", Demand(cpus=4))
    assert parts == {"cpus": pytest.approx(0.75), "gpu left idle": 0.0}
    assert score == pytest.approx(-0.75)
    with pytest.raises(NotFound, match="no node"):
        calculate_fit_score(fleet(), "nowhere", Demand(cpus=4))


def test_an_unknown_policy_lists_the_known_ones() -> None:
    with pytest.raises(NotFound, match="known: best-fit, random, spread"):
        plan(fleet(), Demand(cpus=1), "wurst")


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


def test_a_refusal_says_when_a_release_would_help() -> None:
    pool = fleet()
    pool.allocate("x", "gpu", Demand(gpus=2))
    with pytest.raises(DoesNotFit, match="it would fit once something is released") as caught:
        plan(pool, Demand(gpus=1))
    assert caught.value.refusal.best == {"gpus": "0"}


def test_a_refusal_names_conditions_too() -> None:
    pool = fleet()
    pool.cordon("gpu", True)
    with pytest.raises(DoesNotFit) as caught:
        plan(pool, Demand(cpus=1, accelerator_type="A100", labels={"zone": "eu"}), excluded=frozenset({"big"}))
    assert caught.value.refusal.failed_on == {"accelerator_type": 2, "label zone": 3, "cordoned": 1, "tried in vain": 1}


def test_an_empty_fleet_refuses() -> None:
    with pytest.raises(DoesNotFit, match="there is no node"):
        plan(ResourcePool(), Demand(cpus=1))


@given(
    order=st.permutations(sorted(FLEET)),
    policy=st.sampled_from(sorted(set(POLICIES) - {"random"})),
    demand=st.sampled_from(
        [Demand(cpus=1), Demand(cpus=2, memory="1GiB"), Demand(gpu_share=0.3), Demand(memory="8GiB")]
    ),
)
def test_the_order_of_nodes_does_not_decide(order: list[str], policy: str, demand: Demand) -> None:
    assert plan(fleet(tuple(order)), demand, policy).node_id == plan(fleet(), demand, policy).node_id
