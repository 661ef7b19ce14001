"""Those who wait: who is served when room comes back, who may overtake, and how waiting ends."""

from typing import Any

import pytest
from manager_helpers import (
    METRICS,
    ONE,
    SETTINGS,
    held,
    joined,
    kinds,
    manager_with,
    one,
    released,
    requested,
    rows_of,
)

from noodle_ray.errors import Conflict, DoesNotFit, Unavailable
from noodle_ray.nodes import events as ev
from noodle_ray.nodes.instructions import CreateGroup, Granted, Instruction, Keep, Notice, Queued, Refused, Released
from noodle_ray.nodes.manager import Manager
from noodle_ray.nodes.watch import WARN_EVERY_S
from noodle_ray.placement.request import Request
from noodle_ray.placement.waiting import AGEING_S, PATIENCE_S
from noodle_ray.resources import Demand

TWO = Demand(cpus=2)


def waiting(manager: Manager, key: str, wanted: Demand | Request = ONE, at: float = 0.0, **more: Any) -> None:
    todo = manager.handle(requested(key, wanted, at, **{"wait_s": None, **more}))
    assert kinds(todo) == ["Keep", "Queued"]


def tick(manager: Manager, at: float) -> list[Instruction]:
    """Time passes, and every node's agent is heard."""
    for node in manager.nodes():
        manager.handle(ev.NodeReported(node.id, METRICS, at))
    return manager.handle(ev.Tick(at))


def served(todo: list[Instruction]) -> list[str]:
    return [order.allocation_id for order in todo if isinstance(order, CreateGroup)]


def refused(todo: list[Instruction]) -> list[str]:
    return [order.allocation_id for order in todo if isinstance(order, Refused)]


def in_line(manager: Manager) -> list[str]:
    places = {a.position: a.id for a in manager.allocations() if a.position is not None}
    return [places[place] for place in sorted(places)]


def full_manager(*nodes: str) -> Manager:
    """Every node's two CPUs are held, by an allocation of the node's name."""
    manager = manager_with(*nodes)
    for _ in nodes:
        todo = manager.handle(requested("x", TWO))
        node = one(todo, CreateGroup).bundles[0].node_id
        manager.handle(ev.ReleaseRequested("x", 0.0))
        manager.handle(ev.GroupRemoved("x", 1, 0.0))
        held(manager, f"on-{node}", TWO)
    return manager


def test_what_does_not_fit_now_waits_and_says_for_what() -> None:
    manager = full_manager("n1")
    todo = manager.handle(requested("a", wait_s=None))
    assert kinds(todo) == ["Keep", "Queued"]
    assert one(todo, Queued).allocation.position == 1
    assert one(todo, Keep).change.document["state"] == "waiting"
    seen = manager.allocation("a")
    assert (seen.state, seen.bundles, seen.position) == ("waiting", (), 1)
    assert seen.waits_for == "cpus fails on 1 of 1 (best: 0)"
    assert seen.explanation is not None and seen.explanation.filtered == {"cpus": 1}
    assert manager.totals()["waiting"] == 1
    assert manager.figures(7.0)["oldest_wait_seconds"] == 7.0


def test_released_room_goes_to_who_waits() -> None:
    manager = full_manager("n1")
    waiting(manager, "a")
    todo = released(manager, "on-n1", at=5.0)
    assert served(todo) == ["a"]
    todo = manager.handle(ev.GroupCreated("a", 1, 6.0))
    granted = one(todo, Granted).allocation
    assert (granted.state, granted.waits_for, granted.position, granted.group) == ("held", "", None, "a.1")


def test_room_is_offered_by_priority_then_age() -> None:
    manager = full_manager("n1")
    waiting(manager, "early", TWO)
    waiting(manager, "urgent", Demand(cpus=1.5), 1.0, priority=3)
    waiting(manager, "late", TWO, 2.0)
    assert in_line(manager) == ["urgent", "early", "late"]
    assert served(released(manager, "on-n1", at=5.0)) == ["urgent"]
    manager.handle(ev.GroupCreated("urgent", 1, 5.0))
    assert served(released(manager, "urgent", at=6.0)) == ["early"]


