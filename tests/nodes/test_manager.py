"""The manager: an allocation's life, a node's, and starting again from what was kept."""

import pytest
from manager_helpers import METRICS, SETTINGS, held, joined, kinds, manager_with, one, requested, rows_of

from noodle_ray.errors import Conflict, DoesNotFit, NotFound, Unavailable
from noodle_ray.nodes import events as ev
from noodle_ray.nodes.instructions import (
    CreateGroup,
    Granted,
    Keep,
    Notice,
    PinnedBundle,
    Refused,
    Released,
    RemoveGroup,
)
from noodle_ray.nodes.manager import Manager
from noodle_ray.resources import Demand
from noodle_ray.store.changes import Delete, Put


def test_the_intent_is_kept_before_the_group_is_created() -> None:
    manager = manager_with("n1")
    todo = manager.handle(requested("a"))
    assert kinds(todo) == ["Keep", "CreateGroup"]
    assert todo[0].change.document["state"] == "reserving"  # type: ignore[union-attr]
    assert todo[1] == CreateGroup("a", 1, "a.1", (PinnedBundle("n1", {"CPU": 1.0}),))
    todo = manager.handle(ev.GroupCreated("a", 1, 1.0))
    assert kinds(todo) == ["Keep", "Granted"]
    assert one(todo, Granted).allocation.state == "held"


def test_capacity_comes_back_only_when_the_group_is_gone() -> None:
    manager = manager_with("n1", cpus=1)
    held(manager, "a")
    todo = manager.handle(ev.ReleaseRequested("a", 1.0))
    assert kinds(todo) == ["Keep", "RemoveGroup"]
    assert kinds(manager.handle(requested("b"))) == ["Refused"]
    todo = manager.handle(ev.GroupRemoved("a", 1, 2.0))
    assert todo == [Keep(Delete("allocations", "a")), Released("a")]
    assert kinds(manager.handle(requested("b"))) == ["Keep", "CreateGroup"]
    with pytest.raises(NotFound):
        manager.allocation("a")


def test_what_does_not_fit_is_refused_and_leaves_nothing() -> None:
    manager = manager_with("n1")
    refused = one(manager.handle(requested("a", Demand(gpus=1))), Refused)
    assert isinstance(refused.error, DoesNotFit)
    refused = one(manager.handle(requested("a", policy="wurst")), Refused)
    assert isinstance(refused.error, NotFound)
    assert manager.allocations() == []


def test_an_unknown_default_policy_is_refused_at_once() -> None:
    with pytest.raises(NotFound, match="policy"):
        Manager(SETTINGS, default_policy="wurst")


def test_a_request_again_is_the_same_request() -> None:
    manager = manager_with("n1")
    manager.handle(requested("a"))
    assert manager.handle(requested("a")) == []
    manager.handle(ev.GroupCreated("a", 1, 0.0))
    assert kinds(manager.handle(requested("a"))) == ["Granted"]
    assert len(manager.allocations()) == 1


def test_a_group_that_fails_is_tried_elsewhere_three_times() -> None:
    manager = manager_with("n1", "n2", "n3", "n4")
    nodes = []
    todo = manager.handle(requested("a"))
    for epoch in (1, 2, 3):
        order = one(todo, CreateGroup)
        assert order.epoch == epoch
        nodes.append(order.bundles[0].node_id)
        todo = manager.handle(ev.GroupFailed("a", epoch, "no room", 1.0))
        assert one(todo, RemoveGroup).group == f"a.{epoch}"
    assert len(set(nodes)) == 3
    assert isinstance(one(todo, Refused).error, Unavailable)
    assert manager.totals()["cpus"]["held"] == 0


def test_a_group_that_fails_on_the_only_node_is_refused() -> None:
    manager = manager_with("n1")
    manager.handle(requested("a"))
    todo = manager.handle(ev.GroupFailed("a", 1, "no room", 1.0))
    assert kinds(todo) == ["RemoveGroup", "Notice", "Keep", "Refused"]
    assert manager.allocations() == []


