"""Remembers where candidate texts lie, the least recently used ones first to go."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import numpy as np

from noodle_ray.fusion.reading import Matrix, Vector


class CandidateCache:
    """At most `size` places of texts, by the version of the encoder that placed them."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._vectors: OrderedDict[tuple[str, str], Vector] = OrderedDict()
        self._spaces: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._vectors)

    def space(self, version: str) -> str:
        """The space into which that version places texts; "" before it placed any."""
        return self._spaces.get(version, "")

    def missing(self, version: str, texts: Sequence[str]) -> tuple[str, ...]:
        return tuple(text for text in texts if (version, text) not in self._vectors)

    def known(self, version: str, texts: Sequence[str]) -> dict[str, Vector]:
        """The places that are there; asking for one makes it the most recently used."""
        found = {text: self._vectors[version, text] for text in texts if (version, text) in self._vectors}
        for text in found:
            self._vectors.move_to_end((version, text))
        return found

    def put(self, version: str, space: str, vectors: Mapping[str, Vector]) -> None:
        self._spaces[version] = space
        for text, vector in vectors.items():
            self._vectors[version, text] = vector
            self._vectors.move_to_end((version, text))
        while len(self._vectors) > self._size:
            self._vectors.popitem(last=False)


def stacked(texts: Sequence[str], vectors: Mapping[str, Vector]) -> Matrix:
    """The texts' places as rows, in the texts' order; no rows for no texts."""
    return np.stack([vectors[text] for text in texts]) if texts else np.zeros((0, 0), np.float32)
