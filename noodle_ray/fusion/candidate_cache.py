"""Remembers the embeddings of candidate texts, the least recently used ones first to go."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import numpy as np

from noodle_ray.fusion.reading import Matrix, Vector


class CandidateCache:
    """At most `size` embeddings by the text they belong to."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._vectors: OrderedDict[str, Vector] = OrderedDict()

    def __len__(self) -> int:
        return len(self._vectors)

    def missing(self, texts: Sequence[str]) -> tuple[str, ...]:
        return tuple(text for text in texts if text not in self._vectors)

    def known(self, texts: Sequence[str]) -> dict[str, Vector]:
        """The embeddings that are there; asking for one makes it the most recently used."""
        found = {text: self._vectors[text] for text in texts if text in self._vectors}
        for text in found:
            self._vectors.move_to_end(text)
        return found

    def put(self, vectors: Mapping[str, Vector]) -> None:
        for text, vector in vectors.items():
            self._vectors[text] = vector
            self._vectors.move_to_end(text)
        while len(self._vectors) > self._size:
            self._vectors.popitem(last=False)


def stacked(texts: Sequence[str], vectors: Mapping[str, Vector]) -> Matrix:
    """The texts' embeddings as rows, in the texts' order."""
    return np.stack([vectors[text] for text in texts])
