"""The hot-swap machine: each path by itself, and random interleavings of outcomes and deaths in a small world."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from noodle_ray.errors import Conflict, ModuleFailed
from noodle_ray.modules.swap import (
    LINGER_S,
    MAX_BACKOFF_S,
    CheckHealth,
    Drained,
    Failed,
    Finished,
    Healthy,
    HostDied,
    HotSwap,
    LoadAsked,
    Loaded,
    Retire,
    RolledBack,
    Route,
    Routed,
    StartHost,
    StopHost,
    SwapAsked,
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


def loaded() -> HotSwap:
    machine = HotSwap("m")
    play(machine, LoadAsked("1"), Loaded(1), Healthy(1), Routed(1))
    return machine


class TestPaths:
    def test_a_first_load(self) -> None:
        machine = HotSwap("m")
        assert machine.phase == "empty"
        assert machine.handle(LoadAsked("1")) == [StartHost(1, "1")]
        assert machine.handle(Loaded(1)) == [CheckHealth(1)]
        assert machine.phase == "checking"
        assert machine.handle(Healthy(1)) == [Route(1)]
        assert machine.phase == "switching"
        assert machine.handle(Routed(1)) == [Finished(1)]
        assert machine.phase == "serving"

    def test_a_swap_drains_the_old_host(self) -> None:
        machine = loaded()
        assert machine.handle(SwapAsked("2")) == [StartHost(2, "2")]
        assert play(machine, Loaded(2), Healthy(2)) == [Route(2)]
        assert machine.handle(Routed(2)) == [Retire(1)]
        assert machine.phase == "draining"
        assert machine.handle(Drained(1)) == [StopHost(1, LINGER_S), Finished(2)]
        assert machine.phase == "serving"

    @pytest.mark.parametrize("before", [[], [Loaded(2)], [Loaded(2), Healthy(2)]], ids=["load", "check", "route"])
    def test_whatever_fails_before_the_switch_leaves_the_old_one(self, before: list[Any]) -> None:
        machine = loaded()
        todo = play(machine, SwapAsked("2"), *before, Failed(2, ERROR))
        assert todo == [StopHost(2), RolledBack(2, ERROR)]
        assert machine.phase == "serving" and machine.serving is not None and machine.serving.version == "1"

    def test_a_failed_first_load_leaves_nothing(self) -> None:
        machine = HotSwap("m")
        assert play(machine, LoadAsked("1"), Failed(1, ERROR)) == [StopHost(1), RolledBack(1, ERROR)]
        assert machine.phase == "empty"
        assert machine.handle(LoadAsked("1")) == [StartHost(2, "1")]

    def test_unload(self) -> None:
        machine = loaded()
        assert machine.handle(UnloadAsked()) == [Unroute(2), Retire(1)]
        assert machine.phase == "unloading"
        assert machine.handle(Drained(1)) == [StopHost(1), Finished(2)]
        assert machine.phase == "empty"

    def test_an_unload_while_the_old_host_drains_answers_both(self) -> None:
        machine = loaded()
        play(machine, SwapAsked("2"), Loaded(2), Healthy(2), Routed(2))
        assert machine.handle(UnloadAsked()) == [Unroute(3), Retire(2)]
        assert machine.handle(Drained(2)) == [StopHost(2), Finished(3)]
        assert machine.handle(Drained(1)) == [StopHost(1), Finished(2)]


class TestDeaths:
    def test_of_the_serving_host_restarts_it(self) -> None:
        machine = loaded()
        assert machine.handle(HostDied(1)) == [StartHost(2, "1")]
        assert machine.phase == "restarting" and machine.serving_died
        assert play(machine, Loaded(2), Healthy(2), Routed(2)) == [StopHost(1)]
        assert machine.phase == "serving" and not machine.serving_died

    def test_restarts_wait_longer_each_time(self) -> None:
        machine = loaded()
        waits = [machine.handle(HostDied(1))[0].after_s]
        for _ in range(12):
            waits.append(machine.handle(Failed(machine.next_epoch - 1, ERROR))[-1].after_s)
        assert waits[:4] == [0, 0.25, 0.5, 1] and waits[-1] == MAX_BACKOFF_S

    @pytest.mark.parametrize("before", [[], [Loaded(2)]], ids=["load", "check"])
    def test_of_the_new_host_before_the_switch_rolls_back(self, before: list[Any]) -> None:
        machine = loaded()
        [stop, rolled_back] = play(machine, SwapAsked("2"), *before, HostDied(2))
        assert stop == StopHost(2) and rolled_back.epoch == 2 and DEATH in str(rolled_back.error)
        assert machine.phase == "serving"

    def test_of_the_new_host_while_it_is_routed_to_returns_to_the_old_one(self) -> None:
        machine = loaded()
        assert play(machine, SwapAsked("2"), Loaded(2), Healthy(2), HostDied(2)) == []
        [back, rolled_back] = machine.handle(Routed(2))
        assert back == Route(1) and rolled_back.epoch == 2
        [again] = machine.handle(Failed(1, ERROR))
        assert isinstance(again, Route) and again.epoch == 1
        assert machine.handle(Routed(1)) == [StopHost(2)]
        assert machine.phase == "serving" and machine.serving is not None and machine.serving.version == "1"

    def test_of_both_hosts_while_calls_return_restarts_the_old_version(self) -> None:
        machine = loaded()
        play(machine, SwapAsked("2"), Loaded(2), Healthy(2), HostDied(2), Routed(2), HostDied(1))
        assert machine.handle(Routed(1)) == [StopHost(2), StartHost(3, "1", 0.0)]

    def test_of_the_old_host_during_a_swap_that_succeeds(self) -> None:
        machine = loaded()
        assert play(machine, SwapAsked("2"), HostDied(1)) == []
        assert play(machine, Loaded(2), Healthy(2), Routed(2)) == [StopHost(1), Finished(2)]

    def test_of_the_old_host_during_a_swap_that_fails_restarts_it(self) -> None:
        machine = loaded()
        todo = play(machine, SwapAsked("2"), HostDied(1), Failed(2, ERROR))
        assert todo == [StopHost(2), RolledBack(2, ERROR), StartHost(3, "1", 0.0)]

    def test_of_both_hosts_during_the_switch_restarts_the_new_one(self) -> None:
        machine = loaded()
        todo = play(machine, SwapAsked("2"), Loaded(2), Healthy(2), HostDied(1), HostDied(2), Routed(2))
        assert todo == [StopHost(1), Finished(2), StartHost(3, "2", 0.0)]

    def test_of_a_host_that_is_drained_ends_the_drain(self) -> None:
        machine = loaded()
        play(machine, SwapAsked("2"), Loaded(2), Healthy(2), Routed(2))
        assert machine.handle(HostDied(1)) == [StopHost(1), Finished(2)]
        assert machine.handle(Drained(1)) == []

    def test_of_the_new_host_while_the_old_one_drains_restarts_the_new_version(self) -> None:
        machine = loaded()
        todo = play(machine, SwapAsked("2"), Loaded(2), Healthy(2), Routed(2), HostDied(2))
        assert todo == [StartHost(3, "2", 0.0)]
        assert machine.handle(Drained(1)) == [StopHost(1, LINGER_S), Finished(2)]

    def test_a_module_that_keeps_dying_can_be_mended_or_ended(self) -> None:
        machine = loaded()
        machine.handle(HostDied(1))
        assert machine.handle(SwapAsked("2")) == [StopHost(2), StartHost(3, "2")]
        assert play(machine, Failed(3, ERROR)) == [StopHost(3), RolledBack(3, ERROR), StartHost(4, "1", 0.25)]
        assert machine.handle(UnloadAsked()) == [Unroute(5), StopHost(4), StopHost(1), Finished(5)]
        assert machine.phase == "empty"


class TestConflicts:
    def test_one_load(self) -> None:
        with pytest.raises(Conflict, match="m is loaded: swap it"):
            loaded().handle(LoadAsked("2"))

    def test_nothing_to_swap_or_unload(self) -> None:
        for event in (SwapAsked("2"), UnloadAsked()):
            with pytest.raises(Conflict, match="m is not loaded"):
                HotSwap("m").handle(event)

    @pytest.mark.parametrize("event", [SwapAsked("3"), UnloadAsked()])
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
    [Loaded(9), Healthy(9), Routed(9), Failed(9, ERROR), HostDied(9), Drained(9), Loaded(1), Routed(1)],
    ids=str,
)
def test_late_news_changes_nothing(event: Any) -> None:
    machine = loaded()
    assert machine.handle(event) == [] and machine.phase == "serving"


class World(RuleBasedStateMachine):
    """Hosts that start, fail and die at random, a routing table with one entry, and news that comes in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = HotSwap("m")
        self.table: int | None = None
        self.is_loaded = False
        self.started: set[int] = set()
        self.alive: set[int] = set()
        self.ever_routed: set[int] = set()
        self.retired: set[int] = set()
        self.stopped: set[int] = set()
        self.drained: set[int] = set()
        self.waiting: set[int] = set()
        self.orders: list[StartHost | CheckHealth | Route | Retire] = []
        self.news: list[HostDied] = []

    # -- the shell

    def tell(self, event: Any) -> None:
        for order in self.machine.handle(event):
            self.perform(order)

    def perform(self, order: Any) -> None:
        match order:
            case StartHost(epoch):
                assert epoch not in self.started
                self.started.add(epoch)
                self.alive.add(epoch)
                self.orders.append(order)
            case CheckHealth() | Route() | Retire():
                if isinstance(order, Retire):
                    assert order.epoch != self.table, "the routed host is told to take no calls"
                    self.retired.add(order.epoch)
                self.orders.append(order)
            case Unroute():
                self.table, self.is_loaded = None, False
            case StopHost(epoch):
                assert epoch != self.table, "the routed host is stopped"
                cut_off = epoch in self.alive & self.ever_routed and epoch not in self.drained
                assert not cut_off, "a host is stopped that may have calls"
                self.alive.discard(epoch)
                self.stopped.add(epoch)
                # A start can be called off; a switch that is being written, or a question that was sent, cannot.
                self.orders = [each for each in self.orders if not _starts(each, epoch)]
            case Finished(epoch) | RolledBack(epoch):
                assert epoch in self.waiting, "nobody waits for this"
                self.waiting.discard(epoch)
            case _:
                raise AssertionError(order)

    def outcome(self, order: Any, good: bool) -> None:
        self.orders.remove(order)
        epoch = order.epoch
        good = good and (epoch in self.alive or isinstance(order, Route))
        match order:
            case StartHost():
                self.tell(Loaded(epoch) if good else Failed(epoch, ERROR))
            case CheckHealth():
                self.tell(Healthy(epoch) if good else Failed(epoch, ERROR))
            case Route() if good:
                self.table = epoch
                self.is_loaded = True
                self.ever_routed.add(epoch)
                self.tell(Routed(epoch))
            case Route():
                self.tell(Failed(epoch, ERROR))
            case Retire():
                self.drained.add(epoch)
                self.tell(Drained(epoch))

    # -- what happens

    @rule(version=st.sampled_from("123"), kind=st.sampled_from([LoadAsked, SwapAsked, SwapAsked]))
    def ask(self, version: str, kind: Any) -> None:
        try:
            todo = self.machine.handle(kind(version))
        except Conflict:
            return
        [start] = [order for order in todo if isinstance(order, StartHost)]
        self.waiting.add(start.epoch)
        for order in todo:
            self.perform(order)

    @rule()
    def ask_unload(self) -> None:
        try:
            todo = self.machine.handle(UnloadAsked())
        except Conflict:
            return
        self.waiting.add(todo[0].ticket)
        for order in todo:
            self.perform(order)

    @initialize(version=st.sampled_from("123"))
    def loads(self, version: str) -> None:
        self.ask(version, LoadAsked)

    @precondition(lambda self: self.orders)
    @rule(data=st.data())
    def something_succeeds(self, data: st.DataObject) -> None:
        self.outcome(data.draw(st.sampled_from(self.orders)), good=True)

    @precondition(lambda self: self.orders)
    @rule()
    def all_goes_well_for_a_while(self) -> None:
        for order in list(self.orders):
            if order in self.orders:
                self.outcome(order, good=True)

    @precondition(lambda self: self.orders)
    @rule(data=st.data())
    def something_fails(self, data: st.DataObject) -> None:
        self.outcome(data.draw(st.sampled_from(self.orders)), good=False)

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
    def everything_settles(self) -> None:
        while self.orders or self.news:
            if self.news:
                self.tell(self.news.pop())
            else:
                self.outcome(self.orders[0], good=True)
        assert self.machine.phase in ("serving", "empty")
        left = {self.table} if self.is_loaded else set()
        assert self.alive == left, "a host is left over, or none serves"
        assert self.started - self.stopped == left, "what a host held is not freed"
        assert not self.waiting, "somebody waits for an answer for ever"

    # -- what always holds

    @invariant()
    def once_loaded_it_is_routed(self) -> None:
        assert (self.table is not None) == self.is_loaded
        serving = self.machine.serving
        assert (serving.epoch if serving else None) == self.table

    @invariant()
    def never_two_that_take_calls(self) -> None:
        taking = (self.ever_routed & self.alive) - self.retired
        assert len(taking) <= 1

    @invariant()
    def a_dead_routed_host_is_being_replaced(self) -> None:
        heard_of = not any(event.epoch == self.table for event in self.news)
        if self.is_loaded and self.table not in self.alive and heard_of:
            assert self.machine.candidate is not None


def _starts(order: Any, epoch: int) -> bool:
    return isinstance(order, StartHost) and order.epoch == epoch


TestWorld = World.TestCase
TestWorld.settings = hypothesis_settings(max_examples=200, stateful_step_count=40, deadline=None)
