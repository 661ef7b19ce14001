"""What the simulation found: ledger, leases and verdicts through lost nodes, restarts, stalls and clocks that jump."""

from typing import Any

from manager_helpers import METRICS, SETTINGS, held, joined, kinds, manager_with, one, requested, rows_of

from noodle_ray.nodes import events as ev
from noodle_ray.nodes.detector import Detector
from noodle_ray.nodes.instructions import CreateGroup, Granted, RemoveGroup, RetireNode, WatchPeers
from noodle_ray.nodes.manager import Manager
from noodle_ray.nodes.peers import Endpoint, Observation
from noodle_ray.placement.request import Request
from noodle_ray.resources import Demand

PAIR = Request(bundles=(Demand(cpus=2), Demand(cpus=2)), strategy="strict-spread")
SILENT = Observation("b", "silent", 2.5)


def cpus_held(manager: Manager) -> float:
    cpus: dict[str, Any] = manager.totals()["cpus"]
    return float(cpus["held"])


def detector() -> Detector:
    watching = Detector()
    for place, node in enumerate("abcd"):
        watching.started(node, Endpoint("10.0.0.1", place, 6000))
    assert len(list(watching.new_watches(lambda: "abcd"))) == 4
    return watching


def test_what_a_gang_leaves_behind_is_not_free_before_ray_let_go() -> None:
    manager = manager_with("n1", "n2", "n3")
    held(manager, "gang", PAIR, on_loss="restart")
    gone, stays = manager.allocation("gang").node_ids
    manager.handle(ev.NodeLeft(gone, 1.0))
    assert manager.allocation("gang").state == "waiting"
    assert cpus_held(manager) == 2
    todo = manager.handle(ev.GroupRemoved("gang", 1, 2.0))
    assert stays in {bundle.node_id for bundle in one(todo, CreateGroup).bundles}


def test_no_gang_is_planned_over_what_another_gang_still_has() -> None:
    manager = manager_with("n1", "n2", cpus=4)
    held(manager, "first", PAIR, on_loss="restart")
    held(manager, "second", PAIR)
    manager.handle(joined("n3", cpus=2))
    manager.handle(ev.NodeLeft("n1", 1.0))
    assert manager.allocation("second").state == "lost"
    assert cpus_held(manager) == 4
    assert manager.allocation("first").state == "waiting"


def test_a_lost_gang_that_was_let_go_is_not_booked_again_when_ray_gives_its_node_up() -> None:
    manager = manager_with("n1", "n2")
    held(manager, "gang", PAIR)
    manager.handle(ev.NodeLeft("n1", 1.0))
    manager.handle(ev.GroupRemoved("gang", 1, 2.0))
    manager.handle(joined("n1", 3.0))
    manager.handle(ev.NodeLeft("n1", 4.0))
    assert cpus_held(manager) == 0


def test_a_standby_that_moves_leaves_what_its_gang_has_elsewhere_booked() -> None:
    manager = manager_with("n1", "n2", "n3", "n4")
    held(manager, "gang", PAIR, on_loss="standby")
    manager.handle(ev.GroupCreated("gang", 2, 1.0))
    gone = manager.allocation("gang").node_id
    todo = manager.handle(ev.NodeLeft(gone, 2.0))
    assert one(todo, Granted).allocation.epoch == 2
    assert cpus_held(manager) == 6
    manager.handle(ev.GroupRemoved("gang", 1, 3.0))
    assert cpus_held(manager) == 4


def test_a_home_that_fails_is_given_up_for_the_second_one() -> None:
    manager = manager_with("n1", "n2")
    held(manager, "a", Demand(cpus=2), on_loss="standby")
    manager.handle(ev.GroupCreated("a", 2, 1.0))
    manager.handle(ev.GroupVanished("a", 1, 2.0))
    todo = manager.handle(ev.GroupFailed("a", 3, "no room", 3.0))
    assert one(todo, RemoveGroup).group == "a.3"
    assert (manager.allocation("a").state, manager.allocation("a").epoch) == ("held", 2)


def test_a_home_that_was_given_up_for_waiting_is_removed_after_a_restart() -> None:
    before = manager_with("n1")
    held(before, "a", on_loss="restart")
    before.handle(ev.NodeLeft("n1", 1.0))
    assert before.allocation("a").state == "waiting"
    after = Manager(SETTINGS)
    todo = after.handle(ev.Recovered(rows_of(before), (), frozenset({"a.1"}), 2.0))
    assert one(todo, RemoveGroup).group == "a.1"


