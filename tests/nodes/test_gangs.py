"""Gangs: all bundles or none, on whichever nodes they are; and tokens that tell a former home from the present one."""

import pytest
from manager_helpers import METRICS, ONE, SETTINGS, held, joined, kinds, manager_with, one, released, requested, rows_of

from noodle_ray.errors import Conflict
from noodle_ray.nodes import events as ev
from noodle_ray.nodes.instructions import CreateGroup, Granted, Keep, Notice, PinnedBundle, Released, RemoveGroup
from noodle_ray.nodes.manager import Manager
from noodle_ray.placement.request import Request
from noodle_ray.resources import Demand

TWO = Demand(cpus=2)
PAIR = Request(bundles=(TWO, TWO), strategy="strict-spread")


def test_a_gang_is_one_group_pinned_bundle_by_bundle() -> None:
    manager = manager_with("n1", "n2")
    order = one(manager.handle(requested("a", PAIR)), CreateGroup)
    assert {bundle.node_id for bundle in order.bundles} == {"n1", "n2"}
    assert order.bundles[0] == PinnedBundle(order.bundles[0].node_id, {"CPU": 2.0})
    manager.handle(ev.GroupCreated("a", 1, 0.0))
    assert manager.totals()["cpus"]["free"] == 0
    assert set(manager.allocation("a").node_ids) == {"n1", "n2"}


def test_all_or_nothing() -> None:
    manager = manager_with("n1", "n2")
    held(manager, "a")
    assert kinds(manager.handle(requested("b", PAIR))) == ["Refused"]
    assert manager.totals()["cpus"]["held"] == 1


def test_a_gang_that_waits_gets_all_its_room_at_once() -> None:
    manager = manager_with("n1", "n2")
    held(manager, "a")
    assert kinds(manager.handle(requested("b", PAIR, wait_s=None))) == ["Keep", "Queued"]
    manager.handle(ev.ReleaseRequested("a", 1.0))
    todo = manager.handle(ev.GroupRemoved("a", 1, 2.0))
    assert len(one(todo, CreateGroup).bundles) == 2


def test_the_loss_of_any_node_loses_the_whole() -> None:
    manager = manager_with("n1", "n2", "n3")
    held(manager, "a", PAIR)
    (gone, stays) = manager.allocation("a").node_ids
    todo = manager.handle(ev.NodeLeft(gone, 1.0))
    assert manager.allocation("a").state == "lost"
    assert one(todo, RemoveGroup).group == "a.1"
    assert manager.totals()["cpus"]["held"] == 2  # what Ray has not let go of yet
    assert manager.node(stays).state == "alive"
    assert manager.handle(ev.GroupRemoved("a", 1, 2.0)) == []
    assert manager.totals()["cpus"]["held"] == 0


def test_a_gang_on_its_way_looks_for_another_home_beside_the_lost_node() -> None:
    manager = manager_with("n1", "n2", "n3")
    order = one(manager.handle(requested("a", PAIR)), CreateGroup)
    gone, stays = (bundle.node_id for bundle in order.bundles)
    todo = manager.handle(ev.NodeLeft(gone, 1.0))
    assert one(todo, RemoveGroup).group == "a.1"
    assert {bundle.node_id for bundle in one(todo, CreateGroup).bundles} == {"n1", "n2", "n3"} - {gone}
    assert stays in manager.allocation("a").node_ids


def test_a_gang_is_restored_as_its_nodes_come_back_one_by_one() -> None:
    before = manager_with("n1", "n2")
    held(before, "a", PAIR)
    after = Manager(SETTINGS)
    after.handle(ev.Recovered(rows_of(before), (), frozenset({"a.1"}), 10.0))
    after.handle(joined("n1", 10.0))
    assert kinds(after.handle(requested("b", at=10.0))) == ["Refused"]
    after.handle(joined("n2", 11.0))
    assert after.totals()["cpus"]["held"] == 4
    after.handle(ev.ReleaseRequested("a", 12.0))
    after.handle(ev.GroupRemoved("a", 1, 12.0))
    assert after.totals()["cpus"]["held"] == 0


def test_a_gang_whose_second_node_does_not_come_back_is_lost() -> None:
    before = manager_with("n1", "n2")
    held(before, "a", PAIR)
    after = Manager(SETTINGS)
    after.handle(ev.Recovered(rows_of(before), (), frozenset({"a.1"}), 100.0))
    after.handle(joined("n1", 100.0))
    after.handle(ev.NodeReported("n1", METRICS, 161.0))
    after.handle(ev.Tick(161.0))
    assert after.allocation("a").state == "lost"
    after.handle(ev.GroupRemoved("a", 1, 162.0))
    assert after.totals()["cpus"]["held"] == 0


def test_a_group_that_was_only_asked_for_is_not_taken_for_held() -> None:
    before = manager_with("n1")
    before.handle(requested("a"))
    after = Manager(SETTINGS)
    groups = frozenset({"a.1"})
    todo = after.handle(ev.Recovered(rows_of(before), (), groups, 10.0, unready=groups))
    assert one(todo, CreateGroup).group == "a.2"
    assert one(todo, RemoveGroup).group == "a.1"