def test_late_news_of_an_old_home_changes_nothing() -> None:
    manager = manager_with("n1", "n2")
    manager.handle(requested("a"))
    manager.handle(ev.GroupFailed("a", 1, "slow", 1.0))
    assert manager.handle(ev.GroupCreated("a", 1, 2.0)) == [RemoveGroup("a", 1, "a.1")]
    assert manager.handle(ev.GroupFailed("a", 1, "slow", 2.0)) == []
    assert manager.handle(ev.GroupRemoved("a", 1, 2.0)) == []
    manager.handle(ev.GroupCreated("a", 2, 3.0))
    assert manager.handle(ev.GroupCreated("a", 2, 3.0)) == []
    assert manager.allocation("a").state == "held"


def test_a_release_while_reserving_tells_both() -> None:
    manager = manager_with("n1")
    manager.handle(requested("a"))
    todo = manager.handle(ev.ReleaseRequested("a", 1.0))
    assert isinstance(one(todo, Refused).error, Conflict)
    assert manager.handle(ev.ReleaseRequested("a", 1.0)) == []
    assert manager.handle(ev.GroupCreated("a", 1, 1.5)) == [RemoveGroup("a", 1, "a.1")]
    assert one(manager.handle(ev.GroupRemoved("a", 1, 2.0)), Released) == Released("a")
    assert manager.handle(ev.ReleaseRequested("a", 3.0)) == [Released("a")]


def test_a_node_that_leaves_loses_what_it_held() -> None:
    manager = manager_with("n1")
    held(manager, "a")
    todo = manager.handle(ev.NodeLeft("n1", 1.0))
    assert manager.allocation("a").state == "lost"
    assert one(todo, RemoveGroup).group == "a.1"
    assert manager.nodes() == []
    assert manager.handle(ev.NodeLeft("n1", 1.0)) == []
    assert manager.handle(ev.ReleaseRequested("a", 2.0)) == [Keep(Delete("allocations", "a")), Released("a")]


def test_a_request_whose_node_leaves_finds_another() -> None:
    manager = manager_with("n1", "n2")
    order = one(manager.handle(requested("a")), CreateGroup)
    todo = manager.handle(ev.NodeLeft(order.bundles[0].node_id, 1.0))
    assert one(todo, CreateGroup).bundles[0].node_id != order.bundles[0].node_id
    assert manager.allocation("a").epoch == 2


def test_a_release_whose_node_leaves_still_ends() -> None:
    manager = manager_with("n1")
    held(manager, "a")
    manager.handle(ev.ReleaseRequested("a", 1.0))
    manager.handle(ev.NodeLeft("n1", 1.0))
    assert one(manager.handle(ev.GroupRemoved("a", 1, 2.0)), Released) == Released("a")


def test_a_lease_ends_unless_it_is_renewed() -> None:
    manager = manager_with("n1")
    held(manager, "a", lease_s=10.0)
    held(manager, "b")
    manager.handle(ev.LeaseRenewed("a", 8.0))
    assert manager.allocation("a").expires_at == 18.0
    manager.handle(ev.NodeReported("n1", METRICS, 15.0))
    assert manager.handle(ev.Tick(15.0)) == []
    assert kinds(manager.handle(ev.Tick(19.0))) == ["Keep", "RemoveGroup"]
    assert manager.handle(ev.LeaseRenewed("a", 20.0)) == []
    assert manager.handle(ev.LeaseRenewed("b", 20.0)) == []
    assert manager.allocation("b").state == "held"


def test_an_owner_that_is_gone_holds_nothing() -> None:
    manager = manager_with("n1")
    held(manager, "a", owner="job:1")
    held(manager, "b", owner="job:2")
    manager.handle(ev.OwnerGone("job:1", 1.0))
    assert [(a.id, a.state) for a in manager.allocations()] == [("a", "releasing"), ("b", "held")]


