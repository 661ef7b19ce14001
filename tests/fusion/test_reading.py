"""Readings: several of them as one, and the cache that remembers them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noodle_ray.fusion.reading import Reading, merged
from noodle_ray.fusion.reading_cache import ReadingCache, content_key


def reading(x: float, y: float, certainty: float = 1.0, seen: str = "s", **more: object) -> Reading:
    place = np.array([x, y], np.float32)
    return Reading("e/1", seen, certainty, place / np.linalg.norm(place), **more)  # type: ignore[arg-type]


def test_one_reading_is_itself() -> None:
    one = reading(1, 0)
    assert merged([one]) is one


def test_several_are_averaged() -> None:
    scores = [np.array([1.0, 3.0], np.float32), np.array([3.0, 5.0], np.float32)]
    one, other = (
        reading(x, y, seen=seen, scores=values, unlikeliness=values[0], features=values, sources={"words": values})
        for x, y, seen, values in ((1, 0, "a", scores[0]), (0, 1, "b", scores[1]))
    )
    together = merged([one, other])
    assert together.seen == "a; b"
    assert together.embedding is not None
    assert together.embedding == pytest.approx([2**-0.5, 2**-0.5])
    for values in (together.scores, together.features, together.sources["words"]):
        assert values == pytest.approx([2.0, 4.0])
    assert together.unlikeliness == pytest.approx(2.0)


def test_what_one_of_them_lacks_all_lack() -> None:
    together = merged([reading(1, 0, scores=np.zeros(2, np.float32)), reading(1, 0)])
    assert together.scores is None
    assert merged([reading(1, 0), Reading("e", "", 1.0, None)]).embedding is None


def test_opposites_leave_the_surest() -> None:
    together = merged([reading(1, 0, certainty=0.5), reading(-1, 0, certainty=0.5)])
    assert together.embedding is not None
    assert abs(together.embedding[0]) == 1.0


ITEMS = st.text(max_size=5) | st.binary(max_size=5)


@given(st.sets(st.tuples(ITEMS, st.none() | st.lists(st.text(max_size=3), max_size=3).map(tuple)), max_size=20))
def test_keys_differ_where_content_or_texts_do(asked: set[tuple[str | bytes, tuple[str, ...] | None]]) -> None:
    different = {(item.encode() if isinstance(item, str) else item, told) for item, told in asked}
    keys = {content_key("text", "1", item, told) for item, told in different}
    assert len(keys) == len(different)


def test_keys_differ_by_modality_and_version() -> None:
    keys = {content_key(*parts, "x") for parts in (("text", "1"), ("code", "1"), ("text", "2"))}
    assert len(keys) == 3


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 6))
def test_the_cache_keeps_within_its_bytes(numbers: list[int], room: int) -> None:
    one = reading(1, 0)
    cache = ReadingCache(room * one.nbytes)
    recent: list[int] = []
    for number in numbers:
        key = bytes([number])
        assert (cache.get(key) is not None) == (number in recent)
        cache.put(key, one)
        recent = [*(other for other in recent if other != number), number][-room:]
        assert len(cache) == len(recent)
        assert cache.nbytes == len(recent) * one.nbytes