def test_small_ones_overtake_a_big_one_until_its_patience_is_over() -> None:
    manager = manager_with("n1", "n2", cpus=4)
    for key in ("a", "b"):
        held(manager, key, Demand(cpus=3))
    waiting(manager, "big", Demand(cpus=4))
    held(manager, "small", at=1.0)  # backfilled
    manager.handle(ev.ReleaseRequested("small", 1.0))
    manager.handle(ev.GroupRemoved("small", 1, 1.0))
    tick(manager, PATIENCE_S)
    placed = manager.handle(requested("other", at=PATIENCE_S))
    kept = ({"n1", "n2"} - {one(placed, CreateGroup).bundles[0].node_id}).pop()
    todo = manager.handle(requested("another", at=PATIENCE_S))
    assert one(todo, Refused).error.refusal.failed_on["earmarked"] == 1
    blocker = next(key for key in ("a", "b") if manager.allocation(key).node_id == kept)
    todo = released(manager, blocker, at=PATIENCE_S + 1)
    assert served(todo) == ["big"]
    assert one(todo, CreateGroup).bundles[0].node_id == kept


def test_nodes_are_kept_where_least_must_be_released() -> None:
    manager = manager_with("n1", "n2", "n3", cpus=4)
    for key, cpus in (("a", 4.0), ("b", 3.0), ("c", 2.0)):
        held(manager, key, Demand(cpus=cpus))
    waiting(manager, "big", Demand(cpus=4))
    tick(manager, PATIENCE_S - 1)
    assert kinds(manager.handle(requested("early", at=PATIENCE_S - 1))) == ["Keep", "CreateGroup"]
    manager.handle(ev.ReleaseRequested("early", PATIENCE_S - 1))
    manager.handle(ev.GroupRemoved("early", 1, PATIENCE_S - 1))
    tick(manager, PATIENCE_S)
    assert served(released(manager, "c", at=PATIENCE_S)) == ["big"]
    assert manager.allocation("big").node_id not in {manager.allocation(key).node_id for key in ("a", "b")}


def test_kept_nodes_are_given_back_when_the_one_gives_up() -> None:
    manager = manager_with("n1", cpus=4)
    held(manager, "a", Demand(cpus=3))
    waiting(manager, "big", Demand(cpus=4))
    tick(manager, PATIENCE_S)
    waiting(manager, "small", at=PATIENCE_S)
    todo = manager.handle(ev.ReleaseRequested("big", PATIENCE_S))
    assert one(todo, Refused).allocation_id == "big"
    assert served(todo) == ["small"]


def test_an_urgent_newcomer_gets_nodes_that_were_kept_for_another() -> None:
    manager = manager_with("n1", cpus=4)
    held(manager, "a", Demand(cpus=3))
    waiting(manager, "big", Demand(cpus=4))
    tick(manager, PATIENCE_S)
    todo = manager.handle(requested("urgent", ONE, PATIENCE_S, priority=5, wait_s=None))
    assert kinds(todo) == ["Keep", "Queued", "Keep", "CreateGroup"]
    assert served(todo) == ["urgent"]


def test_a_node_that_is_kept_and_leaves_is_replaced() -> None:
    manager = manager_with("n1", "n2", cpus=4)
    for key in ("a", "b"):
        held(manager, key, Demand(cpus=3))
    waiting(manager, "big", Demand(cpus=4))
    tick(manager, PATIENCE_S)
    placed = one(manager.handle(requested("other", at=PATIENCE_S)), CreateGroup).bundles[0].node_id
    (kept,) = {"n1", "n2"} - {placed}
    manager.handle(ev.NodeLeft(kept, PATIENCE_S))
    manager.handle(ev.ReleaseRequested("other", PATIENCE_S))
    manager.handle(ev.GroupRemoved("other", 1, PATIENCE_S))
    assert kinds(manager.handle(requested("small", at=PATIENCE_S))) == ["Refused"]


def test_a_newcomer_does_not_overtake_its_like() -> None:
    manager = full_manager("n1")
    waiting(manager, "a", wait_s=5.0)
    waiting(manager, "b", at=1.0)
    assert refused(manager.handle(requested("c", at=2.0))) == ["c"]
    assert manager.allocation("b").waits_for.startswith("cpus fails on 1 of 1")
    assert in_line(manager) == ["a", "b"]


def test_what_can_fit_nowhere_is_refused_at_once() -> None:
    manager = full_manager("n1")
    error = one(manager.handle(requested("a", Demand(cpus=3), wait_s=None)), Refused).error
    assert isinstance(error, DoesNotFit) and error.refusal.never
    assert one(manager.handle(requested("b", Demand(gpus=1), wait_s=None)), Refused).error.refusal.never
    assert in_line(manager) == []