def test_a_silent_node_is_suspected_then_dead_then_back() -> None:
    manager = manager_with("n1")
    held(manager, "a")
    assert one(manager.handle(ev.Tick(16.0)), Notice).kind == "node_suspect"
    assert kinds(manager.handle(requested("b"))) == ["Refused"]
    assert one(manager.handle(ev.NodeReported("n1", METRICS, 17.0)), Notice).kind == "node_alive"
    assert manager.node("n1").metrics == METRICS
    for at in (25.0, 33.0, 42.0, 51.0, 60.0, 69.0, 76.0):
        manager.handle(ev.Tick(at))
    todo = manager.handle(ev.Tick(80.0))
    assert [n.kind for n in todo if isinstance(n, Notice)] == ["node_dead", "allocation_lost"]
    assert manager.allocation("a").state == "lost"
    manager.handle(ev.NodeReported("n1", METRICS, 90.0))
    assert manager.node("n1").state == "alive"
    assert kinds(manager.handle(requested("c"))) == ["Keep", "CreateGroup"]


def test_reports_of_unknown_nodes_change_nothing() -> None:
    manager = manager_with("n1")
    assert manager.handle(ev.NodeReported("n9", METRICS, 1.0)) == []
    assert manager.handle(ev.NodeReported("n1", METRICS, 1.0)) == []
    assert manager.handle(ev.NodeCordoned("n9", True, 1.0)) == []
    assert manager.handle(ev.OthersObserved("n9", {}, 0, 1.0)) == []
    assert manager.handle(joined("n1")) == []


def test_a_cordoned_node_gets_nothing_new() -> None:
    manager = manager_with("n1")
    assert one(manager.handle(ev.NodeCordoned("n1", True, 1.0)), Keep).change.document["cordoned"] is True
    assert kinds(manager.handle(requested("a"))) == ["Refused"]
    manager.handle(ev.NodeReported("n1", METRICS, 2.0))
    assert kinds(manager.handle(requested("a"))) == ["Refused"]
    manager.handle(ev.NodeCordoned("n1", False, 3.0))
    assert kinds(manager.handle(requested("a"))) == ["Keep", "CreateGroup"]


def test_what_others_use_is_neither_free_nor_ours() -> None:
    manager = manager_with("n1", cpus=4, memory=1000, gpus=2)
    held(manager, "a", Demand(cpus=1, gpu_share=0.5))
    manager.handle(ev.OthersObserved("n1", {"cpus": 20_000}, 10_000, 1.0))
    totals = manager.totals()
    assert totals["cpus"] == {"total": 4, "held": 1, "others": 2, "free": 1}
    assert totals["gpus"] == {"total": 2, "held": 0.5, "others": 1, "free": 0.5}
    assert totals["allocation_ratio"] == 0.25


def test_an_empty_fleet_has_totals() -> None:
    assert Manager(SETTINGS).totals()["allocation_ratio"] == 0.0


def test_starting_again_finds_everything_in_its_place() -> None:
    before = manager_with("n1", cpus=8)
    for key in ("held", "no-group", "leaving", "lost", "on-its-way", "made-it"):
        held(before, key) if key not in ("on-its-way", "made-it") else before.handle(requested(key))
    before.handle(ev.ReleaseRequested("leaving", 1.0))
    rows = tuple(row | ({"state": "lost"} if row["id"] == "lost" else {}) for row in rows_of(before))
    groups = frozenset({"held.1", "leaving.1", "made-it.1", "nobodys.3", "lost.1"})

    after = Manager(SETTINGS)
    todo = after.handle(ev.Recovered(rows, ({"id": "n1", "cordoned": True},), groups, 100.0))
    removed = {order.group for order in todo if isinstance(order, RemoveGroup)}
    assert removed == {"leaving.1", "nobodys.3", "lost.1"}
    created = {order.group for order in todo if isinstance(order, CreateGroup)}
    assert created == {"no-group.2", "on-its-way.2"}
    after.handle(joined("n1", 101.0, cpus=8))
    assert after.node("n1").cordoned
    assert after.totals()["cpus"]["held"] == 5  # all but the lost one
    after.handle(ev.GroupRemoved("leaving", 1, 102.0))
    after.handle(ev.GroupCreated("no-group", 2, 102.0))
    after.handle(ev.GroupCreated("on-its-way", 2, 102.0))
    assert {a.id: a.state for a in after.allocations()} == {
        "held": "held",
        "no-group": "held",
        "lost": "lost",
        "on-its-way": "held",
        "made-it": "held",
    }
    assert after.totals()["cpus"]["held"] == 4


