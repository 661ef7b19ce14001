"""Which address of several gateways is asked, first and second."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noodle_ray.entry.gateway_addresses import GatewayAddresses
from noodle_ray.errors import InvalidInput


def test_addresses_are_asked_in_turn() -> None:
    addresses = GatewayAddresses(["a/", "b", "c"])
    assert [addresses.first() for _ in range(4)] == ["a", "b", "c", "a"]
    assert addresses.second("c") == "a"


def test_one_that_failed_is_passed_over_until_it_answers() -> None:
    addresses = GatewayAddresses(["a", "b"])
    addresses.failed("a")
    assert [addresses.first() for _ in range(3)] == ["b"] * 3
    assert addresses.away == {"a"}
    addresses.answered("a")
    assert {addresses.first(), addresses.first()} == {"a", "b"}


def test_without_another_the_second_is_the_first() -> None:
    addresses = GatewayAddresses(["a", "b"])
    addresses.failed("a")
    assert addresses.second("b") == "b"
    assert GatewayAddresses(["only"]).second("only") == "only"


def test_another_one_that_is_there() -> None:
    addresses = GatewayAddresses(["a", "b", "c"])
    addresses.failed("b")
    assert [addresses.other(first) for first in "abc"] == ["c", "c", "a"]
    addresses.failed("c")
    assert [addresses.other(first) for first in "abc"] == [None, "a", "a"]
    assert GatewayAddresses(["only"]).other("only") is None


def test_where_all_are_away_the_second_is_another_one_all_the_same() -> None:
    addresses = GatewayAddresses(["a", "b"])
    addresses.failed("a")
    addresses.failed("b")
    assert addresses.second("a") == "b"


def test_where_all_are_away_they_have_their_turns() -> None:
    addresses = GatewayAddresses(["a", "b"])
    addresses.failed("a")
    addresses.failed("b")
    assert [addresses.first() for _ in range(3)] == ["a", "b", "a"]


def test_one_address_at_least() -> None:
    with pytest.raises(InvalidInput, match="addresses"):
        GatewayAddresses([])


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=20))
def test_nobody_is_asked_who_is_away_while_another_is_there(history: list[tuple[str, bool]]) -> None:
    addresses = GatewayAddresses("abc")
    for name, is_there in history:
        (addresses.answered if is_there else addresses.failed)(name)
        first = addresses.first()
        second = addresses.second(first)
        if len(addresses.away) < 3:
            assert first not in addresses.away
        if len({"a", "b", "c"} - addresses.away - {first}) > 0:
            assert second not in addresses.away | {first}