def test_a_group_that_was_reserved_before_anybody_noted_it_is_held() -> None:
    before = manager_with("n1")
    before.handle(requested("a"))
    after = Manager(SETTINGS)
    todo = after.handle(ev.Recovered(rows_of(before), (), frozenset({"a.1"}), 10.0))
    assert kinds(todo) == ["Keep"]
    assert one(after.handle(requested("a", at=11.0)), Granted).allocation.state == "held"


def test_a_late_holder_cannot_free_or_renew_what_has_another_home() -> None:
    manager = manager_with("n1")
    held(manager, "a", lease_s=10.0)
    manager.handle(ev.GroupVanished("a", 1, 1.0))
    for late in (ev.ReleaseRequested("a", 2.0, "a.1"), ev.LeaseRenewed("a", 2.0, "a.1")):
        with pytest.raises(Conflict, match=r"a\.1 is not held any more: the allocation's home is a\.2 now"):
            manager.handle(late)
    assert manager.allocation("a").state == "reserving"
    assert manager.allocation("a").expires_at == 10.0
    assert kinds(manager.handle(ev.LeaseRenewed("a", 2.0, "a.2"))) == ["Keep"]
    assert "RemoveGroup" in kinds(manager.handle(ev.ReleaseRequested("a", 2.0, "a.2")))


def test_a_lease_that_ended_frees_it_and_its_holder_comes_too_late() -> None:
    manager = manager_with("n1", cpus=1)
    held(manager, "a", lease_s=5.0)
    assert kinds(manager.handle(ev.Tick(6.0))) == ["Keep", "RemoveGroup"]
    assert manager.handle(ev.LeaseRenewed("a", 6.0, "a.1")) == []
    manager.handle(ev.GroupRemoved("a", 1, 6.5))
    held(manager, "b")
    assert manager.handle(ev.ReleaseRequested("a", 7.0, "a.1")) == [Released("a")]
    assert manager.allocation("b").state == "held"


def test_a_group_that_vanished_is_made_anew_and_counted() -> None:
    manager = manager_with("n1")
    held(manager, "a")
    todo = manager.handle(ev.GroupVanished("a", 1, 1.0))
    assert kinds(todo) == ["Notice", "Keep", "CreateGroup"]
    assert one(todo, Notice).warns
    assert manager.handle(ev.GroupVanished("a", 1, 1.0)) == []
    assert manager.totals()["ledger_differences"] == 1
    manager.handle(ev.GroupCreated("a", 2, 2.0))
    assert manager.allocation("a").state == "held"


def test_a_group_that_nobody_knows_is_removed_and_counted() -> None:
    manager = manager_with("n1")
    held(manager, "a")
    assert manager.handle(ev.GroupFound("a.1", 1.0)) == []
    todo = manager.handle(ev.GroupFound("noodle-x.7", 1.0))
    assert kinds(todo) == ["Notice", "RemoveGroup"]
    assert one(todo, RemoveGroup) == RemoveGroup("noodle-x", 7, "noodle-x.7")
    assert manager.figures(0.0)["ledger_differences"] == 1


def test_the_ledger_follows_the_gpus_that_ray_picked() -> None:
    manager = manager_with("n1", gpus=2)
    held(manager, "a", Demand(gpu_share=0.5))
    assert manager.allocation("a").gpu_indices == (0,)
    assert manager.handle(ev.GpusObserved("a", 1, 0, (0,), 1.0)) == []
    todo = manager.handle(ev.GpusObserved("a", 1, 0, (1,), 1.0))
    assert kinds(todo) == ["Keep", "Notice"]
    assert one(todo, Keep).change.document["bundles"][0]["gpu_indices"] == [1]
    assert manager.figures(0.0)["gpu_corrections"] == 1
    order = one(manager.handle(requested("b", Demand(gpu_share=0.6))), CreateGroup)
    assert manager.allocation(order.allocation_id).gpu_indices == (0,)
    assert manager.handle(ev.GpusObserved("a", 9, 0, (0,), 1.0)) == []
    assert manager.handle(ev.GpusObserved("z", 1, 0, (0,), 1.0)) == []


def test_anti_affinity_is_kept_through_a_restart() -> None:
    before = manager_with("n1", "n2")
    apart = Request(bundles=(ONE,), anti_affinity="db")
    held(before, "a", apart)
    after = Manager(SETTINGS)
    after.handle(ev.Recovered(rows_of(before), (), frozenset({"a.1"}), 10.0))
    for node in ("n1", "n2"):
        after.handle(joined(node, 10.0))
    order = one(after.handle(requested("b", apart, 11.0)), CreateGroup)
    assert order.bundles[0].node_id != after.allocation("a").node_id
    assert kinds(after.handle(requested("c", apart, 11.0))) == ["Refused"]


def test_who_had_to_share_a_node_is_kept_apart_from_who_comes_later() -> None:
    manager, soft = manager_with("n1", "n2"), Request(bundles=(ONE,), anti_affinity="db", anti_affinity_soft=True)
    held(manager, "all-of-n2", Request(bundles=(TWO,)))
    for key in ("first", "shares"):
        held(manager, key, soft)
    assert manager.allocation("first").node_id == manager.allocation("shares").node_id
    for key in ("all-of-n2", "first"):
        released(manager, key)
    held(manager, "later", soft)
    assert manager.allocation("later").node_id != manager.allocation("shares").node_id
