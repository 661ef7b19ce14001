"""`noodle bench chaos`: ledger, Ray and store are compared; books that agree have no differences, all others do."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noodle_ray.entry.bench.chaos.ledger_check import (
    Books,
    RaySide,
    differences,
    leaked_units,
    rows_of,
    used_by_others,
)
from noodle_ray.nodes.figures import sums
from noodle_ray.placement.allocation import Allocation, Bundle, Spare, State
from noodle_ray.placement.ledger import ResourcePool
from noodle_ray.placement.request import Request
from noodle_ray.resources import Demand, NodeResources, from_units

NODES = {
    name: NodeResources.of(cpus=8, memory="8GiB", gpus=4, custom_units={"disk": 40_000}) for name in ("n1", "n2", "n3")
}
OTHERS = {"CPU": 15_000, "GPU": 0}

demands = st.one_of(
    st.builds(Demand, cpus=st.sampled_from([0.01, 0.25, 1]), memory=st.integers(0, 2**30)),
    st.builds(Demand, gpu_share=st.sampled_from([0.1, 0.25, 0.5])),
    st.builds(Demand, custom=st.just({"disk": 0.5})),
)


def allocation(number: int, demand: Demand, node: str = "n1", state: State = "held", spare: str = "") -> Allocation:
    second = Spare(epoch=2, bundles=(Bundle(demand=demand, node_id=spare),), ready=True) if spare else None
    return Allocation(
        id=f"noodle-{number}",
        epoch=0 if state == "waiting" else 1,
        state=state,
        request=Request.of(demand),
        bundles=() if state == "waiting" else (Bundle(demand=demand, node_id=node),),
        policy="noodle",
        created_at=1.0,
        spare=second,
    )


def agreed(allocations: Sequence[Allocation]) -> Books:
    """Books that agree, made from a ledger."""
    pool, groups = ResourcePool(), {}
    for name, node in NODES.items():
        pool.add_node(name, node)
    for one in allocations:
        for key, bundles in ((one.group, one.bundles), (one.spare_group, one.spare.bundles if one.spare else ())):
            if bundles and one.state == "held":
                pool.allocate(key, [(bundle.node_id, bundle.demand) for bundle in bundles])
                groups[key] = True
    rows = {one.id: one.to_json() for one in allocations}
    return Books(allocations, sums(pool), RaySide(NODES, _free(pool), groups), rows, OTHERS)


def _free(pool: ResourcePool) -> dict[str, dict[str, float]]:
    """As Ray tells it: what others use is on the first node; a resource that is used up is left out."""
    found = {}
    for row, name in enumerate(pool.node_ids):
        units = {"CPU": int(pool.free("cpus")[row]), "GPU": int(pool.gpu_free[row].sum())}
        others = OTHERS if name == "n1" else {}
        amounts = {dimension: from_units(free - others.get(dimension, 0)) for dimension, free in units.items()}
        found[name] = {dimension: amount for dimension, amount in amounts.items() if amount}
    return found


def sorts(books: Books) -> list[str]:
    return [one.sort for one in differences(books)]


@given(st.lists(st.tuples(demands, st.sampled_from(["n1", "n2", "n3"]), st.booleans()), max_size=6))
def test_books_that_agree_have_no_differences(held: list[tuple[Demand, str, bool]]) -> None:
    spares = {"n1": "n2", "n2": "n3", "n3": "n1"}
    made = [
        allocation(number, demand, node, spare=spares[node] if spared and not demand.gpu_count else "")
        for number, (demand, node, spared) in enumerate(held)
    ]
    books = agreed([*made, allocation(99, Demand(cpus=4), state="waiting")])
    assert differences(books) == []
    assert leaked_units(books) == 0
    assert used_by_others(books.allocations, books.ray) == OTHERS


ONE = allocation(1, Demand(cpus=1, memory=2**30), spare="n2")


def changed_row(**fields: Any) -> dict[str, Mapping[str, Any]]:
    return {ONE.id: {**ONE.to_json(), **fields}}


@pytest.mark.parametrize(
    ("groups", "found"),
    [
        ({ONE.group: True}, ["without_group"]),
        ({ONE.group: False, ONE.spare_group: True}, ["without_group"]),
        ({}, ["without_group", "without_group"]),
        ({ONE.group: True, ONE.spare_group: True, "noodle-1.0": True}, ["group_without_allocation"]),
    ],
)
def test_groups_that_differ_are_found(groups: dict[str, bool], found: list[str]) -> None:
    books = agreed([ONE])
    assert sorts(replace(books, ray=replace(books.ray, groups=groups))) == found


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ({}, ["without_row"]),
        ({ONE.id: ONE.to_json(), "noodle-9": {"state": "held"}}, ["row_without_allocation"]),
        (changed_row(epoch=3), ["row_differs"]),
        (changed_row(state="waiting", bundles=[]), ["row_differs"]),
        (changed_row(expires_at=12.0), []),
    ],
)
def test_rows_that_differ_are_found(rows: dict[str, Mapping[str, Any]], found: list[str]) -> None:
    assert sorts(replace(agreed([ONE]), rows=rows)) == found


def test_a_difference_says_what_it_is_about() -> None:
    [one] = differences(replace(agreed([ONE]), rows=changed_row(epoch=3, spare=None)))
    assert str(one) == "noodle-1: row differs (epoch, spare)"


def test_units_that_are_nobodys_are_leaked_in_ray_and_in_the_ledger() -> None:
    books = agreed([ONE])
    less = {**books.ray.free, "n3": {"CPU": 7.5, "GPU": 3.0}}
    in_ray = replace(books, ray=replace(books.ray, free=less))
    assert leaked_units(in_ray) == 5_000 + 10_000
    assert [str(one) for one in differences(in_ray)] == [
        "CPU in Ray: units leaked (+5000 units)",
        "GPU in Ray: units leaked (+10000 units)",
    ]
    ledger = {**books.totals, "cpus": {**books.totals["cpus"], "held": 3.0}}
    assert leaked_units(replace(books, totals=ledger)) == 10_000


def test_too_much_here_does_not_hide_too_little_there() -> None:
    books = agreed([ONE])
    more = {**books.ray.free, "n3": {"CPU": 9.0, "GPU": 4.0}}
    ledger = {**books.totals, "cpus": {**books.totals["cpus"], "held": 3.0}}
    assert leaked_units(replace(books, totals=ledger, ray=replace(books.ray, free=more))) == 20_000


def test_memory_that_is_held_for_nobody_is_found() -> None:
    books = agreed([ONE])
    ledger = {**books.totals, "memory_bytes": {**books.totals["memory_bytes"], "held": 0.0}}
    [one] = differences(replace(books, totals=ledger))
    assert (one.sort, one.name) == ("held_differs", "memory_bytes")


@pytest.mark.parametrize("state", ["reserving", "releasing"])
def test_what_is_on_its_way_is_not_settled(state: State) -> None:
    moving = ONE.model_copy(update={"state": state})
    assert "unsettled" in sorts(replace(agreed([ONE]), allocations=[moving], rows={ONE.id: moving.to_json()}))


def test_what_a_lost_allocation_had_is_nobodys() -> None:
    lost = ONE.model_copy(update={"state": "lost", "spare": None})
    found = sorts(replace(agreed([ONE]), allocations=[lost], rows={ONE.id: lost.to_json()}))
    assert found.count("group_without_allocation") == 2
    assert "units_leaked" in found and "held_differs" in found


def test_nodes_that_ray_has_no_amounts_of_are_left_out() -> None:
    assert RaySide(NODES, {}, {}).used == {"CPU": 0, "GPU": 0}


def test_rows_are_to_be_nothing() -> None:
    assert [(row.metric, row.value, row.goal) for row in rows_of(agreed([ONE]))] == [
        ("leaked_units", 0, 0),
        ("books_differ", 0, 0),
    ]
    [_, differ] = rows_of(replace(agreed([ONE]), rows={}))
    assert (differ.value, differ.context) == (1, {"without_row": 1})