def test_a_manager_that_was_held_up_or_whose_clock_jumps_holds_nobody_for_dead() -> None:
    for jump in (1000.0, -1000.0):
        manager = manager_with("n1")
        manager.handle(ev.Tick(1.0))
        assert manager.handle(ev.Tick(1.0 + jump)) == []
        assert manager.node("n1").state == "alive"
        late = 1.0 + jump
        while manager.node("n1").state != "dead":
            late += 5.0
            manager.handle(ev.Tick(late))
        assert 60 < late - jump < 70


def test_leases_that_nobody_could_renew_begin_anew() -> None:
    manager = manager_with("n1")
    held(manager, "a", lease_s=30.0)
    manager.handle(ev.Tick(1.0))
    assert kinds(manager.handle(ev.Tick(101.0))) == ["Keep"]
    assert manager.allocation("a").expires_at == 131.0
    after = Manager(SETTINGS)
    after.handle(ev.Recovered(rows_of(manager), (), frozenset({"a.1"}), 500.0))
    assert after.allocation("a").expires_at == 530.0


def test_an_agent_is_told_again_whom_to_watch_after_its_report() -> None:
    manager = manager_with("n1", "n2")
    for place, node in enumerate(("n1", "n2")):
        manager.handle(ev.AgentStarted(node, Endpoint("10.0.0.1", place, 6000), 1.0))
    assert {step.by for step in manager.handle(ev.Tick(1.5)) if isinstance(step, WatchPeers)} == {"n1", "n2"}
    assert not [step for step in manager.handle(ev.Tick(2.0)) if isinstance(step, WatchPeers)]
    manager.handle(ev.NodeReported("n1", METRICS, 3.0))
    assert one(manager.handle(ev.Tick(4.0)), WatchPeers).by == "n1"


def test_probes_that_fail_long_after_the_silence_are_no_votes() -> None:
    watching = detector()
    watching.observed("a", SILENT, 0.0)
    assert list(watching.due_probes(lambda one: one in "abcd", 0.0))
    assert watching.probed("b", "c", False, 20.0) is None
    assert watching.probed("b", "d", False, 20.0) is None
    for by in "ad":
        watching.observed(by, SILENT, 21.0)
    assert watching.probed("b", "c", False, 22.0) is None
    verdict = watching.probed("b", "d", False, 22.0)
    assert verdict is not None
    assert verdict.state == "dead"


def test_one_who_was_deaf_before_is_believed_only_after_two_rounds() -> None:
    watching = detector()
    watching.observed("a", SILENT, 0.0)
    list(watching.due_probes(lambda one: one in "abcd", 0.0))
    watching.probed("b", "c", True, 0.1)
    states = []
    for at in (20.0, 22.6):
        watching.observed("a", SILENT, at)
        list(watching.due_probes(lambda one: one in "abcd", at))
        states += [watching.probed("b", by, False, at + 1.2) for by in "cd"]
    assert [verdict is not None for verdict in states] == [False, False, False, True]


def test_a_claim_after_a_stall_is_placed() -> None:
    manager = manager_with("n1")
    manager.handle(ev.Tick(1.0))
    manager.handle(ev.Tick(500.0))
    assert kinds(manager.handle(requested("a", at=500.0))) == ["Keep", "CreateGroup"]


def test_a_second_home_leaves_a_drained_node_too() -> None:
    manager = manager_with("n1", "n2", "n3")
    held(manager, "a", on_loss="standby")
    spare = manager.allocation("a").spare
    assert spare is not None
    manager.handle(ev.GroupCreated("a", spare.epoch, 0.0))
    (node,) = {bundle.node_id for bundle in spare.bundles}
    todo = manager.handle(ev.DrainRequested(node, 60.0, 0.0))
    assert one(todo, RemoveGroup).group == f"a.{spare.epoch}"
    elsewhere = one(todo, CreateGroup)
    assert {bundle.node_id for bundle in elsewhere.bundles}.isdisjoint({node, manager.allocation("a").node_id})
    manager.handle(ev.GroupRemoved("a", spare.epoch, 1.0))
    assert one(manager.handle(ev.Tick(2.0)), RetireNode).node_id == node