def test_a_deadline_ends_waiting_with_the_reason() -> None:
    manager = full_manager("n1")
    waiting(manager, "a", wait_s=5.0)
    assert refused(manager.handle(ev.Tick(4.9))) == []
    todo = manager.handle(ev.Tick(5.0))
    assert kinds(todo)[:2] == ["Keep", "Refused"]
    assert one(todo, Refused).error.refusal.failed_on == {"cpus": 1}
    assert in_line(manager) == []


def test_who_waits_can_be_called_off() -> None:
    manager = full_manager("n1")
    waiting(manager, "a")
    todo = manager.handle(ev.ReleaseRequested("a", 1.0))
    assert kinds(todo) == ["Refused", "Keep", "Released"]
    assert isinstance(todo[0], Refused) and isinstance(todo[0].error, Conflict)
    assert in_line(manager) == []
    assert served(released(manager, "on-n1", 2.0)) == []


def test_a_lease_runs_while_it_waits_and_an_owner_may_go() -> None:
    manager = full_manager("n1")
    waiting(manager, "leased", lease_s=5.0)
    waiting(manager, "owned", owner="job:1")
    manager.handle(ev.LeaseRenewed("leased", 3.0))
    assert refused(manager.handle(ev.Tick(6.0))) == []
    assert refused(manager.handle(ev.Tick(9.0))) == ["leased"]
    assert refused(manager.handle(ev.OwnerGone("job:1", 10.0))) == ["owned"]
    assert in_line(manager) == []


@pytest.mark.parametrize("what", ["joins", "opens", "wakes", "others leave"])
def test_room_that_comes_in_any_way_is_offered(what: str) -> None:
    manager = full_manager("n1")
    if what != "joins":
        manager.handle(joined("n2"))
    todo: list[Instruction] = []
    match what:
        case "joins":
            waiting(manager, "a")
            todo = manager.handle(joined("n2"))
        case "opens":
            manager.handle(ev.NodeCordoned("n2", True, 0.0))
            waiting(manager, "a")
            todo = manager.handle(ev.NodeCordoned("n2", False, 1.0))
        case "wakes":
            manager.handle(ev.NodeReported("n1", METRICS, 14.0))
            manager.handle(ev.Tick(16.0))
            waiting(manager, "a", at=16.0)
            todo = manager.handle(ev.NodeReported("n2", METRICS, 17.0))
        case "others leave":
            manager.handle(ev.OthersObserved("n2", {"cpus": 20_000}, 0, 0.0))
            waiting(manager, "a")
            assert manager.handle(ev.OthersObserved("n2", {"cpus": 20_000}, 0, 1.0)) == []
            todo = manager.handle(ev.OthersObserved("n2", {"cpus": 5_000}, 0, 1.0))
    assert served(todo) == ["a"]


def test_a_home_that_ray_refuses_has_it_wait_again_at_its_old_place() -> None:
    manager = manager_with("n1")
    order = one(manager.handle(requested("a", wait_s=None)), CreateGroup)
    todo = manager.handle(ev.GroupFailed("a", order.epoch, "no room", 1.0, ("n1",)))
    assert kinds(todo) == ["RemoveGroup", "Notice", "Keep", "Queued"]
    assert manager.allocation("a").position == 1
    assert one(manager.handle(ev.Tick(1.5)), CreateGroup).epoch == 2
    assert kinds(manager.handle(ev.GroupCreated("a", 1, 2.0))) == ["RemoveGroup"]
    assert kinds(manager.handle(ev.GroupCreated("a", 2, 2.0))) == ["Keep", "Granted"]


def test_it_waits_on_when_ray_refuses_three_homes() -> None:
    manager = manager_with("n1", "n2", "n3", "n4")
    todo = manager.handle(requested("a", wait_s=None))
    for epoch in (1, 2, 3):
        todo = manager.handle(ev.GroupFailed("a", epoch, "slow", 1.0))
    assert kinds(todo) == ["RemoveGroup", "Notice", "Keep", "Queued"]
    assert manager.allocation("a").waits_for == "Ray did not reserve it in 3 homes, last: slow"
    assert served(manager.handle(ev.Tick(1.5))) == ["a"]


