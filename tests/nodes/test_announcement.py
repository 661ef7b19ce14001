"""Announcements are believed only where they are whole, signed with this token, and of about now."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noodle_ray.errors import InvalidInput
from noodle_ray.nodes.announcement import Announcement, Versions, read

TOKEN, OTHER = "t" * 43, "o" * 43
HERE = Versions(noodle_ray="0.1.0", ray="2.60.0", python="3.11.7")
LAB = Announcement(
    name="lab", address="10.1.2.3:6379", gateway_url="http://10.1.2.3:8000", versions=HERE, issued_at=1_700_000_000
)

NAMES = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?", fullmatch=True)
HOSTS = st.tuples(st.integers(1, 126), *[st.integers(0, 255)] * 3).map(lambda parts: ".".join(map(str, parts)))
ADDRESSES = st.builds("{}:{}".format, HOSTS, st.integers(1, 65535))
VERSION = st.from_regex(r"[0-9A-Za-z.+!_-]{1,60}", fullmatch=True)
ANNOUNCEMENTS = st.builds(
    Announcement,
    name=NAMES,
    address=ADDRESSES,
    gateway_url=st.just("") | ADDRESSES.map("http://{}".format) | ADDRESSES.map("https://{}".format),
    versions=st.builds(Versions, noodle_ray=VERSION, ray=VERSION, python=VERSION),
    issued_at=st.integers(0, 10**11 - 1),
)


@given(ANNOUNCEMENTS)
def test_one_is_read_back_and_fits_its_token_only(announcement: Announcement) -> None:
    signed = read(announcement.sign(TOKEN))
    assert signed.announcement == announcement
    assert signed.fits(TOKEN)
    assert not signed.fits(OTHER)
    assert not signed.fits(TOKEN[:31])


@given(ANNOUNCEMENTS)
def test_one_has_room_in_a_dns_record(announcement: Announcement) -> None:
    properties = announcement.sign(TOKEN)
    assert max(len(key) + 1 + len(value) for key, value in properties.items()) <= 255
    assert sum(len(key) + 2 + len(value) for key, value in properties.items()) < 1000


def is_believed(properties: dict[bytes, bytes | None]) -> bool:
    try:
        return read(properties).fits(TOKEN)
    except InvalidInput:
        return False


SIGNED: dict[bytes, bytes | None] = {**LAB.sign(TOKEN)}
assert is_believed(SIGNED)


@given(key=st.sampled_from(sorted(SIGNED)), place=st.integers(0, 80), byte=st.integers(1, 255))
def test_a_changed_byte_is_noticed(key: bytes, place: int, byte: int) -> None:
    value = bytearray(SIGNED[key] or b"")
    if value:
        value[place % len(value)] ^= byte
        assert not is_believed({**SIGNED, key: bytes(value)})


@given(key=st.sampled_from(sorted(SIGNED)), value=st.none() | st.binary(max_size=80))
def test_a_changed_field_is_noticed(key: bytes, value: bytes | None) -> None:
    assert is_believed({**SIGNED, key: value}) == (value == SIGNED[key])


@given(ANNOUNCEMENTS, st.sampled_from(sorted(set(SIGNED) - {b"mac", b"v"})))
def test_a_field_of_another_announcement_is_noticed(other: Announcement, key: bytes) -> None:
    theirs = other.sign(TOKEN)[key]
    assert is_believed({**SIGNED, key: theirs}) == (theirs == SIGNED[key])


@given(key=st.sampled_from(sorted(SIGNED)), more=st.binary(max_size=5))
def test_a_missing_or_an_added_field_is_noticed(key: bytes, more: bytes) -> None:
    assert not is_believed({name: value for name, value in SIGNED.items() if name != key})
    if more not in SIGNED:
        assert not is_believed({**SIGNED, more: b"1"})


def test_fields_do_not_run_into_each_other() -> None:
    one = LAB.model_copy(update={"versions": Versions(noodle_ray="1", ray="11", python="3")})
    other = LAB.model_copy(update={"versions": Versions(noodle_ray="11", ray="1", python="3")})
    assert one.sign(TOKEN)[b"mac"] != other.sign(TOKEN)[b"mac"]


KEYS = st.sampled_from(sorted(SIGNED)) | st.binary(max_size=5)
VALUES = st.none() | st.binary(max_size=255) | st.sampled_from(sorted(value or b"" for value in SIGNED.values()))


@given(st.dictionaries(KEYS, VALUES) | st.dictionaries(KEYS, VALUES).map(lambda few: {**SIGNED, **few}))
def test_hostile_records_raise_nothing_but_our_error(properties: dict[bytes, bytes | None]) -> None:
    try:
        read(properties).fits(TOKEN)
    except InvalidInput as error:
        assert str(error).startswith("invalid ")
        assert str(error).isprintable()  # nothing that a terminal would obey


@pytest.mark.parametrize(
    ("field", "value", "fault"),
    [
        ("name", "", "name: must be 1 to 63 letters"),
        ("name", "a.b", "name: must be 1 to 63 letters"),
        ("name", "-a", "name: must be 1 to 63 letters"),
        ("name", "a" * 64, "name: must be 1 to 63 letters"),
        ("name", "lab\n", "name: must be 1 to 63 letters"),
        ("address", "head:6379", "address: must be IPV4:PORT"),
        ("address", "127.0.0.2:6379", "address: must be IPV4:PORT"),
        ("address", "0.0.0.0:6379", "address: must be IPV4:PORT"),
        ("address", "224.0.0.251:6379", "address: must be IPV4:PORT"),
        ("address", "10.1.2.3:65536", "address: must be IPV4:PORT"),
        ("address", "10.1.2.3", "address: must be IPV4:PORT"),
        ("gateway_url", "ftp://10.1.2.3:80", "gateway_url: must be http://"),
        ("gateway_url", "http://head:80", "gateway_url: must be IPV4:PORT"),
        ("issued_at", -1, "issued_at: "),
    ],
)
def test_what_is_wrong_is_told(field: str, value: object, fault: str) -> None:
    with pytest.raises(InvalidInput, match=fault):
        Announcement.parse({**dict(LAB), field: value})


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        (b"v", b"2", "v: must be 1: other versions"),
        (b"issued", b"01", "issued: must be seconds"),
        (b"name", b"\x1b[2J", "name: must be printable"),
        (b"ray", None, "ray: has no value"),
        (b"python", b"", "versions.python: "),
        (b"more", b"", "announcement: may have no fields but address, gateway,"),
    ],
)
def test_what_cannot_be_read_is_told(key: bytes, value: bytes | None, fault: str) -> None:
    with pytest.raises(InvalidInput, match=fault):
        read({**SIGNED, key: value})


def test_nothing_is_signed_with_a_short_token() -> None:
    with pytest.raises(InvalidInput, match="token: must be at least 32 random characters") as caught:
        LAB.sign("thought-up-by-somebody")
    assert "thought-up" not in str(caught.value)


def test_the_signature_is_of_a_key_of_its_own() -> None:
    """Known answer: the derivation may not change without another format."""
    assert LAB.sign(TOKEN)[b"mac"] == b"cb9f6b3f57bcd7c5871752d6171d85bc23b2cd28a46b22ef1824998666cc5f13"


def test_one_is_issued_anew() -> None:
    later = LAB.issued(1_700_000_060.7)
    assert later == LAB.model_copy(update={"issued_at": 1_700_000_060})
    assert later.sign(TOKEN)[b"mac"] != LAB.sign(TOKEN)[b"mac"]


def test_hosts_with_other_versions_are_told_what_to_do() -> None:
    assert LAB.mismatch(HERE) == ""
    said = LAB.mismatch(HERE.model_copy(update={"ray": "2.59.1"}))
    assert "cluster lab runs noodle-ray 0.1.0, Ray 2.60.0 and Python 3.11.7" in said
    assert "here are noodle-ray 0.1.0, Ray 2.59.1 and Python 3.11.7: install here" in said
