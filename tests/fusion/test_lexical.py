"""BM25 against its formula, written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noodle_ray.fusion.code_tokens import terms_of
from noodle_ray.fusion.lexical import Document, Postings, Weighting

WORDS = st.lists(st.sampled_from("abcdef"), max_size=12)


def by_the_formula(query: list[str], documents: list[list[str]], weighting: Weighting) -> list[float]:
    mean = max(sum(map(len, documents)) / len(documents), 1e-9)
    scores = []
    for document in documents:
        total = 0.0
        for word in query:
            having = sum(word in other for other in documents)
            rarity = math.log(1 + (len(documents) - having + 0.5) / (having + 0.5))
            count = document.count(word)
            size = 1 - weighting.b + weighting.b * len(document) / mean
            if count:
                total += rarity * count * (weighting.k1 + 1) / (count + weighting.k1 * size)
        scores.append(total)
    return scores


@given(WORDS, st.lists(WORDS, min_size=1, max_size=8), st.floats(0.1, 3), st.floats(0, 1))
@settings(deadline=None)
def test_scores_are_those_of_the_formula(query: list[str], documents: list[list[str]], k1: float, b: float) -> None:
    weighting = Weighting(k1, b)
    postings = Postings()
    for number, document in enumerate(documents):
        postings.append([Document.of(terms_of(document))], np.ones(number, np.bool_))
    scores = postings.scores(Document.of(terms_of(query)), weighting, postings.everything)
    assert scores == pytest.approx(by_the_formula(query, documents, weighting))


def test_segments_stay_few() -> None:
    postings = Postings()
    for number in range(300):
        postings.append([Document.of(terms_of(["a", str(number)]))], np.ones(number, np.bool_))
    assert len(postings._segments) <= 1 + math.log2(300)