def test_a_cordon_survives_whichever_comes_first() -> None:
    manager = manager_with("n1")
    manager.handle(ev.Recovered((), ({"id": "n1", "cordoned": True},), frozenset(), 1.0))
    assert manager.node("n1").cordoned
    assert kinds(manager.handle(requested("a"))) == ["Refused"]


def test_a_node_that_does_not_come_back_after_a_restart_loses_its_allocations() -> None:
    before = manager_with("n1")
    held(before, "a")
    after = Manager(SETTINGS)
    after.handle(ev.Recovered(rows_of(before), (), frozenset({"a.1"}), 100.0))
    assert after.handle(ev.Tick(120.0)) == []
    for at in (130.0, 140.0, 150.0, 160.0, 161.0):
        after.handle(ev.Tick(at))
    assert after.allocation("a").state == "lost"


def test_a_group_that_fails_before_its_node_is_back_is_refused_cleanly() -> None:
    before = manager_with("n1")
    held(before, "a")
    after = Manager(SETTINGS)
    after.handle(ev.Recovered(rows_of(before), (), frozenset(), 100.0))
    todo = after.handle(ev.GroupFailed("a", 2, "no such node", 101.0))
    assert isinstance(one(todo, Refused).error, DoesNotFit)
    assert after.allocations() == []


def test_rows_survive_json() -> None:
    manager = manager_with("n1", cpus=2, gpus=1)
    held(manager, "a", Demand(cpus=1, gpu_share=0.5, labels={"ray.io/x": "!y"}))
    (change,) = [Put("allocations", "a", manager.allocation("a").to_json())]
    after = Manager(SETTINGS)
    after.handle(ev.Recovered((change.document,), (), frozenset({"a.1"}), 0.0))
    assert after.allocation("a") == manager.allocation("a")


def test_what_is_no_event_is_refused() -> None:
    with pytest.raises(TypeError, match="no event"):
        Manager(SETTINGS).handle("hello")  # type: ignore[arg-type]


def test_figures_follow_what_is_free() -> None:
    manager = manager_with("n1", cpus=4, gpus=1)
    assert manager.figures(0.0)["fragmented_gpus"] == 0.0
    held(manager, "a", Demand(gpu_share=0.9))
    assert manager.figures(0.0)["fragmented_gpus"] == pytest.approx(0.1)
    assert manager.figures(0.0)["queue_length"] == 0


def test_labels_that_a_node_is_given_count_at_once_and_after_a_restart() -> None:
    manager = Manager(SETTINGS)
    manager.handle(joined("n1", cpus=2, labels={"rack": "r1"}))
    in_zone = Demand(cpus=1, labels={"zone": "a"})
    assert kinds(manager.handle(requested("a", in_zone))) == ["Refused"]
    todo = manager.handle(ev.NodeUpdated("n1", 1.0, name="one", labels={"zone": "a"}))
    row = next(step.change for step in todo if isinstance(step, Keep) and isinstance(step.change, Put))
    order = one(manager.handle(requested("b", in_zone, at=2.0)), CreateGroup)
    assert order.bundles[0].node_id == "n1"
    assert (manager.node("n1").name, manager.node("n1").resources.labels) == ("one", {"rack": "r1", "zone": "a"})
    with pytest.raises(Conflict, match="rack"):
        manager.handle(ev.NodeUpdated("n1", 3.0, labels={"rack": "r2"}))
    manager.handle(ev.NodeUpdated("n1", 4.0, labels={}))
    assert manager.node("n1").resources.labels == {"rack": "r1"}
    again = Manager(SETTINGS)
    again.handle(ev.Recovered((), (dict(row.document),), frozenset(), 5.0))
    again.handle(joined("n1", 6.0, cpus=2, labels={"rack": "r1"}))
    assert (again.node("n1").name, again.node("n1").given_labels) == ("one", {"zone": "a"})
    assert one(again.handle(requested("c", in_zone, at=7.0)), CreateGroup).bundles[0].node_id == "n1"