def test_who_waited_waits_after_a_restart() -> None:
    before = full_manager("n1")
    waiting(before, "late", at=2.0, priority=0)
    waiting(before, "first", Demand(cpus=1.5), priority=0, wait_s=90.0)
    after = Manager(SETTINGS)
    after.handle(ev.Recovered(rows_of(before), (), frozenset({"on-n1.1"}), 10.0))
    after.handle(joined("n1", 10.0))
    assert in_line(after) == ["first", "late"]
    todo = after.handle(requested("late", at=11.0, wait_s=None))
    assert one(todo, Queued).allocation.position == 2
    assert served(released(after, "on-n1", at=12.0)) == ["first"]
    assert after.allocation("first").wait_until == 90.0


def test_a_claim_again_hears_how_it_stands() -> None:
    manager = manager_with("n1", cpus=1)
    held(manager, "a", owner="job:1")
    waiting(manager, "b")
    assert kinds(manager.handle(requested("b", wait_s=None))) == ["Queued"]
    with pytest.raises(Conflict, match="belongs to another claim"):
        manager.handle(requested("a", TWO, owner="job:1"))
    with pytest.raises(Conflict, match="belongs to another claim"):
        manager.handle(requested("a", ONE, owner="job:2"))
    manager.handle(ev.ReleaseRequested("a", 1.0))
    assert isinstance(one(manager.handle(requested("a", owner="job:1")), Refused).error, Conflict)
    manager.handle(ev.GroupRemoved("a", 1, 2.0))
    manager.handle(ev.GroupCreated("b", 1, 2.0))
    manager.handle(ev.NodeLeft("n1", 3.0))
    error = one(manager.handle(requested("b")), Refused).error
    assert str(error) == "allocation b is lost"
    assert one(manager.handle(ev.ReleaseRequested("b", 4.0)), Released) == Released("b")


def test_a_warning_when_somebody_waits_while_much_is_free() -> None:
    manager = manager_with("n1", "n2")
    for key in ("a", "b"):
        held(manager, key, Demand(cpus=1.5))
    assert manager.handle(ev.Tick(1.0)) == []
    waiting(manager, "c", TWO, 1.0)
    notice = one(manager.handle(ev.Tick(1.5)), Notice)
    assert (notice.kind, notice.warns, notice.details) == ("efficiency_warning", True, {"allocation_ratio": 0.75})

    assert not [order for order in tick(manager, 1.4 + WARN_EVERY_S) if isinstance(order, Notice)]
    assert one(tick(manager, 1.5 + WARN_EVERY_S), Notice).kind == "efficiency_warning"


def test_no_warning_when_the_cluster_is_full() -> None:
    manager = full_manager("n1")
    waiting(manager, "a")
    assert not [order for order in manager.handle(ev.Tick(0.5)) if isinstance(order, Notice)]


def test_ageing_overcomes_priority() -> None:
    manager = full_manager("n1")
    waiting(manager, "old", TWO)
    waiting(manager, "urgent", Demand(cpus=1.5), AGEING_S + 1, priority=1)
    assert in_line(manager) == ["old", "urgent"]


@pytest.mark.parametrize(("wait_s", "late_at"), [(0.0, 15.0), (0.5, 2.0), (8.0, 8.0)])
def test_what_ray_does_not_reserve_in_time_is_given_up(wait_s: float, late_at: float) -> None:
    manager = manager_with("n1")
    manager.handle(requested("a", wait_s=wait_s))
    assert tick(manager, late_at - 0.1) == []
    todo = tick(manager, late_at)
    assert kinds(todo) == ["Keep", "Refused", "RemoveGroup"]
    assert isinstance(one(todo, Refused).error, Unavailable)
    assert manager.totals()["cpus"]["held"] == 1  # until Ray has let go of it
    manager.handle(ev.GroupRemoved("a", 1, late_at))
    assert (manager.totals()["cpus"]["held"], manager.allocations()) == (0, [])


def test_what_may_wait_for_ever_is_not_given_up() -> None:
    manager = manager_with("n1")
    manager.handle(requested("a", wait_s=None))
    assert tick(manager, 9_000.0) == []


def test_what_was_held_once_is_looked_for_without_an_end() -> None:
    manager = manager_with("n1")
    held(manager, "a", wait_s=8.0)
    manager.handle(ev.GroupVanished("a", 1, 5.0))
    assert manager.allocation("a").state == "reserving"
    assert tick(manager, 9_000.0) == []


def test_a_clock_that_is_set_makes_nothing_late() -> None:
    manager = manager_with("n1")
    tick(manager, 0.0)
    manager.handle(requested("a", wait_s=8.0))
    assert "Refused" not in kinds(tick(manager, 3_600.0))
    assert manager.allocation("a").state == "reserving"
    assert refused(tick(manager, 3_602.5)) == ["a"]
