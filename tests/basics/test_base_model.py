"""Values that cross a door are strict, immutable, and wrong in our own words."""

import pytest
from pydantic import ValidationError

from noodle_ray.base_model import Model
from noodle_ray.errors import InvalidInput


class Inner(Model):
    size: int


class Outer(Model):
    name: str
    inner: Inner


def test_faults_carry_the_full_path() -> None:
    with pytest.raises(InvalidInput) as caught:
        Outer.parse({"name": 3, "inner": {"size": "big", "colour": 1}})
    assert [fault.field for fault in caught.value.faults] == ["name", "inner.size", "inner.colour"]


def test_building_by_hand_raises_the_same() -> None:
    with pytest.raises(InvalidInput, match="invalid Outer: inner: Field required"):
        Outer(name="x")  # type: ignore[call-arg]


def test_what_is_no_object_is_refused() -> None:
    with pytest.raises(InvalidInput, match="input: Input should be"):
        Outer.parse(3)


def test_values_do_not_change() -> None:
    inner = Inner(size=1)
    with pytest.raises(ValidationError):
        inner.size = 2  # type: ignore[misc]


def test_json_and_back() -> None:
    outer = Outer(name="x", inner=Inner(size=1))
    assert outer.to_json() == {"name": "x", "inner": {"size": 1}}
    assert Outer.parse(outer.to_json()) == outer
