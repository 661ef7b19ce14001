"""The registry: publishing, yanking, routing and forgetting hosts, limits, recovery, and histories against a model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from noodle_ray.errors import Conflict, CorruptData, Incompatible, InvalidInput, LimitReached, NotFound
from noodle_ray.modules.load import MAX_CHANGES, HostRecord, KeptState, Load, ModuleChange, RevisionRecord
from noodle_ray.modules.manifest import Manifest, StateSpec
from noodle_ray.modules.registry import (
    ChangeEnded,
    HostGone,
    HostTaken,
    Publish,
    Recovered,
    Registry,
    RevisionRouted,
    StateKept,
    Unrouted,
    Yank,
)
from noodle_ray.modules.release import Lock, LockedModule
from noodle_ray.modules.signatures import Function, Parameter
from noodle_ray.settings import Settings
from noodle_ray.store.changes import Change, Delete, Put

SHA = "a" * 64
OTHER = "b" * 64


def publish(name: str = "a", version: str = "1.0", sha256: str = SHA) -> Publish:
    return Publish(Manifest(name=name, version=version, entry_point="file"), sha256, size_bytes=3, at=5.0)


def host(epoch: int, revision: int = 1, name: str = "a") -> HostRecord:
    return HostRecord(
        epoch=epoch, revision=revision, version="1.0", actor=f"host-{name}-{epoch}", node_id="n", taken_at=1.0
    )


def revision(number: int, name: str = "a", version: str = "1.0", needs: tuple[str, ...] = ()) -> RevisionRecord:
    modules = tuple(LockedModule(name=each, version="1.0", sha256=SHA) for each in needs)
    modules += (LockedModule(name=name, version=version, sha256=SHA),)
    return RevisionRecord(number=number, version=version, lock=Lock(requirements={name: ""}, modules=modules))


def change(number: int, **more: Any) -> ModuleChange:
    return ModuleChange(number=number, kind="load", version="1.0", at=1.0, **more)


def registry(*events: Any, limit: int = 1000) -> Registry:
    core = Registry(Settings(max_modules=limit))
    for event in events:
        core.handle(event)
    return core


def loaded(name: str = "a", needs: tuple[str, ...] = ()) -> list[Any]:
    return [HostTaken(name, host(2, name=name)), RevisionRouted(name, revision(1, name, needs=needs))]


class TestPublish:
    def test_keeps_the_release(self) -> None:
        core = Registry(Settings())
        [change] = core.handle(publish(version="1.0"))
        release = core.release("a", "1.0.0")
        assert change == Put("modules", "a==1", release.to_json())
        assert (release.sha256, release.published_at, release.yanked) == (SHA, 5.0, False)
        assert release.summary()["version"] == "1.0"

    def test_the_same_content_again_changes_nothing(self) -> None:
        assert registry(publish()).handle(publish()) == []

    @pytest.mark.parametrize("version", ["1.0", "1.0.0"])
    def test_other_content_under_the_same_version_is_refused(self, version: str) -> None:
        with pytest.raises(Conflict, match=r"a 1\.0 is published with other content"):
            registry(publish()).handle(publish(version=version, sha256=OTHER))

    def test_stops_at_the_limit(self) -> None:
        core = registry(publish(), limit=1)
        with pytest.raises(LimitReached, match="NOODLE_MAX_MODULES"):
            core.handle(publish(version="2.0"))
        assert core.handle(publish()) == []

    def test_releases_are_by_name_and_newest_first(self) -> None:
        core = registry(publish("b"), publish("a", "1.9"), publish("a", "1.10"))
        assert [(each.name, str(each.version)) for each in core.releases()] == [
            ("a", "1.10"),
            ("a", "1.9"),
            ("b", "1.0"),
        ]
        assert [str(each.version) for each in core.releases("A")] == ["1.10", "1.9"]

    def test_unknown_ones_are_not_found(self) -> None:
        core = registry(publish())
        with pytest.raises(NotFound, match="no module 'z'; known: a"):
            core.release("z", "1.0")
        with pytest.raises(NotFound, match=r"no version 'a 2\.0'; known: 1\.0"):
            core.release("a", "2.0")
        with pytest.raises(InvalidInput, match="version"):
            core.release("a", "new")


def test_yank_once() -> None:
    core = registry(publish())
    [change] = core.handle(Yank("a", "1"))
    assert core.release("a", "1.0").yanked and isinstance(change, Put) and change.document["yanked"]
    assert core.handle(Yank("a", "1.0")) == []
    with pytest.raises(NotFound):
        core.handle(Yank("b", "1.0"))


class TestLoads:
    def test_a_host_is_taken_then_its_revision_routed_then_it_is_gone(self) -> None:
        core = registry()
        [taken] = core.handle(HostTaken("a", host(2)))
        assert core.load("a").serving is None and core.load("a").hosts == (host(2),)
        [routed] = core.handle(RevisionRouted("a", revision(1)))
        assert core.load("a").serving == revision(1) and core.load("a").serving_hosts() == [host(2)]
        assert {taken.key, routed.key} == {"a"} and taken.table == "loads"
        core.handle(Unrouted("a"))
        assert core.handle(HostGone("a", 2)) == [Delete("loads", "a")]
        assert core.loads() == []

    def test_of_a_host_that_is_known_the_latest_counts(self) -> None:
        core = registry(*loaded())
        [other] = [each.model_copy(update={"allocation_id": "another"}) for each in core.load("a").hosts]
        core.handle(HostTaken("a", other))
        assert core.load("a").hosts == (other,)

    def test_a_swap_remembers_the_revision_before(self) -> None:
        core = registry(*loaded(), HostTaken("a", host(4, 3)))
        core.handle(RevisionRouted("a", revision(3, version="2.0"), previous=revision(1)))
        load = core.load("a")
        assert load.serving == revision(3, version="2.0") and load.previous == revision(1)
        assert load.serving_hosts() == [host(4, 3)] and load.next_number == 5
        core.handle(HostGone("a", 2))
        assert core.load("a").hosts == (host(4, 3),)

    def test_what_serves_is_kept_though_its_hosts_are_gone(self) -> None:
        core = registry(*loaded(), HostGone("a", 2))
        assert core.load("a").serving == revision(1) and core.load("a").hosts == ()

    @pytest.mark.parametrize("event", [HostGone("a", 9), HostGone("b", 2), Unrouted("b")])
    def test_what_is_not_there(self, event: Any) -> None:
        with pytest.raises(NotFound):
            registry(*loaded()).handle(event)

    def test_unrouted_has_no_serving_revision(self) -> None:
        core = registry(*loaded(), Unrouted("a"))
        assert core.load("a").serving is None and core.load("a").hosts == (host(2),)
        assert core.load("a").serving_hosts() == []

    def test_changes_are_told_with_their_latest_outcome(self) -> None:
        core = registry(
            HostTaken("a", host(2), change(1)), RevisionRouted("a", revision(1), None, change(1, outcome="done"))
        )
        core.handle(HostTaken("a", host(4, 3), change(3)))
        core.handle(ChangeEnded("a", change(3, outcome="rolled back", why="ill")))
        assert [(each.number, each.outcome) for each in core.load("a").changes] == [(1, "done"), (3, "rolled back")]
        assert core.handle(ChangeEnded("b", change(3))) == []

    def test_only_the_latest_changes_are_remembered(self) -> None:
        load = Load(name="a")
        for number in range(1, 2 * MAX_CHANGES):
            load = load.with_change(change(number))
        assert len(load.changes) == MAX_CHANGES and load.next_number == 2 * MAX_CHANGES

    def test_state_is_kept_with_the_route_that_goes_on_from_it(self) -> None:
        core, state = registry(*loaded()), KeptState(version="1.0", schema_version=1, state=b"\x00\xff", at=1.0)
        assert core.handle(StateKept("a", state)) == [Put("states", "a", state.to_json())]
        assert KeptState.parse(state.to_json()) == state
        [routed, kept] = core.handle(RevisionRouted("a", revision(3), state=state))
        assert (routed.table, kept) == ("loads", Put("states", "a", state.to_json()))
        assert core.handle(StateKept("a", None)) == [Delete("states", "a")]
        assert core.handle(RevisionRouted("a", revision(5), forgets_state=True))[1] == Delete("states", "a")

    def test_unloading_what_others_need_names_them(self) -> None:
        core = registry(*loaded("a"), *loaded("b", needs=("a",)), *loaded("c", needs=("a", "b")))
        with pytest.raises(Conflict, match="a cannot be unloaded: b, c"):
            core.check_unload("A")
        assert core.load("a").serving is not None
        core.check_unload("c")
        with pytest.raises(NotFound, match="no loaded module 'z'; known: a, b, c"):
            core.check_unload("z")


class TestSwapCheck:
    OLD = Function(name="f", parameters=())
    NEW = Function(name="f", parameters=(Parameter(name="x", kind="either", required=True),))

    def core(self, *functions: tuple[Function, ...] | None) -> Registry:
        published = [
            replace(publish(version=f"{number}.0"), functions=offered) for number, offered in enumerate(functions, 1)
        ]
        return registry(*published, *loaded())

    def test_what_would_break_callers_is_refused_with_all_of_it(self) -> None:
        with pytest.raises(
            Incompatible, match=r"a 1\.0 → 2\.0 would break what relies on it: f: x is required now"
        ) as caught:
            self.core((self.OLD,), (self.NEW,)).check_swap("a", "2.0")
        assert caught.value.details() == {"changes": ["f: x is required now"]}

    def test_what_breaks_nobody_or_cannot_be_told_is_not(self) -> None:
        self.core((self.OLD,), (self.OLD, self.NEW.model_copy(update={"name": "g"}))).check_swap("a", "2.0")
        self.core((self.OLD,), None).check_swap("a", "2.0")
        registry(publish(), HostTaken("a", host(2))).check_swap("a", "1.0")

    def swap(self, old: dict[str, Any], new: dict[str, Any]) -> None:
        offers = [
            Publish(Manifest(name="a", version=version, entry_point="file:A", **fields), SHA, 3, 5.0)
            for version, fields in (("1.0", old), ("2.0", new))
        ]
        registry(*offers, *loaded()).check_swap("a", "2.0")

    def test_state_and_interfaces_count_too(self) -> None:
        state = StateSpec(schema_version=1)
        with pytest.raises(Incompatible) as caught:
            self.swap({"state": state, "provides": {"x": "1"}}, {"state": StateSpec(schema_version=2)})
        assert caught.value.changes == ("it cannot read state of schema 1", "it does not provide x any more")
        self.swap({}, {"state": state})
        self.swap({"state": state, "provides": {"x": "1"}}, {"state": state, "provides": {"x": "1.1"}})

    def test_methods_that_move_state_are_no_functions_of_callers(self) -> None:
        moves = (Function(name="export_state", parameters=()), Function(name="import_state", parameters=()))
        offers = [
            Publish(Manifest(name="a", version=version, entry_point="file:A", state=state), SHA, 3, 5.0, functions)
            for version, state, functions in (("1.0", StateSpec(), (self.OLD, *moves)), ("2.0", None, (self.OLD,)))
        ]
        with pytest.raises(Incompatible) as caught:
            registry(*offers, *loaded()).check_swap("a", "2.0")
        assert caught.value.changes == ("it gives up state of schema 1",)


def test_packages_are_those_of_all_modules_of_a_lock() -> None:
    manifests = [
        Manifest(name="dep", version="1.0", entry_point="file", packages=("numpy>=2", "idna")),
        Manifest(name="a", version="1.0", entry_point="file", packages=("idna", "attrs; python_version>='3'")),
    ]
    core = registry(*(Publish(each, SHA, 3, 5.0) for each in manifests))
    assert core.packages(revision(1, needs=("dep",)).lock) == ('attrs; python_version >= "3"', "idna", "numpy>=2")
    assert registry(publish()).packages(revision(1).lock) == ()


def test_loaded_versions_are_those_of_all_locks_the_newest_of_each() -> None:
    older = LockedModule(name="dep", version="1.9", sha256=SHA)
    newer = LockedModule(name="dep", version="1.10", sha256=SHA)
    core = registry()
    for name, dependency in (("a", newer), ("b", older)):
        plain = revision(1, name)
        lock = Lock(requirements={name: ""}, modules=(dependency, *plain.lock.modules))
        core.handle(HostTaken(name, host(2, name=name)))
        assert "dep" not in core.loaded_versions() or name == "b"
        core.handle(RevisionRouted(name, plain.model_copy(update={"lock": lock})))
    assert core.loaded_versions() == {"a": "1.0", "b": "1.0", "dep": "1.10"}


def test_decide_changes_nothing() -> None:
    core = registry(publish())
    changes = core.decide(publish(version="2.0"))
    assert len(core.releases()) == 1
    core.commit(changes)
    assert len(core.releases()) == 2


class TestRecovery:
    def test_rows_that_cannot_be_read_are_named(self) -> None:
        good = registry(publish()).release("a", "1.0").to_json()
        for modules, loads, message in (
            ({"a==1": {"x": 1}}, {}, "row 'a==1' of modules"),
            ({}, {"a": {"name": 3}}, "row 'a' of loads"),
            ({"b==1": good}, {}, "'b==1' of modules is that of 'a==1'"),
        ):
            with pytest.raises(CorruptData, match=message):
                Registry(Settings()).handle(Recovered(modules, loads))


class History(RuleBasedStateMachine):
    """Random histories: the rows that were kept always give back the same registry, and a plain model agrees."""

    def __init__(self) -> None:
        super().__init__()
        self.core = Registry(Settings(max_modules=4))
        self.rows: dict[str, dict[str, Any]] = {"modules": {}, "loads": {}, "states": {}}
        self.published: dict[tuple[str, str], str] = {}
        self.hosts: dict[str, dict[int, HostRecord]] = {}
        self.serving: dict[str, int] = {}
        self.epochs = 0

    def keep(self, changes: list[Change]) -> None:
        for change in changes:
            if isinstance(change, Put):
                self.rows[change.table][change.key] = change.document
            else:
                del self.rows[change.table][change.key]

    @rule(
        name=st.sampled_from("ab"), version=st.sampled_from(["1.0", "2.0", "3.0"]), sha256=st.sampled_from([SHA, OTHER])
    )
    def publish(self, name: str, version: str, sha256: str) -> None:
        before = self.published.get((name, version))
        try:
            self.keep(self.core.handle(publish(name, version, sha256)))
        except Conflict:
            assert before not in (None, sha256)
        except LimitReached:
            assert before is None and len(self.published) == 4
        else:
            assert before in (None, sha256)
            self.published[name, version] = sha256

    @rule(name=st.sampled_from("ab"))
    def take(self, name: str) -> None:
        self.epochs += 1
        self.hosts.setdefault(name, {})[self.epochs] = host(self.epochs, self.epochs, name)
        self.keep(self.core.handle(HostTaken(name, self.hosts[name][self.epochs])))

    @precondition(lambda self: any(self.hosts.values()))
    @rule(data=st.data())
    def route(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(name for name in self.hosts if self.hosts[name])))
        epoch = data.draw(st.sampled_from(sorted(self.hosts[name])))
        needs = ("a",) if name == "b" else ()
        self.keep(self.core.handle(RevisionRouted(name, revision(epoch, name, needs=needs))))
        self.serving[name] = epoch

    @precondition(lambda self: any(self.hosts.values()))
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(name for name in self.hosts if self.hosts[name])))
        epoch = data.draw(st.sampled_from(sorted(self.hosts[name])))
        self.keep(self.core.handle(HostGone(name, epoch)))
        del self.hosts[name][epoch]

    @rule(name=st.sampled_from("ab"))
    def unroute(self, name: str) -> None:
        try:
            self.core.check_unload(name)
            self.keep(self.core.handle(Unrouted(name)))
        except NotFound:
            assert not self.hosts.get(name) and name not in self.serving
        except Conflict:
            assert name == "a" and "b" in self.serving
        else:
            assert name == "b" or "b" not in self.serving
            self.serving.pop(name, None)

    @rule()
    def restart(self) -> None:
        self.core = Registry(Settings(max_modules=4))
        assert self.core.handle(Recovered(self.rows["modules"], self.rows["loads"])) == []

    @invariant()
    def agrees_with_the_model(self) -> None:
        found = {(each.name, each.manifest.version): each.sha256 for each in self.core.releases()}
        assert found == self.published
        loaded = {name for name in self.hosts if self.hosts[name] or name in self.serving}
        assert {load.name for load in self.core.loads()} == loaded
        for load in self.core.loads():
            assert {each.epoch: each for each in load.hosts} == self.hosts[load.name]
            assert (load.serving.number if load.serving else None) == self.serving.get(load.name)


TestHistory = History.TestCase
TestHistory.settings = hypothesis_settings(max_examples=150, stateful_step_count=40, deadline=None)
