"""Versions and constraints: order, equality, pre-releases, and what cannot be read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from noodle_ray.errors import InvalidInput
from noodle_ray.modules.versions import VersionConstraint, compare_versions, parse_version, read_constraint

versions = st.builds(
    lambda release, pre: ".".join(map(str, release)) + pre,
    st.lists(st.integers(0, 3), min_size=1, max_size=3),
    st.sampled_from(["", "", "", "rc1", ".post1", ".dev2"]),
)


@pytest.mark.parametrize(
    ("left", "right", "order"),
    [("1.0", "1.0.0", 0), ("1.9", "1.10", -1), ("2.0rc1", "2.0", -1), ("1!1.0", "9.9", 1), ("1.0.post1", "1.0", 1)],
)
def test_compare_follows_pep_440(left: str, right: str, order: int) -> None:
    assert compare_versions(left, right) == order
    assert compare_versions(right, left) == -order


@pytest.mark.parametrize(
    ("constraint", "version", "will_do"),
    [
        ("", "0.1", True),
        (">=1.2,<2", "1.2", True),
        (">=1.2,<2", "2.0", False),
        ("~=1.4", "1.9", True),
        ("~=1.4", "2.0", False),
        ("==1.*", "1.7", True),
        ("!=1.5", "1.5.0", False),
        (">=1", "2.0rc1", False),
        (">=2.0rc1", "2.0rc1", True),
    ],
)
def test_satisfies(constraint: str, version: str, will_do: bool) -> None:
    assert VersionConstraint.parse(constraint).satisfies(version) is will_do


def test_a_prerelease_will_do_where_it_is_said_to() -> None:
    assert VersionConstraint.parse(">=1").satisfies("2.0rc1", prereleases=True)


@given(versions, versions)
def test_bounds_agree_with_the_order(left: str, right: str) -> None:
    above = VersionConstraint.parse(f">={right}").satisfies(left, prereleases=True)
    assert above == (compare_versions(left, right) >= 0)


@given(st.lists(st.sampled_from([">=1", "<2", "!=1.5", "~=1.2", "==1.*"]), unique=True))
def test_text_reads_back_as_the_same_constraint(parts: list[str]) -> None:
    constraint = VersionConstraint.parse(",".join(parts))
    assert VersionConstraint.parse(str(constraint)) == constraint


def test_text_has_the_lower_bound_first() -> None:
    assert str(VersionConstraint.parse("<2, >=1.2")) == ">=1.2,<2"


@pytest.mark.parametrize(
    ("constraint", "version"), [("==1.2", "1.2"), ("==1.*", None), (">=1", None), ("", None), ("==1,<2", None)]
)
def test_pinned(constraint: str, version: str | None) -> None:
    assert VersionConstraint.parse(constraint).pinned == (Version(version) if version else None)


@pytest.mark.parametrize("text", ["", "one", "1.0-", "v", "1." * 200, "1.0\x00"])
def test_no_version(text: str) -> None:
    with pytest.raises(InvalidInput, match="version: must be a version"):
        parse_version(text)


@pytest.mark.parametrize("text", ["1.2", ">1,,<<2", "latest", ">=" + "1" * 300, "=>1"])
def test_no_constraint_names_the_field(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"requires\.b: must be a constraint"):
        VersionConstraint.parse(text, field="requires.b")


def test_arbitrary_equality_is_refused() -> None:
    with pytest.raises(ValueError, match='use "=="'):
        read_constraint("===1.0")
