"""Which nodes are kept for a request that waits too long."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noodle_ray.placement.earmarking import choose_nodes
from noodle_ray.placement.ledger import ResourcePool
from noodle_ray.placement.request import Request
from noodle_ray.resources import Demand, NodeResources

NODE = NodeResources.of(cpus=4, gpus=2)


def pool_with(held: dict[str, Demand | None]) -> ResourcePool:
    """Nodes of one kind; on each, one allocation holds that much."""
    pool = ResourcePool()
    for node_id, demand in held.items():
        pool.add_node(node_id, NODE)
        if demand is not None:
            pool.allocate(f"on {node_id}", [(node_id, demand)])
    return pool


def emptied(node_ids: Sequence[str]) -> ResourcePool:
    return pool_with(dict.fromkeys(node_ids))


def chosen(request: Demand | Request, held: dict[str, Demand | None]) -> tuple[str, ...]:
    return choose_nodes(Request.of(request), pool_with(held), emptied)


@pytest.mark.parametrize(
    ("demand", "node"),
    [
        (Demand(cpus=4), "few"),
        (Demand(gpus=2), "some"),
        (Demand(gpu_share=0.8), "some"),
        (Demand(cpus=4, gpus=2), "some"),  # half of its CPUs and GPUs, rather than three quarters of one of them
    ],
)
def test_the_node_that_lacks_least(demand: Demand, node: str) -> None:
    held: dict[str, Demand | None] = {
        "most": Demand(cpus=4, gpus=2),
        "few": Demand(cpus=1, gpus=2),
        "some": Demand(cpus=2, gpus=1),
    }
    assert chosen(demand, held) == (node,)


def test_equal_nodes_go_by_their_ids_not_by_their_order() -> None:
    half = Demand(cpus=2)
    assert chosen(Demand(cpus=4), {"b": half, "a": half, "c": half}) == ("a",)


def test_as_few_nodes_as_a_gang_needs() -> None:
    held: dict[str, Demand | None] = {f"n{number}": Demand(cpus=number) for number in (1, 2, 3, 4)}
    assert set(chosen(Request(bundles=(Demand(cpus=4),) * 2), held)) == {"n1", "n2"}
    spread = Request(bundles=(Demand(cpus=1),) * 3, strategy="strict-spread")
    assert set(chosen(spread, held)) == {"n1", "n2", "n3"}
    assert chosen(Request(bundles=(Demand(cpus=4),) * 5), held) == ()


def test_nodes_that_are_closed_or_too_small_are_not_kept() -> None:
    pool = pool_with({"a": None, "b": Demand(cpus=2)})
    pool.cordon("a", True)
    assert choose_nodes(Request.of(Demand(cpus=4)), pool, emptied) == ("b",)
    assert choose_nodes(Request.of(Demand(cpus=5)), pool, emptied) == ()
    assert choose_nodes(Request.of(Demand(cpus=1)), ResourcePool(), emptied) == ()


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.integers(1, 6))
@settings(deadline=None)
def test_what_is_kept_is_enough_and_lacks_least(cpus: list[int], bundles: int) -> None:
    request = Request(bundles=(Demand(cpus=3),) * bundles)
    nodes = chosen(request, {f"n{index}": Demand(cpus=used) if used else None for index, used in enumerate(cpus)})
    assert len(nodes) == (bundles if bundles <= len(cpus) else 0)
    lacking = [max(cpus[int(node.removeprefix("n"))] - 1, 0) for node in nodes]
    assert sorted(lacking) == sorted(max(used - 1, 0) for used in cpus)[: len(nodes)]