def test_a_node_that_was_opened_again_can_be_drained_again() -> None:
    manager = manager_with("n1")
    assert one(manager.handle(ev.DrainRequested("n1", 60.0, 0.0)), RetireNode).node_id == "n1"
    manager.handle(ev.NodeCordoned("n1", False, 1.0))
    assert manager.node("n1").is_open
    assert one(manager.handle(ev.DrainRequested("n1", 60.0, 2.0)), RetireNode).node_id == "n1"


def test_a_node_that_may_leave_and_stays_is_told_again() -> None:
    manager = manager_with("n1")
    manager.handle(ev.Tick(0.0))
    assert one(manager.handle(ev.DrainRequested("n1", 60.0, 0.0)), RetireNode).node_id == "n1"
    told = [at for at in range(1, 26) if any(isinstance(step, RetireNode) for step in manager.handle(ev.Tick(at)))]
    assert told == [10, 20]


def test_a_node_that_may_leave_is_told_again_by_a_clock_that_was_set_back() -> None:
    manager = manager_with("n1")
    manager.handle(ev.Tick(5000.0))
    manager.handle(ev.DrainRequested("n1", 5060.0, 5000.0))
    told = [at for at in range(1, 26) if any(isinstance(step, RetireNode) for step in manager.handle(ev.Tick(at)))]
    assert told == [11, 21]


def test_a_node_whose_agent_alone_is_gone_does_not_die_of_probes_that_nobody_answers() -> None:
    watching = detector()
    watching.observed("a", SILENT, 0.0)
    list(watching.due_probes(lambda one: one in "abcd", 0.0))
    watching.observed("c", Observation("b", "agent gone"), 0.5)
    assert [watching.probed("b", by, False, 1.2) for by in "acd"] == [None, None, None]


def test_one_silent_watcher_of_several_is_believed_only_after_two_rounds() -> None:
    watching = detector()
    states = []
    for at in (0.0, 2.6):
        watching.observed("a", SILENT, at)
        list(watching.due_probes(lambda one: one in "abcd", at))
        states += [watching.probed("b", by, False, at + 1.2) for by in "cd"]
    assert [verdict is not None for verdict in states] == [False, False, False, True]


def test_a_second_home_of_several_nodes_is_booked_as_its_nodes_come_back_one_by_one() -> None:
    before = manager_with("n1", "n2", "n3", "n4")
    held(before, "gang", PAIR, on_loss="standby")
    before.handle(ev.GroupCreated("gang", 2, 1.0))
    spare = before.allocation("gang").spare
    assert spare is not None
    after = Manager(SETTINGS)
    after.handle(ev.Recovered(rows_of(before), (), frozenset({"gang.1", "gang.2"}), 2.0))
    after.handle(joined(spare.bundles[0].node_id, 2.0))
    assert kinds(after.handle(requested("other"))) == ["Refused"]


def test_where_an_agent_answers_is_known_from_its_report_too() -> None:
    """What it said when it started was lost: the others would knock at its old port for ever."""
    manager = manager_with("n1", "n2")
    manager.handle(ev.AgentStarted("n1", Endpoint("10.0.0.1", 1, 6000), 0.0))
    manager.handle(ev.AgentStarted("n2", Endpoint("10.0.0.2", 2, 6000), 0.0))
    manager.handle(ev.PeersObserved("n1", (Observation("n2", "agent gone"),), 1.0))
    assert manager.node("n2").state == "suspect"
    anew = Endpoint("10.0.0.2", 22, 6000)
    todo = manager.handle(ev.NodeReported("n2", METRICS, 2.0, anew))
    assert manager.node("n2").state == "alive"
    watches = [step for step in todo if isinstance(step, WatchPeers)]
    assert any(peer.endpoint == anew for step in watches for peer in step.peers)


