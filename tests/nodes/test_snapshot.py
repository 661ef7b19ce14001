"""A snapshot holds all that the manager knows; an overview is what a person watches of it."""

import pickle

from manager_helpers import METRICS, held, manager_with, requested

from noodle_ray.nodes import events as ev
from noodle_ray.nodes.manager import Manager
from noodle_ray.nodes.overview import Overview, Use
from noodle_ray.placement.waiting import PATIENCE_S
from noodle_ray.resources import UNITS, Demand

GIB = 2**30


def busy() -> Manager:
    """Two nodes with GPUs, one that is full of others' work, and two who wait."""
    manager = manager_with("a", "b", cpus=8, memory="16GiB", gpus=2)
    held(manager, "x", Demand(gpu_share=0.5, cpus=1, memory="1GiB"))
    held(manager, "y", Demand(gpus=2))
    for key, priority in (("later", 0), ("first", 1)):
        manager.handle(requested(key, Demand(gpus=2), wait_s=None, priority=priority))
    return manager


def test_it_is_complete_and_survives_the_way_to_another_process() -> None:
    manager = busy()
    snapshot = pickle.loads(pickle.dumps(manager.snapshot(10.0)))
    assert [node.id for node in snapshot.nodes] == ["a", "b"]
    assert {one.id for one in snapshot.allocations} == {"x", "y", "first", "later"}
    assert [(one.id, one.position) for one in snapshot.waiting] == [("first", 1), ("later", 2)]
    assert snapshot.pool.bundles("x") == manager.allocation("x").bundles
    assert snapshot.workload.seen == 4
    assert snapshot.allocation("y").state == "held"
    assert snapshot.names == {"a": "A", "b": "B"}


def test_an_overview_says_how_full_each_node_is() -> None:
    manager = busy()
    node = manager.allocation("x").node_id
    manager.handle(ev.OthersObserved(node, {"cpus": 2 * UNITS, "memory": GIB}, UNITS, at=1.0))
    manager.handle(ev.NodeReported(node, METRICS, at=1.0))
    overview = Overview.of(manager.snapshot(10.0))
    load = next(load for load in overview.nodes if load.id == node)
    assert load.cpus == Use(total=8, held=1, others=2)
    assert load.memory_bytes == Use(total=16 * GIB, held=GIB, others=GIB)
    assert load.gpus == (Use(total=1, held=0.5, others=0), Use(total=1, held=0, others=1))
    assert (load.cpu_used_ratio, load.memory_used_ratio) == (0.5, 0.5)
    assert overview.allocation_ratio == 2.5 / 4
    assert 0 < load.fragmented_gpus < 0.5
    assert overview.fragmented_gpus == sum(load.fragmented_gpus for load in overview.nodes)


def test_an_overview_shows_the_queue_and_what_is_kept() -> None:
    manager = busy()
    for node in ("a", "b"):
        manager.handle(ev.NodeReported(node, METRICS, at=PATIENCE_S))
    manager.handle(ev.Tick(at=PATIENCE_S + 1))
    first, later = Overview.of(manager.snapshot(PATIENCE_S + 1)).queue
    assert (first.id, first.position, first.priority, first.waits_s) == ("first", 1, 1, PATIENCE_S + 1)
    assert first.waits_for.startswith("gpus fails on 2 of 2")
    assert len(first.kept) == 1
    assert later.kept == ()
    kept = [load.name for load in Overview.of(manager.snapshot(0.0)).nodes if load.kept_for == "first"]
    assert kept == list(first.kept)


def test_a_dead_node_has_nothing_but_its_name() -> None:
    manager = manager_with("a", gpus=2, cpus=2)
    manager.handle(ev.Tick(at=10_000.0))
    (load,) = Overview.of(manager.snapshot(10_000.0)).nodes
    assert (load.name, load.state, load.gpus, load.cpus.total) == ("A", "dead", (), 0)
