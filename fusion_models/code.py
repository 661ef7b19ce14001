"""Code in the space of sentences: its identifiers, split into words, read like a sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence

from noodle_ray.errors import shorten
from noodle_ray.fusion.reading import Matrix, Reading
from noodle_ray.fusion_models.code_map import CodeMap
from noodle_ray.fusion_models.text import Sentences

_NAME = re.compile(r"[^\W_]+")
# Between aB, ABc, a1 and 1a.
_SEAM = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=\d)(?=\D)|(?<=\D)(?=\d)")


def words_of(code: str) -> str:
    """The words of a piece of code: `parse_HTTPDate(s2)` becomes "parse http date s 2".

    Punctuation and layout carry little for an encoder of sentences, and compound names are unknown to it.
    """
    words = [word.lower() for name in _NAME.findall(code) for word in _SEAM.split(name)]
    return " ".join(words) or code


class CodeEncoder:
    """Reads code with a sentence model.

    anchored: whether that is the model that candidates are placed with. learned: moves what it reads to where a
    sentence about it would lie; None leaves it in its place.
    """

    def __init__(self, model: Sentences, version: str, anchored: bool = True, learned: CodeMap | None = None) -> None:
        self._model, self._version, self._anchored, self._learned = model, version, anchored, learned
        self.scores_texts = not anchored

    def embed(self, codes: Sequence[str]) -> Matrix:
        """(n, width) unit vectors, in the order of the pieces of code."""
        placed = self._model.embed([words_of(code) for code in codes])
        return placed if self._learned is None else self._learned(placed)

    def encode(self, content: str, candidates: tuple[str, ...] = ()) -> Reading:
        if self._anchored:
            return self.encode_many([content])[0]
        words = words_of(content)
        vector = self.embed([content])[0]
        # In a space of its own, it places the candidates there too and scores them itself.
        scores = self._model.embed(candidates) @ vector / OWN_TEMPERATURE if candidates else None
        return Reading(self._version, shorten(words), 1.0, None, scores)

    def encode_many(self, contents: Sequence[str]) -> list[Reading]:
        """Several pieces in one pass, where it is anchored: as one by one, but for rounding (1e-5)."""
        pairs = zip(contents, self.embed(contents), strict=True)
        return [Reading(self._version, shorten(words_of(content)), 1.0, row) for content, row in pairs]


OWN_TEMPERATURE = 0.05
"""Sentence encoders are trained with cosines times 20."""
