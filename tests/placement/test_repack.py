"""One move makes room where there is one, and none is proposed where it would not help."""

import numpy as np
from fleets import demands, nodes, pool_of
from hypothesis import given, settings
from hypothesis import strategies as st

from noodle_ray.placement.chooser import Chooser
from noodle_ray.placement.lack import lack
from noodle_ray.placement.ledger import ResourcePool
from noodle_ray.placement.repack import Move, find_move
from noodle_ray.resources import Demand, NodeResources


def everything(allocation_id: str) -> bool:
    return True


def two_nodes() -> ResourcePool:
    pool = pool_of(a=NodeResources.of(cpus=8, gpus=2), b=NodeResources.of(cpus=8, gpus=1))
    pool.allocate("small", [("a", Demand(gpu_share=0.3))])
    pool.allocate("other", [("b", Demand(gpu_share=0.5))])
    return pool


def move_for(pool: ResourcePool, demand: Demand) -> Move | None:
    return find_move(pool, Chooser(pool), demand, "noodle", everything)


def test_a_share_moves_so_that_two_whole_gpus_are_free() -> None:
    assert move_for(two_nodes(), Demand(gpus=2)) == Move("small", "a", "b")


def test_what_may_not_move_stays() -> None:
    pool = two_nodes()
    assert find_move(pool, Chooser(pool), Demand(gpus=2), "noodle", lambda key: key != "small") is None


def test_what_has_nowhere_to_go_stays() -> None:
    pool = two_nodes()
    pool.allocate("full", [("b", Demand(gpu_share=0.5))])
    assert move_for(pool, Demand(gpus=2)) is None


def test_a_closed_node_gets_no_room_made() -> None:
    pool = two_nodes()
    pool.cordon("a", True)
    assert move_for(pool, Demand(gpus=2)) is None


def test_cpus_are_made_room_for_too() -> None:
    pool = pool_of(a=NodeResources.of(cpus=8), b=NodeResources.of(cpus=4))
    pool.allocate("x", [("a", Demand(cpus=3))])
    assert move_for(pool, Demand(cpus=6)) == Move("x", "a", "b")
    assert move_for(pool, Demand(cpus=9)) is None


def test_lack_is_the_part_of_the_node_that_is_missing() -> None:
    pool = two_nodes()
    assert lack(Demand(gpus=2), pool).tolist() == [0.5, 2.0]
    assert lack(Demand(gpu_share=0.8), pool).tolist() == [0.0, 0.3]
    assert lack(Demand(cpus=10), pool).tolist() == [0.25, 0.25]


@settings(deadline=None, max_examples=100)
@given(
    fleet=st.lists(nodes, min_size=1, max_size=4),
    held=st.lists(demands, max_size=8),
    wanted=demands,
)
def test_a_move_that_is_proposed_helps(fleet: list[NodeResources], held: list[Demand], wanted: Demand) -> None:
    pool = ResourcePool()
    for number, resources in enumerate(fleet):
        pool.add_node(f"n{number}", resources)
    chooser = Chooser(pool)
    for number, demand in enumerate(held):
        row = chooser.choose(demand, "spread")
        if row is not None:
            pool.allocate(f"a{number}", [(pool.node_ids[row], demand)])
    if chooser.choose(wanted) is not None:
        return
    move = find_move(pool, chooser, wanted, "noodle", everything)
    if move is None:
        return
    (bundle,) = pool.bundles(move.allocation_id)
    assert bundle.node_id == move.source != move.target
    pool.deallocate(move.allocation_id)
    pool.allocate(move.allocation_id, [(move.target, bundle.demand)])
    pool.allocate("wanted", [(move.source, wanted)])
    assert (pool.gpu_free >= 0).all()
    assert np.isfinite(lack(wanted, pool)).all()
