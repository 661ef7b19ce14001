"""Splits text into words: runs of letters and digits, case folded."""

from __future__ import annotations

import re

_WORD = re.compile(r"[^\W_]+")


def tokenize(text: str) -> list[str]:
    """The words of the text, in their order: "It's 3.5" gives ["it", "s", "3", "5"]."""
    return [match.group().casefold() for match in _WORD.finditer(text)]


def is_well() -> bool:
    return tokenize("One two") == ["one", "two"]
