"""Counts words that carry meaning."""

from __future__ import annotations

from collections import Counter

from tokenizer.words import tokenize

from wordcount.stop_words import STOP_WORDS

VERSION = "2.0.0"


class WordCount:
    """Counts the words of one text at a time, without those that occur everywhere."""

    def count(self, text: str) -> dict[str, int]:
        """How often each word occurs, the most frequent first, then by name; stop words are left out."""
        counts = Counter(word for word in tokenize(text) if word not in STOP_WORDS)
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def top(self, text: str, k: int = 3) -> list[tuple[str, int]]:
        """The `k` most frequent words with their counts. Raises ValueError where k is less than 1."""
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        return list(self.count(text).items())[:k]

    def version(self) -> str:
        return VERSION

    def is_well(self) -> bool:
        return self.top("the cat and the cat's cat", k=1) == [("cat", 2)]
