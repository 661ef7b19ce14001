"""What is asked of the autoscaler: everything that must fit, as one request, and nothing once nobody waits."""

import pytest
from manager_helpers import ONE, SETTINGS, held, kinds, manager_with, one, released, requested

from noodle_ray.nodes import events as ev
from noodle_ray.nodes.instructions import AskForNodes, Instruction, Refused
from noodle_ray.nodes.manager import Manager
from noodle_ray.nodes.scaling import ASK_AFTER_S, ASK_AGAIN_S, NodeType, Room
from noodle_ray.placement.request import Request
from noodle_ray.resources import ACCELERATOR_LABEL, Demand, NodeResources

GPU_TYPE = NodeType("gpu", NodeResources.of(cpus=4, gpus=2, accelerator_type="L4", labels={"zone": "a"}), 2)


def asked(todo: list[Instruction]) -> list[tuple[Room, ...]]:
    return [order.rooms for order in todo if isinstance(order, AskForNodes)]


def launching(manager: Manager) -> Manager:
    manager.handle(ev.NodeTypesSeen((GPU_TYPE,), 0.0))
    return manager


def test_what_waits_is_asked_for_with_what_is_used() -> None:
    manager = manager_with("n1")
    held(manager, "a", Demand(cpus=1.5))
    assert asked(manager.handle(ev.Tick(0.0))) == []
    manager.handle(requested("b", Demand(cpus=2), wait_s=None))
    assert asked(manager.handle(ev.Tick(ASK_AFTER_S / 2))) == []
    wanted = (Room({"CPU": 1.5}, {}), Room({"CPU": 2.0}, {}))
    assert asked(manager.handle(ev.Tick(ASK_AFTER_S))) == [wanted]
    assert asked(manager.handle(ev.Tick(ASK_AFTER_S + 1))) == []
    assert asked(manager.handle(ev.Tick(ASK_AFTER_S + ASK_AGAIN_S))) == [wanted]


def test_it_is_taken_back_once_when_nobody_waits_any_more() -> None:
    manager = manager_with("n1")
    held(manager, "a", Demand(cpus=2))
    manager.handle(requested("b", wait_s=None))
    manager.handle(ev.Tick(5.0))
    released(manager, "a", 6.0)
    assert asked(manager.handle(ev.Tick(6.5))) == [()]
    assert asked(manager.handle(ev.Tick(30.0))) == []


def test_what_a_manager_before_asked_for_is_taken_back() -> None:
    manager = manager_with("n1")
    manager.handle(ev.Recovered((), (), frozenset(), 0.0, asked=True))
    assert asked(manager.handle(ev.Tick(1.0))) == [()]
    assert asked(manager.handle(ev.Tick(2.0))) == []


def test_gpus_that_are_too_full_for_any_who_wait_count_as_whole() -> None:
    manager = manager_with("n1", gpus=2, cpus=4)
    for key in ("a", "b"):
        held(manager, key, Demand(gpu_share=0.6))
    manager.handle(requested("c", Demand(gpu_share=0.5), wait_s=None))
    assert asked(manager.handle(ev.Tick(2.0))) == [(Room({"GPU": 2.0}, {}), Room({"GPU": 0.5}, {}))]


def test_conditions_become_selectors_and_a_strict_pack_one_room() -> None:
    manager = launching(manager_with("n1"))
    manager.handle(requested("a", Demand(gpus=1, accelerator_type="L4", labels={"zone": "a"}), wait_s=None))
    together = Request(bundles=(Demand(cpus=2), Demand(cpus=1, gpus=1)), strategy="strict-pack")
    manager.handle(requested("b", together, wait_s=None))
    assert asked(manager.handle(ev.Tick(2.0))) == [
        (Room({"GPU": 1.0}, {"zone": "a", ACCELERATOR_LABEL: "L4"}), Room({"CPU": 3.0, "GPU": 1.0}, {}))
    ]


@pytest.mark.parametrize(
    ("wanted", "waits"),
    [
        (Demand(gpus=2, accelerator_type="L4"), True),
        (Demand(gpus=1, labels={"zone": "a"}), True),
        (Demand(gpus=3), False),
        (Demand(gpus=1, accelerator_type="A100"), False),
        (Demand(gpus=1, labels={"zone": "b"}), False),
        (Request(bundles=(Demand(gpus=2), Demand(gpus=2))), True),
        (Request(bundles=(Demand(gpus=2), Demand(gpus=2), Demand(gpus=2))), False),
        (Request(bundles=(Demand(cpus=2), Demand(gpus=2), Demand(gpus=2))), True),
    ],
)
def test_what_a_node_that_may_be_launched_would_take_waits(wanted: Demand | Request, waits: bool) -> None:
    manager = launching(manager_with("n1"))
    todo = manager.handle(requested("a", wanted, wait_s=None))
    assert kinds(todo) == (["Keep", "Queued"] if waits else ["Refused"])
    assert one(manager_with("n1").handle(requested("a", Demand(gpus=1), wait_s=None)), Refused).error.refusal.never


def test_nothing_is_asked_while_nobody_waits() -> None:
    manager = launching(Manager(SETTINGS))
    manager.handle(requested("a", ONE))
    assert asked(manager.handle(ev.Tick(100.0))) == []