def test_who_has_only_just_begun_to_hear_nothing_is_no_witness() -> None:
    """One link is cut for long, the other for hardly more than a stall: that is no death yet."""
    watching = detector()
    watching.observed("a", SILENT, 0.0)
    list(watching.due_probes(lambda one: one in "acd", 0.0))
    watching.observed("c", SILENT, 1.2)
    watching.observed("d", SILENT, 1.2)
    assert watching.probed("b", "c", False, 1.25) is None
    assert watching.probed("b", "d", False, 1.25) is None
    list(watching.due_probes(lambda one: one in "acd", 2.6))
    watching.observed("a", SILENT, 3.0)
    assert watching.probed("b", "a", False, 3.8) is None
    dead = watching.probed("b", "c", False, 3.8)
    assert dead is not None and dead.state == "dead"


def dead_node() -> Manager:
    manager = manager_with("n1", "n2", "n3")
    for place, node in enumerate(("n1", "n2", "n3")):
        manager.handle(ev.AgentStarted(node, Endpoint("10.0.0.1", place, 6000), 0.0))
    manager.handle(ev.PeersObserved("n1", (Observation("n2", "gone"),), 1.0))
    assert manager.node("n2").state == "dead"
    return manager


def test_a_node_that_hears_others_again_is_back_before_its_next_report() -> None:
    manager = dead_node()
    manager.handle(ev.PeersObserved("n2", (Observation("n3", "heard"),), 2.0))
    assert manager.node("n2").state == "alive"


def test_a_dead_node_that_hears_nobody_stays_dead_whatever_it_tells() -> None:
    """Its link may be cut one way: it tells, and is told nothing."""
    manager = dead_node()
    manager.handle(ev.PeersObserved("n2", (Observation("n3", "silent", 3.0),), 2.0))
    assert manager.node("n2").state == "dead"


def suspected(manager: Manager) -> list[str]:
    return [node.id for node in manager.nodes() if node.state == "suspect"]


def three_of_whom_one_is_deaf() -> Manager:
    """n1 hears nobody, and nobody gets an answer from it."""
    manager = manager_with("n1", "n2", "n3")
    for place, node in enumerate(("n1", "n2", "n3")):
        manager.handle(ev.AgentStarted(node, Endpoint("10.0.0.1", place, 6000), 0.0))
    manager.handle(ev.Tick(0.1))
    silent = {node: Observation(node, "silent", 1.0) for node in ("n1", "n2", "n3")}
    manager.handle(ev.PeersObserved("n1", (silent["n2"], silent["n3"]), 1.0))
    manager.handle(ev.PeersObserved("n2", (silent["n1"],), 1.2))
    assert suspected(manager) == ["n1", "n2", "n3"]
    manager.handle(ev.PeersObserved("n3", (silent["n1"],), 1.4))
    return manager


def test_the_word_of_one_whom_nobody_hears_closes_no_others() -> None:
    manager = three_of_whom_one_is_deaf()
    assert suspected(manager) == ["n1"]
    manager.handle(ev.PeersObserved("n1", (Observation("n2", "silent", 2.0),), 2.0))
    assert suspected(manager) == ["n1"]


def test_one_whom_nobody_hears_is_dead_after_the_others_have_probed_it() -> None:
    manager = three_of_whom_one_is_deaf()
    manager.handle(ev.Tick(2.3))
    for by in ("n2", "n3"):
        manager.handle(ev.NodeProbed("n1", by, False, 3.6))
    assert manager.node("n1").state == "dead"
    assert suspected(manager) == []


def test_one_whom_nobody_hears_is_believed_where_another_says_the_same() -> None:
    manager = three_of_whom_one_is_deaf()
    manager.handle(ev.PeersObserved("n3", (Observation("n2", "silent", 1.0),), 2.0))
    manager.handle(ev.PeersObserved("n1", (Observation("n2", "silent", 2.0),), 2.1))
    assert suspected(manager) == ["n1", "n2"]


def test_of_two_that_do_not_hear_each_other_both_stay_suspected() -> None:
    watching = detector()
    told = [watching.observed("a", SILENT, 0.0), watching.observed("b", Observation("a", "silent", 2.5), 0.1)]
    assert [[verdict.state for verdict in verdicts] for verdicts in told] == [["suspect"], ["suspect"]]


def test_what_is_lost_or_unknown_is_missing() -> None:
    manager = manager_with("n1", "n2")
    for key in ("a", "b"):
        held(manager, key, Demand(cpus=2))
    manager.handle(ev.NodeLeft(manager.allocation("a").node_id, 1.0))
    assert manager.missing(["a", "b", "c"]) == ["a", "c"]
