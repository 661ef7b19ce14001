"""Of what was heard, one cluster is chosen; where that cannot be, it is told why and what to do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noodle_ray.errors import Conflict, InvalidInput, NotFound, Unauthorized
from noodle_ray.nodes.announcement import Announcement, Versions
from noodle_ray.nodes.discovery import (
    GONE_S,
    MAX_AGE_S,
    MAX_AHEAD_S,
    Heard,
    Judged,
    choose,
    ignored,
    verify,
    verify_all,
)

TOKEN, OTHER = "t" * 43, "o" * 43
NOW = 1_700_000_000
VERSIONS = Versions(noodle_ray="0.1.0", ray="2.60.0", python="3.11.7")


def heard(
    name: str = "lab", address: str = "10.1.2.3:6379", issued_at: int = NOW, token: str = TOKEN, instance: str = "x"
) -> Heard:
    announcement = Announcement(name=name, address=address, versions=VERSIONS, issued_at=issued_at)
    return Heard(instance, {**announcement.sign(token)})


def judged(*all_heard: Heard) -> list[Judged]:
    return verify_all(all_heard, TOKEN, NOW)[0]


@pytest.mark.parametrize(
    ("age_s", "standing"),
    [
        (0, "ours"),
        (MAX_AGE_S, "ours"),
        (MAX_AGE_S + 1, "too old"),
        (-MAX_AHEAD_S, "ours"),
        (-MAX_AHEAD_S - 1, "from the future"),
    ],
)
def test_an_announcement_is_believed_for_some_minutes(age_s: int, standing: str) -> None:
    one = verify(heard(issued_at=NOW - age_s), TOKEN, NOW)
    assert (one.standing, one.age_s) == (standing, age_s)


def test_one_with_another_token_is_nobodys_whatever_its_time() -> None:
    for age_s in (0, 10**6, -(10**6)):
        assert verify(heard(issued_at=NOW - age_s, token=OTHER), TOKEN, NOW).standing == "another token"


def test_what_is_no_announcement_is_told_apart() -> None:
    ours, faults = verify_all([Heard("a", {}), heard(), Heard("b", {b"v": b"2"})], TOKEN, NOW)
    assert [one.announcement.name for one in ours] == ["lab"]
    assert len(faults) == 2
    with pytest.raises(InvalidInput, match="announcement: v: must be 1"):
        verify(Heard("a", {}), TOKEN, NOW)


def test_the_only_one_is_chosen_with_and_without_its_name() -> None:
    all_heard = judged(heard(), heard("lab", "10.6.6.6:1", token=OTHER), heard("other", "10.6.6.6:1", token=OTHER))
    assert choose(all_heard).address == choose(all_heard, "lab").address == "10.1.2.3:6379"


def test_several_are_told_apart_by_name() -> None:
    two = judged(heard("lab", "10.1.1.1:1"), heard("prod", "10.1.1.2:1"))
    assert choose(two, "lab").address == "10.1.1.1:1"
    assert choose(two, "prod").address == "10.1.1.2:1"
    with pytest.raises(InvalidInput, match=r"name: several clusters are announced here, choose one of lab, prod"):
        choose(two)


def test_one_that_was_not_heard_is_told_with_those_that_were() -> None:
    all_heard = judged(heard("lab"), heard("prod", token=OTHER), heard("prod", "10.6.6.6:1", token=OTHER))
    with pytest.raises(NotFound) as caught:
        choose(all_heard, "pord")
    assert caught.value.message == "no cluster 'pord'; known: lab, prod (2 with another token, ignored)"
    with pytest.raises(NotFound, match="no cluster 'on this network'"):
        choose([])


@pytest.mark.parametrize("name", [None, "lab"])
def test_another_token_is_told(name: str | None) -> None:
    with pytest.raises(Unauthorized, match=r"lab at 10\.1\.2\.3:6379 is signed with another token than this host's"):
        choose(judged(heard(token=OTHER)), name)


@pytest.mark.parametrize(
    ("age_s", "said"), [(1020, "17 minutes ago by this host's"), (-600, "10 minutes in the future by this host's")]
)
def test_clocks_that_differ_and_old_recordings_are_told(age_s: int, said: str) -> None:
    with pytest.raises(Conflict, match=f"was signed {said} clock: set the clocks of both hosts; if they are right"):
        choose(judged(heard(issued_at=NOW - age_s), heard(token=OTHER)))


def test_the_newest_of_one_head_counts() -> None:
    again = judged(heard(issued_at=NOW - 60), heard(issued_at=NOW), heard(issued_at=NOW - 120))
    assert choose(again).issued_at == NOW


def test_a_head_that_has_moved_is_found_where_it_is_now() -> None:
    moved = judged(heard(address="10.1.1.1:1", issued_at=NOW - GONE_S), heard(address="10.1.1.2:1"))
    assert choose(moved).address == "10.1.1.2:1"


def test_two_heads_of_one_name_are_a_conflict() -> None:
    two = judged(heard(address="10.1.1.1:1", issued_at=NOW - GONE_S + 1), heard(address="10.1.1.2:1"))
    with pytest.raises(Conflict, match=r"heads at 10\.1\.1\.1:1, 10\.1\.1\.2:1 announce the same cluster lab"):
        choose(two)


def test_a_crowd_makes_no_long_message() -> None:
    crowd = judged(*[heard(f"c{number}", token=OTHER) for number in range(1000)])
    with pytest.raises(Unauthorized, match="and 980 more") as caught:
        choose(crowd)
    assert len(str(caught.value)) < 2000
    with pytest.raises(NotFound) as missed:
        choose(crowd, "lab")
    assert len(str(missed.value)) < 2000


def test_what_is_ignored_is_told_in_a_few_lines() -> None:
    all_heard, faults = verify_all([heard(), heard(token=OTHER), Heard("a", {}), Heard("b", {})], TOKEN, NOW)
    foreign, unread = ignored(all_heard, faults)
    assert foreign == "ignored: lab at 10.1.2.3:6379 is signed with another token than this host's"
    assert unread == f"ignored: 2 that cannot be read; the first: {faults[0]}"
    crowd = judged(*[heard(f"c{number}", token=OTHER) for number in range(100)])
    assert len(ignored(crowd, [])) == 21
    assert ignored(crowd, [])[-1] == "ignored: 80 more"
    assert ignored(judged(heard()), []) == []
    assert str(judged(heard())[0]) == "lab at 10.1.2.3:6379"


SOME = st.lists(
    st.builds(
        heard,
        name=st.sampled_from(["a", "b"]),
        address=st.sampled_from(["10.1.1.1:1", "10.1.1.2:1"]),
        issued_at=st.integers(NOW - 600, NOW + 600),
        token=st.sampled_from([TOKEN, OTHER]),
    ),
    max_size=6,
)


@given(SOME, st.sampled_from([None, "a", "b", "c"]))
def test_what_is_chosen_is_ours_and_asked_for_and_the_newest(all_heard: list[Heard], name: str | None) -> None:
    ours = [one for one in judged(*all_heard) if one.standing == "ours"]
    try:
        chosen = choose(judged(*all_heard), name)
    except (NotFound, Conflict, InvalidInput, Unauthorized):
        return
    assert chosen in [one.announcement for one in ours]
    assert name in (None, chosen.name)
    assert chosen.issued_at == max(one.announcement.issued_at for one in ours if one.announcement.name == chosen.name)


@given(SOME, st.sampled_from([None, "a", "b", "c"]))
def test_what_others_say_changes_nothing(all_heard: list[Heard], name: str | None) -> None:
    """Announcements with another token neither get anybody in nor keep anybody out."""
    ours = [one for one in judged(*all_heard) if one.standing != "another token"]
    try:
        chosen = choose(ours, name)
    except (NotFound, Conflict, InvalidInput) as error:
        with pytest.raises((type(error), Unauthorized)):
            choose(judged(*all_heard), name)
    else:
        assert choose(judged(*all_heard), name) == chosen
