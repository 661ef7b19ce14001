"""Texts and code: what is Unicode of a bounded length comes through unchanged, and nothing else does."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noodle_ray.errors import InvalidInput, TooLarge
from noodle_ray.fusion.plain_text import MAX_CONTROL_SHARE, control_share, read_text

PRINTABLE = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufeff\ufffd"), min_size=1)


@given(PRINTABLE.filter(str.strip), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
def test_unicode_comes_through_from_strings_and_files(text: str, encoding: str) -> None:
    assert read_text("text", text, 10_000) == text
    assert read_text("text", text.encode(encoding), 10_000) == text


def test_what_is_new_in_unicode_is_text() -> None:
    assert read_text("text", "\U0001faf8\U0001cc00", 10) == "\U0001faf8\U0001cc00"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"caf\xe9", "is no text in UTF-8: unexpected end of data at byte 3"),
        (b"\xff\xfea", "is no text in UTF-16-LE"),
        (b"\xfe\xff\xd8\x00", "is no text in UTF-16-BE"),
        (b"a\0", "NUL"),
        (b"", "more than spaces"),
    ],
)
def test_files_that_are_no_text(data: bytes, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        read_text("code", data, 100)


@pytest.mark.parametrize("content", ["é" * 11, "é".encode() * 11, b"x" * 1000, "a" * 11])
def test_what_is_too_long(content: str | bytes) -> None:
    with pytest.raises(TooLarge) as caught:
        read_text("code", content, 10)
    assert (caught.value.field, caught.value.limit, caught.value.unit) == ("code", 10, "characters")
    assert caught.value.size > 10


@given(st.integers(1, 200), st.integers(0, 200))
def test_a_few_control_characters_are_no_binary_file(letters: int, controls: int) -> None:
    text = "x" * letters + "\x02" * controls
    assert control_share(text) == controls / (letters + controls)
    if control_share(text) > MAX_CONTROL_SHARE:
        with pytest.raises(InvalidInput, match=r"code: .* binary data"):
            read_text("code", text, 1000)
    else:
        assert read_text("code", text, 1000) == text


def test_the_standard_library_is_code() -> None:
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    assert len(files) > 100
    for file in files:
        assert read_text("code", file.read_bytes(), 1_000_000)
