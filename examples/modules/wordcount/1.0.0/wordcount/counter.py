"""Counts words."""

from __future__ import annotations

from collections import Counter

from tokenizer.words import tokenize

VERSION = "1.0.0"


class WordCount:
    """Counts the words of one text at a time."""

    def count(self, text: str) -> dict[str, int]:
        """How often each word occurs, the most frequent first, then by name."""
        counts = Counter(tokenize(text))
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def version(self) -> str:
        return VERSION

    def is_well(self) -> bool:
        return self.count("b a a") == {"a": 2, "b": 1}
