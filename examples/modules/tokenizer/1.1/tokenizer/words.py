"""Splits text into words, case folded; contractions, hyphenated words and numbers stay whole."""

from __future__ import annotations

import re
import unicodedata

_WORD = re.compile(
    r"""
    \d+(?:[.,]\d+)*               # a number: 3.5 or 10,000
    | [^\W\d_]+(?:['-][^\W_]+)*   # letters, joined by apostrophes and hyphens: it's, well-known
    """,
    re.VERBOSE,
)


def tokenize(text: str) -> list[str]:
    """The words of the text, in their order: "It's 3.5" gives ["it's", "3.5"]."""
    plain = unicodedata.normalize("NFKC", text).replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    return [match.group().casefold() for match in _WORD.finditer(plain)]


def is_well() -> bool:
    return tokenize("It's 3.5 one-off") == ["it's", "3.5", "one-off"]
