"""The service directory: registration, leases, limits and recovery, and a random history against a plain model."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noodle_ray.errors import Conflict, CorruptData, InvalidInput, LimitReached, NotFound
from noodle_ray.services.directory import (
    Directory,
    Recovered,
    Register,
    Registration,
    Renew,
    Service,
    Tick,
    Unregister,
)
from noodle_ray.store.changes import Delete, Put


def registration(name: str = "encoder", **fields: Any) -> Registration:
    return Registration(**{"name": name, "address": f"serve:{name}", **fields})


def directory_of(*services: Registration, at: float = 100.0) -> Directory:
    directory = Directory()
    for service in services:
        directory.handle(Register(service, at))
    return directory


def kept(instructions: list[Any], rows: dict[str, Any]) -> None:
    for change in instructions:
        if isinstance(change, Put):
            rows[change.key] = change.document
        else:
            rows.pop(change.key, None)


class TestRegister:
    def test_lists_the_service_and_keeps_it(self) -> None:
        directory = Directory()
        instructions = directory.handle(Register(registration(capabilities=("fusion.embed",)), at=100.0))
        service = directory.service("encoder")
        assert service.registered_at == 100.0 and service.expires_at is None
        assert instructions == [Put("services", "encoder", service.to_json())]

    def test_again_with_the_same_content_changes_nothing_kept(self) -> None:
        directory = directory_of(registration())
        assert directory.handle(Register(registration(), at=200.0)) == []
        assert directory.service("encoder").registered_at == 100.0

    def test_again_with_the_same_content_renews_the_lease(self) -> None:
        directory = directory_of(registration(ttl_s=10))
        directory.handle(Register(registration(ttl_s=10), at=105.0))
        assert directory.service("encoder").expires_at == 115.0

    def test_replaces_its_own_entry(self) -> None:
        directory = directory_of(registration())
        instructions = directory.handle(Register(registration(address="http://10.0.0.2:9000"), at=200.0))
        assert directory.service("encoder").address == "http://10.0.0.2:9000"
        assert directory.service("encoder").registered_at == 200.0
        assert len(instructions) == 1 and len(directory.services()) == 1

    def test_does_not_take_the_name_of_another_kind(self) -> None:
        directory = directory_of(registration(kind="component"))
        with pytest.raises(Conflict, match="kind 'component'"):
            directory.handle(Register(registration(kind="agent"), at=200.0))

    def test_times_that_the_caller_gives_are_replaced(self) -> None:
        directory = Directory()
        given_times = Service(name="a", address="x", registered_at=1.0, expires_at=2.0)
        directory.handle(Register(given_times, at=100.0))
        assert (directory.service("a").registered_at, directory.service("a").expires_at) == (100.0, None)

    def test_stops_at_the_limit_but_still_replaces(self) -> None:
        directory = Directory(limit=1)
        directory.handle(Register(registration("a"), at=1.0))
        with pytest.raises(LimitReached, match="limit of 1"):
            directory.handle(Register(registration("b"), at=1.0))
        directory.handle(Register(registration("a", version="2"), at=2.0))
        assert [service.version for service in directory.services()] == ["2"]


class TestLease:
    def test_ends_when_nobody_renews(self) -> None:
        directory = directory_of(registration(ttl_s=10), registration("stays"))
        assert directory.handle(Tick(109.9)) == []
        assert directory.handle(Tick(110.0)) == [Delete("services", "encoder")]
        assert [service.name for service in directory.services()] == ["stays"]

    def test_is_prolonged_by_renewing(self) -> None:
        directory = directory_of(registration(ttl_s=10))
        assert directory.handle(Renew("encoder", 108.0)) == []
        directory.handle(Tick(117.0))
        assert directory.service("encoder").expires_at == 118.0

    def test_renewing_without_a_lease_changes_nothing(self) -> None:
        directory = directory_of(registration())
        before = directory.service("encoder")
        assert directory.handle(Renew("encoder", 500.0)) == []
        assert directory.service("encoder") == before

    @pytest.mark.parametrize("event", [Renew("ghost", 1.0), Unregister("ghost")])
    def test_of_an_unknown_service_is_not_found(self, event: Any) -> None:
        with pytest.raises(NotFound, match="no service 'ghost'"):
            Directory().handle(event)


def test_unregister_forgets() -> None:
    directory = directory_of(registration())
    assert directory.handle(Unregister("encoder")) == [Delete("services", "encoder")]
    assert directory.services() == []


def test_find_gives_exact_matches_by_name() -> None:
    directory = directory_of(
        registration("b", capabilities=("fusion.embed", "fusion.choose")),
        registration("a", capabilities=("fusion.embed",)),
        registration("c", capabilities=("fusion.embedding",)),
    )
    assert [service.name for service in directory.find("fusion.embed")] == ["a", "b"]
    assert directory.find("fusion") == []


class TestRecovery:
    def test_gives_every_lease_its_full_length_again(self) -> None:
        rows: dict[str, Any] = {}
        before = Directory()
        kept(before.handle(Register(registration(ttl_s=10), at=100.0)), rows)
        kept(before.handle(Register(registration("stays"), at=100.0)), rows)
        after = Directory()
        assert after.handle(Recovered(rows, at=1000.0)) == []
        assert after.service("encoder").expires_at == 1010.0
        assert after.service("stays") == before.service("stays")

    def test_names_the_row_that_cannot_be_read(self) -> None:
        directory = directory_of(registration())
        with pytest.raises(CorruptData, match="'broken'"):
            directory.handle(Recovered({"broken": {"name": "broken"}}, at=1.0))
        assert [service.name for service in directory.services()] == ["encoder"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "a" * 101),
        ("name", "two words"),
        ("name", "nul\x00"),
        ("name", "line\n"),
        ("name", "\ud800"),
        ("name", 7),
        ("kind", "robot"),
        ("address", ""),
        ("address", "a" * 501),
        ("address", "tab\there"),
        ("capabilities", ("Fusion.Embed",)),
        ("capabilities", ("fusion..embed",)),
        ("capabilities", (".",)),
        ("capabilities", ("a", "a")),
        ("capabilities", tuple(f"c{number}" for number in range(51))),
        ("capabilities", "fusion.embed"),
        ("version", "\x1b[31m"),
        ("metadata", {"key with space": "x"}),
        ("metadata", {"key": "x" * 1001}),
        ("metadata", {"key": 1}),
        ("metadata", {f"k{number}": "" for number in range(51)}),
        ("ttl_s", 0),
        ("ttl_s", -5),
        ("ttl_s", float("nan")),
        ("ttl_s", 86_401),
        ("colour", "red"),
    ],
)
def test_wrong_registrations_are_refused_with_the_field(field: str, value: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        registration(**{field: value})
    assert caught.value.faults[0].field.split(".")[0] == field


names = st.sampled_from(["a", "b", "c", "d"])
steps = st.one_of(
    st.tuples(st.just("register"), names, st.sampled_from([None, 1.0, 5.0]), st.sampled_from(["", "2"])),
    st.tuples(st.just("renew"), names),
    st.tuples(st.just("unregister"), names),
    st.tuples(st.just("wait"), st.sampled_from([0.5, 1.0, 4.0, 5.0])),
    st.tuples(st.just("restart")),
)


@given(st.lists(steps, max_size=40))
def test_any_history_agrees_with_a_plain_model_and_with_what_was_kept(history: list[Any]) -> None:
    directory, now = Directory(limit=3), 0.0
    rows: dict[str, Any] = {}
    model: dict[str, Any] = {}

    def send(event: Any) -> bool:
        try:
            kept(directory.handle(event), rows)
        except (NotFound, LimitReached):
            return False
        return True

    for step in history:
        match step:
            case ("register", name, ttl, version):
                allowed = name in model or len(model) < 3
                assert send(Register(registration(name, ttl_s=ttl, version=version), now)) == allowed
                if allowed:
                    model[name] = (ttl, now)
            case ("renew", name):
                assert send(Renew(name, now)) == (name in model)
                if name in model:
                    model[name] = (model[name][0], now)
            case ("unregister", name):
                assert send(Unregister(name)) == (name in model)
                model.pop(name, None)
            case ("wait", seconds):
                now += seconds
                send(Tick(now))
                model = {n: (ttl, since) for n, (ttl, since) in model.items() if ttl is None or since + ttl > now}
            case _:
                directory = Directory(limit=3)
                send(Recovered(dict(rows), now))
                model = {n: (ttl, now) for n, (ttl, _) in model.items()}
        assert [service.name for service in directory.services()] == sorted(model) == sorted(rows)
        ends = {service.name: service.expires_at for service in directory.services()}
        assert ends == {n: None if ttl is None else since + ttl for n, (ttl, since) in model.items()}
