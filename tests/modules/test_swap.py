"""The hot-swap machine: each path by itself, and random interleavings of outcomes and deaths in a small world."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from noodle_ray.errors import Conflict, ModuleFailed
from noodle_ray.modules.revision import MAX_BACKOFF_S, STABLE_S
from noodle_ray.modules.swap import LINGER_S, Endpoints, HotSwap
from noodle_ray.modules.swap_messages import (
    CheckHealth,
    Drained,
    Expired,
    Failed,
    Finished,
    Healthy,
    HostDied,
    Judged,
    KeepWarm,
    LoadAsked,
    Loaded,
    Moved,
    MoveState,
    Recovered,
    RelocationAsked,
    ReplicasAsked,
    Resume,
    Retire,
    RollbackAsked,
    RolledBack,
    Route,
    Routed,
    StageFailed,
    StartHost,
    StopHost,
    SwapAsked,
    Try,
    UnloadAsked,
    Unroute,
)

ERROR = ModuleFailed("m", "broken")
DEATH = "its host died"


def play(machine: HotSwap, *events: Any) -> list[Any]:
    """What the last of the events gives."""
    todo: list[Any] = []
    for event in events:
        todo = machine.handle(event)
    return todo


def loaded(stateful: bool = False, tries: bool = True) -> HotSwap:
    """Revision 1 serves in host 2."""
    machine = HotSwap("m", tries)
    play(machine, LoadAsked("1", stateful=stateful), Loaded(2), Healthy(2), Routed(1))
    return machine


def swapped(stateful: bool = False, reversible: bool = True) -> HotSwap:
    """Revision 3 serves in host 4, revision 1 is warm in host 2."""
    machine = loaded(stateful)
    play(machine, SwapAsked("2", stateful=stateful, reversible=reversible), Loaded(4), Healthy(4))
    play(machine, Moved(3) if stateful else Judged(3), Routed(3), Drained(2))
    if stateful:
        play(machine, Judged(3))
    return machine


def told(todo: list[Any]) -> tuple[list[Any], str]:
    """What is ordered, and the error that a waiter is told beside it."""
    rolled_back = [order for order in todo if isinstance(order, RolledBack)]
    return [order for order in todo if order not in rolled_back], str(rolled_back[0].error) if rolled_back else ""


class TestPaths:
    def test_a_first_load(self) -> None:
        machine = HotSwap("m")
        assert machine.phase == "empty"
        assert machine.handle(LoadAsked("1")) == [StartHost(2, 1, "1")]
        assert machine.phase == "loading"
        assert machine.handle(Loaded(2)) == [CheckHealth(2)]
        assert machine.phase == "checking"
        assert machine.handle(Healthy(2)) == [Route(1)]
        assert (machine.phase, machine.endpoints) == ("switching", Endpoints())
        assert machine.handle(Routed(1)) == [Finished(1)]
        assert (machine.phase, machine.endpoints) == ("serving", Endpoints(serving=(2,)))

    def test_a_swap_tries_the_new_revision_then_empties_the_old_one_and_keeps_it_warm(self) -> None:
        machine = loaded()
        assert machine.handle(SwapAsked("2")) == [StartHost(4, 3, "2")]
        assert play(machine, Loaded(4), Healthy(4)) == [Try(3)]
        assert (machine.phase, machine.endpoints) == ("canary", Endpoints(serving=(2,), canary=(4,)))
        assert machine.handle(Judged(3)) == [Route(3)]
        assert machine.handle(Routed(3)) == [Retire(2)]
        assert (machine.phase, machine.endpoints) == ("draining", Endpoints(serving=(4,), pinned=(2,)))
        assert machine.handle(Drained(2)) == [Finished(3), KeepWarm(1)]
        assert machine.phase == "serving"
        assert machine.handle(Expired(1)) == [Retire(2, whole=True)]
        assert machine.handle(Drained(2)) == [StopHost(2, LINGER_S)]
        assert machine.endpoints == Endpoints(serving=(4,))

    def test_without_trying(self) -> None:
        assert play(loaded(tries=False), SwapAsked("2"), Loaded(4), Healthy(4)) == [Route(3)]

    def test_state_is_moved_while_no_call_runs_and_judged_afterwards(self) -> None:
        machine = loaded(stateful=True)
        assert machine.handle(SwapAsked("2", stateful=True)) == [StartHost(4, 3, "2")]
        assert play(machine, Loaded(4), Healthy(4)) == [MoveState(3, source=2, target=4)]
        assert (machine.phase, machine.endpoints) == ("moving", Endpoints())
        assert machine.handle(Moved(3)) == [Route(3)]
        assert machine.endpoints == Endpoints()
        assert machine.handle(Routed(3)) == [Retire(2, whole=True)]
        assert machine.endpoints == Endpoints(serving=(4,))
        assert machine.handle(Drained(2)) == [Try(3)]
        assert machine.phase == "watching"
        assert machine.handle(Judged(3)) == [Finished(3), KeepWarm(1)]

    def test_a_first_load_and_a_restart_go_on_from_what_was_kept(self) -> None:
        machine = HotSwap("m")
        assert machine.handle(LoadAsked("1", stateful=True)) == [StartHost(2, 1, "1", restores=True)]
        play(machine, Loaded(2), Healthy(2), Routed(1))
        assert machine.handle(HostDied(2)) == [StopHost(2), StartHost(3, 1, "1", restores=True)]

    @pytest.mark.parametrize(
        ("before", "failure", "ends"),
        [
            ([], Failed(4, ERROR), [StopHost(4)]),
            ([Loaded(4)], Failed(4, ERROR), [StopHost(4)]),
            ([Loaded(4), Healthy(4)], StageFailed(3, ERROR), [Retire(4, whole=True)]),
            ([Loaded(4), Healthy(4), Judged(3)], StageFailed(3, ERROR), [Retire(4, whole=True)]),
            ([], HostDied(4), [StopHost(4)]),
            ([Loaded(4), Healthy(4)], HostDied(4), [Retire(4, whole=True)]),
        ],
        ids=["load", "check", "canary", "route", "death", "death in canary"],
    )
    def test_whatever_fails_before_the_switch_leaves_the_old_one(
        self, before: list[Any], failure: Any, ends: list[Any]
    ) -> None:
        machine = loaded()
        orders, error = told(play(machine, SwapAsked("2"), *before, failure))
        assert orders == ends and error in (str(ERROR), str(ModuleFailed("m", DEATH)))
        assert machine.phase == "serving" and machine.endpoints == Endpoints(serving=(2,))

    def test_a_failed_first_load_leaves_nothing(self) -> None:
        machine = HotSwap("m")
        assert play(machine, LoadAsked("1"), Failed(2, ERROR)) == [StopHost(2), RolledBack(1, ERROR)]
        assert machine.phase == "empty"
        assert machine.handle(LoadAsked("1")) == [StartHost(4, 3, "1")]
        assert play(machine, Loaded(4), Healthy(4), StageFailed(3, ERROR)) == [StopHost(4), RolledBack(3, ERROR)]

    def test_unload(self) -> None:
        machine = loaded()
        assert machine.handle(UnloadAsked()) == [Unroute(3), Retire(2, whole=True)]
        assert machine.phase == "unloading"
        assert machine.handle(Drained(2)) == [StopHost(2), Finished(3)]
        assert machine.phase == "empty"

    def test_an_unload_while_the_old_host_drains_answers_both(self) -> None:
        machine = loaded()
        play(machine, SwapAsked("2"), Loaded(4), Healthy(4), Judged(3), Routed(3))
        assert machine.handle(UnloadAsked()) == [Unroute(5), Finished(3), Retire(2, True), Retire(4, True)]
        assert machine.handle(Drained(2, whole=False)) == [], "that is the answer to the first order"
        assert machine.handle(Drained(4)) == [StopHost(4)]
        assert machine.handle(Drained(2)) == [StopHost(2), Finished(5)]

    def test_an_unload_keeps_the_state_of_what_serves_alone(self) -> None:
        assert swapped(stateful=True).handle(UnloadAsked()) == [
            Unroute(5),
            Retire(2, whole=True),
            Retire(4, whole=True, keeps_state=True),
        ]

    def test_state_is_not_tried_on_a_share(self) -> None:
        assert play(loaded(), SwapAsked("2", stateful=True), Loaded(4), Healthy(4)) == [Route(3)]

    def test_a_swap_forgets_the_version_that_was_warm(self) -> None:
        machine = swapped()
        assert machine.handle(SwapAsked("3")) == [Retire(2, whole=True), StartHost(6, 5, "3")]


class TestStateThatCannotBeMoved:
    def test_the_old_host_goes_on(self) -> None:
        machine = loaded(stateful=True)
        todo = play(machine, SwapAsked("2", stateful=True), Loaded(4), Healthy(4), StageFailed(3, ERROR))
        assert todo == [StopHost(4), RolledBack(3, ERROR), Resume(2)]
        assert machine.endpoints == Endpoints(serving=(2,))

    def test_nor_its_new_route_be_kept(self) -> None:
        machine = loaded(stateful=True)
        todo = play(machine, SwapAsked("2", stateful=True), Loaded(4), Healthy(4), Moved(3), StageFailed(3, ERROR))
        assert todo == [StopHost(4), RolledBack(3, ERROR), Resume(2)]

    def test_because_its_host_died_meanwhile(self) -> None:
        machine = loaded(stateful=True)
        play(machine, SwapAsked("2", stateful=True), Loaded(4), Healthy(4))
        assert machine.handle(HostDied(2)) == [StopHost(2)]
        orders, _ = told(machine.handle(StageFailed(3, ERROR)))
        assert orders == [StopHost(4), StartHost(5, 1, "1", restores=True)]

    def test_what_was_kept_is_taken_where_there_is_no_host(self) -> None:
        machine = loaded(stateful=True)
        play(machine, SwapAsked("2", stateful=True), HostDied(2), Loaded(4))
        assert machine.handle(Healthy(4)) == [StopHost(5), MoveState(3, source=None, target=4)]


class TestWatching:
    def watched(self, reversible: bool = True) -> HotSwap:
        machine = loaded(stateful=True)
        play(machine, SwapAsked("2", stateful=True, reversible=reversible), Loaded(4), Healthy(4), Moved(3), Routed(3))
        return machine

    def test_calls_that_fail_bring_the_state_back(self) -> None:
        machine = self.watched()
        assert play(machine, Drained(2), StageFailed(3, ERROR)) == [MoveState(1, source=4, target=2)]
        assert (machine.phase, machine.endpoints) == ("returning", Endpoints())
        assert machine.handle(Moved(1)) == [Route(1)]
        assert machine.handle(Routed(1)) == [Resume(2), Retire(4, whole=True), RolledBack(3, ERROR)]
        assert machine.endpoints == Endpoints(serving=(2,))

    def test_a_death_does_too_from_what_was_kept(self) -> None:
        machine = self.watched()
        todo = play(machine, Drained(2), HostDied(4))
        assert todo == [StopHost(4), MoveState(1, source=None, target=2)]
        orders, error = told(play(machine, Moved(1), Routed(1)))
        assert orders == [Resume(2)] and DEATH in error

    def test_where_the_way_back_is_barred_the_new_one_goes_on(self) -> None:
        machine = self.watched()
        todo = play(machine, Drained(2), StageFailed(3, ERROR), StageFailed(1, ERROR))
        assert todo == [Finished(3), KeepWarm(1), Resume(4)]
        assert machine.endpoints == Endpoints(serving=(4,))

    def test_or_the_old_host_dies_on_the_way(self) -> None:
        machine = self.watched()
        todo = play(machine, Drained(2), StageFailed(3, ERROR), HostDied(2))
        assert todo == [StopHost(2), Finished(3), Resume(4)]

    def test_or_is_gone_already(self) -> None:
        machine = self.watched()
        assert play(machine, Drained(2), HostDied(2), StageFailed(3, ERROR)) == [Finished(3)]
        machine = self.watched()
        todo = play(machine, Drained(2), HostDied(2), HostDied(4))
        assert todo == [StopHost(4), StartHost(5, 3, "2", restores=True)]

    def test_nothing_is_watched_that_could_not_go_back(self) -> None:
        assert play(self.watched(reversible=False), Drained(2)) == [Finished(3), KeepWarm(1)]


class TestRollback:
    def test_to_the_warm_one(self) -> None:
        machine = swapped()
        assert machine.handle(RollbackAsked()) == [Route(1)]
        assert machine.phase == "returning"
        assert machine.handle(Routed(1)) == [Resume(2), Retire(4)]
        assert machine.handle(Drained(4)) == [Finished(5), KeepWarm(3)]
        assert machine.endpoints == Endpoints(serving=(2,), pinned=(4,))

    def test_with_its_state(self) -> None:
        machine = swapped(stateful=True)
        assert machine.handle(RollbackAsked()) == [MoveState(1, source=4, target=2)]
        assert play(machine, Moved(1), Routed(1)) == [Resume(2), Retire(4, whole=True)]
        assert machine.handle(Drained(4)) == [Finished(5), KeepWarm(3)]

    def test_that_fails_leaves_what_serves(self) -> None:
        machine = swapped(stateful=True)
        todo = play(machine, RollbackAsked(), StageFailed(1, ERROR))
        assert todo == [RolledBack(5, ERROR), KeepWarm(1), Resume(4)]

    def test_is_kept_sooner_or_later(self) -> None:
        machine = swapped()
        [again] = play(machine, RollbackAsked(), StageFailed(1, ERROR))
        assert isinstance(again, Route) and again.revision == 1

    def test_nothing_to_go_back_to(self) -> None:
        with pytest.raises(Conflict, match="m has no version before 1 that is still warm"):
            loaded().handle(RollbackAsked())
        with pytest.raises(Conflict, match="m 1 cannot read the state of 2"):
            swapped(stateful=True, reversible=False).handle(RollbackAsked())
        machine = swapped()
        assert machine.handle(HostDied(2)) == [StopHost(2)]
        with pytest.raises(Conflict, match="still warm"):
            machine.handle(RollbackAsked())


class TestReplicas:
    def three(self) -> HotSwap:
        """Revision 1 serves in hosts 2, 3 and 4."""
        machine = HotSwap("m")
        play(machine, LoadAsked("1", replicas=3), Loaded(2), Loaded(3), Loaded(4), Healthy(3), Healthy(2))
        assert machine.handle(Healthy(4)) == [Route(1)]
        play(machine, Routed(1))
        return machine

    def test_all_are_prepared_before_the_switch(self) -> None:
        assert self.three().endpoints == Endpoints(serving=(2, 3, 4))

    def test_one_that_dies_is_replaced(self) -> None:
        machine = self.three()
        assert machine.handle(HostDied(3)) == [StopHost(3), StartHost(5, 1, "1")]
        assert machine.phase == "serving" and machine.endpoints == Endpoints(serving=(2, 4))
        play(machine, Loaded(5), Healthy(5))
        assert machine.endpoints == Endpoints(serving=(2, 4, 5))

    def test_more_and_fewer(self) -> None:
        machine = self.three()
        assert machine.handle(ReplicasAsked(4)) == [StartHost(5, 1, "1")]
        assert machine.handle(ReplicasAsked(2)) == [Retire(4, whole=True), StopHost(5)]
        assert machine.handle(Drained(4)) == [StopHost(4, LINGER_S)]
        assert machine.endpoints == Endpoints(serving=(2, 3))
        assert HotSwap("m").handle(ReplicasAsked(4)) == []

    def test_a_swap_empties_all(self) -> None:
        machine = self.three()
        play(machine, SwapAsked("2"), Loaded(6), Healthy(6), Judged(5))
        assert machine.handle(Routed(5)) == [Retire(2), Retire(3), Retire(4)]
        assert play(machine, Drained(2), HostDied(3)) == [StopHost(3)]
        assert machine.handle(Drained(4)) == [Finished(5), KeepWarm(1)]


class TestRelocation:
    def two(self) -> HotSwap:
        """Revision 1 serves in hosts 2 and 3."""
        machine = HotSwap("m")
        play(machine, LoadAsked("1", replicas=2), Loaded(2), Loaded(3), Healthy(2), Healthy(3), Routed(1))
        return machine

    def test_the_new_host_is_ready_before_the_old_one_goes(self) -> None:
        machine = self.two()
        assert machine.handle(RelocationAsked(3)) == [StartHost(4, 1, "1", apart=True)]
        assert machine.serving is not None and machine.serving.is_relocating
        assert machine.phase == "serving" and machine.endpoints == Endpoints(serving=(2, 3))
        assert machine.handle(Loaded(4)) == [CheckHealth(4)]
        assert machine.handle(Healthy(4)) == [Retire(3, whole=True)]
        assert not machine.serving.is_relocating and machine.endpoints == Endpoints(serving=(2, 4))
        assert machine.handle(Drained(3)) == [StopHost(3, LINGER_S)]

    def test_one_that_finds_no_place_changes_nothing(self) -> None:
        machine = self.two()
        machine.handle(RelocationAsked(3))
        assert machine.handle(Failed(4, ERROR)) == [StopHost(4)]
        assert machine.serving is not None and not machine.serving.is_relocating
        assert machine.endpoints == Endpoints(serving=(2, 3))

    def test_one_move_at_a_time(self) -> None:
        machine = self.two()
        machine.handle(RelocationAsked(3))
        assert machine.handle(RelocationAsked(2)) == []

    @pytest.mark.parametrize("died", [2, 3])
    def test_where_a_host_dies_meanwhile_the_new_one_takes_its_place(self, died: int) -> None:
        machine = self.two()
        assert play(machine, RelocationAsked(3), HostDied(died)) == [StopHost(died)]
        assert play(machine, Loaded(4), Healthy(4)) == []
        assert machine.endpoints == Endpoints(serving=tuple(sorted({2, 3, 4} - {died})))

    def test_fewer_that_are_wanted_need_no_move(self) -> None:
        machine = self.two()
        assert play(machine, RelocationAsked(3), ReplicasAsked(1)) == [Retire(3, whole=True), StopHost(4)]

    def test_more_that_are_wanted_keep_both(self) -> None:
        machine = self.two()
        assert play(machine, RelocationAsked(3), ReplicasAsked(3)) == []
        assert play(machine, Loaded(4), Healthy(4)) == []
        assert machine.endpoints == Endpoints(serving=(2, 3, 4))

    def test_it_ends_while_a_new_version_is_tried(self) -> None:
        machine = self.two()
        play(machine, RelocationAsked(3), SwapAsked("2"), Loaded(6), Healthy(6))
        assert machine.phase == "canary"
        assert play(machine, Loaded(4), Healthy(4)) == [Retire(3, whole=True)]
        assert machine.handle(Judged(5)) == [Route(5)]
        assert machine.handle(Routed(5)) == [Retire(2), Retire(4)]

    def test_a_new_version_takes_over_from_one_that_is_on_its_way(self) -> None:
        machine = self.two()
        play(machine, RelocationAsked(3), SwapAsked("2"), Loaded(6), Healthy(6), Judged(5))
        assert machine.handle(Routed(5)) == [StopHost(4), Retire(2), Retire(3)]

    def test_nothing_moves_while_anything_else_goes_on(self) -> None:
        machine = self.two()
        play(machine, SwapAsked("2"))
        assert machine.handle(RelocationAsked(3)) == []
        restarting = self.two()
        restarting.handle(HostDied(2))
        assert restarting.handle(RelocationAsked(3)) == []

    def test_nothing_moves_that_is_not_there_or_has_state(self) -> None:
        assert HotSwap("m").handle(RelocationAsked(2)) == []
        assert self.two().handle(RelocationAsked(9)) == []
        assert loaded(stateful=True).handle(RelocationAsked(2)) == []

    def test_a_new_registry_keeps_as_many_as_there_may_be(self) -> None:
        machine = HotSwap("m")
        found = Recovered(1, "1", False, replicas=2, most=2, ready=(2, 3, 4), others=(), dead=(), next_number=5)
        assert machine.handle(found) == [Resume(2), Resume(3), Resume(4), Retire(4, whole=True)]


class TestDeaths:
    def test_of_the_serving_host_restarts_it(self) -> None:
        machine = loaded()
        assert machine.handle(HostDied(2)) == [StopHost(2), StartHost(3, 1, "1")]
        assert (machine.phase, machine.endpoints) == ("restarting", Endpoints())
        assert play(machine, Loaded(3), Healthy(3)) == []
        assert machine.phase == "serving"

    def test_restarts_wait_longer_each_time_unless_it_was_well_for_long(self) -> None:
        machine = loaded()
        waits = [machine.handle(HostDied(2))[-1].after_s]
        for _ in range(12):
            waits.append(machine.handle(Failed(machine.next_number - 1, ERROR))[-1].after_s)
        assert waits[:4] == [0, 0.25, 0.5, 1] and waits[-1] == MAX_BACKOFF_S
        epoch = machine.next_number - 1
        play(machine, Loaded(epoch), Healthy(epoch))
        assert machine.handle(HostDied(epoch, STABLE_S))[-1].after_s == 0

    def test_of_the_new_host_while_it_is_routed_to_returns_to_the_old_one(self) -> None:
        machine = loaded()
        assert play(machine, SwapAsked("2"), Loaded(4), Healthy(4), Judged(3), HostDied(4)) == [StopHost(4)]
        assert machine.handle(Routed(3)) == [Route(1)]
        [again] = machine.handle(StageFailed(1, ERROR))
        assert isinstance(again, Route) and again.revision == 1
        orders, error = told(machine.handle(Routed(1)))
        assert orders == [Resume(2)] and DEATH in error
        assert machine.phase == "serving" and machine.endpoints == Endpoints(serving=(2,))

    def test_of_both_hosts_while_calls_return_restarts_the_old_version(self) -> None:
        machine = loaded()
        play(machine, SwapAsked("2"), Loaded(4), Healthy(4), Judged(3), HostDied(4), Routed(3))
        assert machine.handle(HostDied(2)) == [StopHost(2)]
        orders, _ = told(machine.handle(Routed(1)))
        assert orders == [StartHost(5, 1, "1")]

    def test_of_the_old_host_during_a_swap_that_succeeds(self) -> None:
        machine = loaded()
        assert play(machine, SwapAsked("2"), HostDied(2)) == [StopHost(2), StartHost(5, 1, "1")]
        assert play(machine, Loaded(4), Healthy(4), Routed(3)) == [StopHost(5), Finished(3)]

    def test_of_the_old_host_during_a_swap_that_fails(self) -> None:
        machine = loaded()
        assert play(machine, SwapAsked("2"), HostDied(2), Failed(4, ERROR)) == [StopHost(4), RolledBack(3, ERROR)]
        assert machine.phase == "restarting"

    def test_of_both_hosts_during_the_switch_restarts_the_new_one(self) -> None:
        machine = loaded()
        play(machine, SwapAsked("2"), Loaded(4), Healthy(4), Judged(3), HostDied(2), HostDied(4))
        assert machine.handle(Routed(3)) == [StopHost(5), Finished(3), StartHost(6, 3, "2")]

    def test_of_a_host_that_is_drained_ends_the_drain(self) -> None:
        machine = loaded()
        play(machine, SwapAsked("2"), Loaded(4), Healthy(4), Judged(3), Routed(3))
        assert machine.handle(HostDied(2)) == [StopHost(2), Finished(3)]
        assert machine.handle(Drained(2)) == []

    def test_of_a_host_that_leaves(self) -> None:
        machine = swapped()
        play(machine, Expired(1))
        assert machine.handle(HostDied(2)) == [StopHost(2)]

    def test_a_module_that_keeps_dying_can_be_mended_or_ended(self) -> None:
        machine = loaded()
        machine.handle(HostDied(2))
        assert machine.handle(SwapAsked("2")) == [StartHost(5, 4, "2")]
        assert play(machine, Failed(5, ERROR)) == [StopHost(5), RolledBack(4, ERROR)]
        assert machine.handle(UnloadAsked()) == [Unroute(6), StopHost(3), Finished(6)]
        assert machine.phase == "empty"


class TestRecovery:
    def recovered(self, **changed: Any) -> Recovered:
        usual = Recovered(3, "2", stateful=False, replicas=2, most=4, ready=(4,), others=(2,), dead=(5,), next_number=9)
        return replace(usual, **changed)

    def test_what_served_goes_on_and_the_rest_is_emptied(self) -> None:
        machine = HotSwap("m")
        assert machine.handle(self.recovered()) == [
            StopHost(5),
            Retire(2, whole=True),
            Resume(4),
            StartHost(9, 3, "2"),
        ]
        assert machine.endpoints == Endpoints(serving=(4,))

    def test_nothing_served(self) -> None:
        machine = HotSwap("m")
        assert machine.handle(self.recovered(revision=None, ready=())) == [StopHost(5), Retire(2, whole=True)]
        assert machine.phase == "empty"


class TestConflicts:
    def test_one_load(self) -> None:
        with pytest.raises(Conflict, match="m is loaded: swap it"):
            loaded().handle(LoadAsked("2"))

    def test_nothing_to_swap_or_unload(self) -> None:
        for event in (SwapAsked("2"), UnloadAsked(), RollbackAsked()):
            with pytest.raises(Conflict, match="m is not loaded"):
                HotSwap("m").handle(event)

    @pytest.mark.parametrize("event", [SwapAsked("3"), UnloadAsked(), RollbackAsked()])
    def test_one_change_at_a_time(self, event: Any) -> None:
        machine = loaded()
        machine.handle(SwapAsked("2"))
        with pytest.raises(Conflict, match="m is loading: one change at a time"):
            machine.handle(event)

    def test_no_load_while_it_is_unloaded(self) -> None:
        machine = loaded()
        machine.handle(UnloadAsked())
        with pytest.raises(Conflict, match="m is unloading"):
            machine.handle(LoadAsked("1"))


@pytest.mark.parametrize(
    "event",
    [
        *(kind(number) for kind in (Loaded, Healthy, HostDied, Drained) for number in (9, 1)),
        *(kind(number) for kind in (Routed, Moved, Judged, Expired) for number in (9, 1)),
        *(kind(number, ERROR) for kind in (Failed, StageFailed) for number in (9, 1)),
        Loaded(2),
        Healthy(2),
        Failed(2, ERROR),
        Drained(2),
    ],
    ids=str,
)
def test_late_news_changes_nothing(event: Any) -> None:
    machine = loaded()
    assert machine.handle(event) == [] and machine.phase == "serving"


def test_a_failure_after_the_preparation_is_late_news_too() -> None:
    machine = loaded()
    assert play(machine, SwapAsked("2"), Loaded(4), Healthy(4), Failed(4, ERROR)) == []


ORDERS = (StartHost, CheckHealth, Route, Retire, MoveState, Try, KeepWarm)


class World(RuleBasedStateMachine):
    """Hosts that start, fail and die at random, one kept route, state that is in one place, news in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = HotSwap("m")
        self.stateful = False
        self.kept: int | None = None  # the revision that the store says calls go to
        self.revision_of: dict[int, int] = {}
        self.alive: set[int] = set()
        self.retired: set[int] = set()
        self.stopped: set[int] = set()
        self.had_calls: set[int] = set()
        self.drained: set[int] = set()
        self.waiting: set[int] = set()
        self.orders: list[Any] = []
        self.news: list[HostDied] = []
        self.holder: int | None = None  # the host that has the state; None: what is kept is the newest

    # -- the shell

    def tell(self, event: Any) -> None:
        for order in self.machine.handle(event):
            self.perform(order)
        self.had_calls |= {epoch for epoch in self.callable() if epoch in self.alive}

    def callable(self) -> set[int]:
        endpoints = self.machine.endpoints
        return {*endpoints.serving, *endpoints.canary}

    def perform(self, order: Any) -> None:
        if isinstance(order, StartHost):
            assert order.epoch not in self.revision_of, "an epoch comes twice"
            self.revision_of[order.epoch] = order.revision
            self.alive.add(order.epoch)
        if isinstance(order, ORDERS):
            self.orders.append(order)
        match order:
            case Retire(epoch):
                self.retired.add(epoch)
            case Resume(epoch):
                assert self.revision_of[epoch] == self.kept, "a host takes calls again that is not routed to"
                self.retired.discard(epoch)
                # The move of state that it was stopped for is called off, and has ended.
                self.orders = [each for each in self.orders if not isinstance(each, MoveState)]
            case Unroute():
                self.kept = None
            case StopHost(epoch):
                cut_off = epoch in self.alive & self.had_calls and epoch not in self.drained
                assert not cut_off, "a host is stopped that may have calls"
                assert epoch not in self.stopped, "a host is stopped twice"
                self.alive.discard(epoch)
                self.stopped.add(epoch)
                # A start can be called off; what is being written, or a question that was sent, cannot.
                self.orders = [each for each in self.orders if not _starts(each, epoch)]
            case Finished(number) | RolledBack(number):
                assert number in self.waiting, "nobody waits for this"
                self.waiting.discard(number)

    def outcome(self, order: Any, good: bool) -> None:
        self.orders.remove(order)
        match order:
            case StartHost(epoch) | CheckHealth(epoch):
                done = Loaded(epoch) if isinstance(order, StartHost) else Healthy(epoch)
                self.tell(done if good and epoch in self.alive else Failed(epoch, ERROR))
            case Route(revision):
                if good:
                    self.kept = revision
                self.tell(Routed(revision) if good else StageFailed(revision, ERROR))
            case MoveState(revision, source, target):
                assert source not in self.callable(), "state is moved while calls run"
                if source is not None:
                    self.retired.add(source)
                    self.drained.add(source)
                good = good and target in self.alive and (source is None or source in self.alive)
                self.tell(Moved(revision) if good else StageFailed(revision, ERROR))
            case Try(revision):
                self.tell(Judged(revision) if good else StageFailed(revision, ERROR))
            case KeepWarm(revision):
                self.tell(Expired(revision))
            case Retire(epoch, whole):
                if whole:
                    self.drained.add(epoch)
                self.tell(Drained(epoch, whole))

    def ask(self, event: Any) -> None:
        before = self.machine.next_number
        try:
            todo = self.machine.handle(event)
        except Conflict:
            return
        self.waiting.add(before)
        for order in todo:
            self.perform(order)

    # -- what happens

    @initialize(stateful=st.booleans(), tries=st.booleans(), replicas=st.integers(1, 3))
    def loads(self, stateful: bool, tries: bool, replicas: int) -> None:
        self.machine, self.stateful = HotSwap("m", tries), stateful
        self.ask(LoadAsked("1", 1 if stateful else replicas, stateful))

    @rule(version=st.sampled_from("123"), replicas=st.integers(1, 2))
    def ask_load(self, version: str, replicas: int) -> None:
        self.ask(LoadAsked(version, 1 if self.stateful else replicas, self.stateful))

    @rule(version=st.sampled_from("123"), replicas=st.integers(1, 2), reversible=st.booleans())
    def ask_swap(self, version: str, replicas: int, reversible: bool) -> None:
        self.ask(SwapAsked(version, 1 if self.stateful else replicas, self.stateful, reversible))

    @rule()
    def ask_rollback(self) -> None:
        self.ask(RollbackAsked())

    @rule()
    def ask_unload(self) -> None:
        self.ask(UnloadAsked())

    @precondition(lambda self: not self.stateful)
    @rule(replicas=st.integers(1, 4))
    def scale(self, replicas: int) -> None:
        self.tell(ReplicasAsked(replicas))

    @rule(data=st.data())
    def relocate(self, data: st.DataObject) -> None:
        known = sorted(self.revision_of)
        self.tell(RelocationAsked(data.draw(st.sampled_from(known)) if known else 1))

    @precondition(lambda self: self.orders)
    @rule(data=st.data(), good=st.booleans())
    def something_ends(self, data: st.DataObject, good: bool) -> None:
        self.outcome(data.draw(st.sampled_from(self.orders)), good)

    @precondition(lambda self: self.orders)
    @rule()
    def all_goes_well_for_a_while(self) -> None:
        for order in list(self.orders):
            if order in self.orders:
                self.outcome(order, good=True)

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def a_host_dies(self, data: st.DataObject) -> None:
        epoch = data.draw(st.sampled_from(sorted(self.alive)))
        self.alive.discard(epoch)
        self.news.append(HostDied(epoch))

    @precondition(lambda self: self.news)
    @rule(data=st.data())
    def a_death_is_heard_of(self, data: st.DataObject) -> None:
        event = data.draw(st.sampled_from(self.news))
        self.news.remove(event)
        self.tell(event)

    @rule(epoch=st.integers(1, 12), kind=st.sampled_from([Loaded, Healthy, Drained, HostDied]))
    def old_news_comes_again(self, epoch: int, kind: Any) -> None:
        if epoch in self.stopped:
            self.tell(kind(epoch))

    @rule()
    def the_registry_dies(self) -> None:
        """Nobody is left who waits, and what was under way is forgotten; the hosts and the kept route are not."""
        held = self.revision_of.keys() - self.stopped
        machine, before = HotSwap("m", self.machine.tries), self.machine
        ready = {e for e in held & self.alive if self.revision_of[e] == self.kept and e in self.had_calls}
        dead = held - self.alive | {e for e in held if e not in ready and e not in self.had_calls}
        versions = {each.number: each.version for each in _revisions(before)}
        self.machine, self.waiting, self.orders, self.news = machine, set(), [], []
        self.alive -= dead
        self.tell(
            Recovered(
                self.kept,
                versions.get(self.kept or 0, "1"),
                self.stateful,
                1,
                4,
                tuple(sorted(ready)),
                tuple(sorted(held - ready - dead)),
                tuple(sorted(dead)),
                before.next_number,
            )
        )

    @rule()
    def everything_settles(self) -> None:
        while self.orders or self.news:
            if self.news:
                self.tell(self.news.pop())
            else:
                self.outcome(self.orders[0], good=True)
        assert self.machine.phase in ("serving", "empty")
        left = set(self.machine.endpoints.serving)
        assert self.alive == left, "a host is left over"
        assert self.revision_of.keys() - self.stopped == left, "what a host held is not freed"
        assert (self.kept is not None) == bool(left), "none serves"
        if self.machine.serving is not None:
            assert len(left) == self.machine.serving.wanted
        assert not self.waiting, "somebody waits for an answer for ever"

    # -- what always holds

    @invariant()
    def what_serves_is_what_is_kept(self) -> None:
        serving = self.machine.serving
        assert (serving.number if serving else None) == self.kept

    @invariant()
    def calls_go_to_hosts_that_take_them(self) -> None:
        assert not self.callable() & (self.retired | self.stopped)

    @invariant()
    def state_is_in_one_place(self) -> None:
        if self.stateful:
            assert len(self.callable()) <= 1

    @invariant()
    def what_is_missing_is_being_replaced(self) -> None:
        serving, candidate = self.machine.serving, self.machine.candidate
        if serving is not None and candidate is None:
            assert len(serving.hosts) >= serving.wanted


def _starts(order: Any, epoch: int) -> bool:
    return isinstance(order, StartHost) and order.epoch == epoch


def _revisions(machine: HotSwap) -> list[Any]:
    candidate = machine.candidate.revision if machine.candidate is not None else None
    return [each for each in (machine.serving, candidate, machine.previous) if each is not None]


TestWorld = World.TestCase
TestWorld.settings = hypothesis_settings(max_examples=300, stateful_step_count=50, deadline=None)
