"""Texts and code as they come in: Unicode of a bounded length, and no binary file in disguise."""

from __future__ import annotations

import codecs
import unicodedata

from noodle_ray.errors import InvalidInput, TooLarge

MAX_CONTROL_SHARE = 0.05
"""Of the characters; above it is no text. Python's own sources have at most .0001, most binary files .08 and more."""

_HARMLESS_CONTROLS = "\t\n\v\f\r\x1b"
"""White space of sources, and what begins a colour in a terminal's output."""
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""What decoders put where there was no text."""
_BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_LONGEST_CHARACTER_BYTES = 4


def read_text(field: str, content: str | bytes, max_characters: int) -> str:
    """The text of a string, or of a file in UTF-8 (or UTF-16 with its mark), without its byte order mark.

    Raises TooLarge, or InvalidInput for what is empty or no text: NUL characters, lone surrogates, binary data.
    """
    text = content if isinstance(content, str) else _decoded(field, content, max_characters)
    text = text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
    if len(text) > max_characters:
        raise TooLarge(field, len(text), max_characters, "characters")
    if problem := _problem(text):
        raise InvalidInput.of(field, problem)
    return text


def _decoded(field: str, data: bytes, max_characters: int) -> str:
    # A file too long in any encoding: what its length in characters is need not be found out.
    if len(data) > (max_characters + 1) * _LONGEST_CHARACTER_BYTES:
        raise TooLarge(field, len(data) // _LONGEST_CHARACTER_BYTES, max_characters, "characters")
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        problem = f"is no text in {encoding.upper()}: {error.reason} at byte {error.start}"
        raise InvalidInput.of(field, problem) from None


def _problem(text: str) -> str:
    if not text or text.isspace():
        return "must hold more than spaces"
    if "\0" in text:
        return "must not hold NUL characters"
    if text.isascii() and text.isprintable():
        return ""
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "must not hold lone surrogates: it is no Unicode text"
    if control_share(text) > MAX_CONTROL_SHARE:
        return "holds so many control or replacement characters that it is no text but binary data"
    return ""


def control_share(text: str) -> float:
    """Which share of the characters is not what texts hold: controls, and what replaced unreadable bytes.

    White space and escape characters do not count. Unassigned ones do not either: Unicode grows faster than Python.
    """
    counts = sum(
        text.count(character) for character in set(text) if character not in _HARMLESS_CONTROLS and _odd(character)
    )
    return counts / max(len(text), 1)


def _odd(character: str) -> bool:
    return character == _REPLACEMENT or unicodedata.category(character) == "Cc"
