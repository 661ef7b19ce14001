"""The named index: exact whatever its history, bounded, saved and loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from noodle_ray.errors import CorruptData, InvalidInput, LimitReached, NotFound
from noodle_ray.fusion import limits
from noodle_ray.fusion.index import Index
from noodle_ray.fusion.index_entry import Entry, Query
from noodle_ray.fusion.index_file import from_bytes, load_index, save_index, to_bytes
from noodle_ray.fusion.reading import Vector
from noodle_ray.fusion.rule import Rule

WIDTH = 4
CODES = ("x = f(y)", "for a in b:\n    print(a)", "return self.rows[key]", "a = b + a", "")
TEXTS = ("sorts the rows", "prints every row", "a picture of a cat", "rows", "")


def unit(seed: int) -> Vector:
    vector = np.random.default_rng(seed).normal(size=WIDTH)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def entry(name: str, kind: int) -> Entry:
    """An entry of one of many kinds: with and without text, code and embeddings."""
    fields = [field for place, field in enumerate(("text", "code", "image")) if kind >> place & 1] or ["text"]
    embeddings = {field: unit(kind + len(field)) for field in fields}
    return Entry(name, TEXTS[kind % 5], CODES[kind % 4], (), embeddings, {"kind": kind})


QUERIES = (
    Query("rows that are printed", "for c in d:\n    print(c)", "rose of cats", {"text": unit(1), "code": unit(2)}),
    Query(code="x = f(y)"),
    Query(embeddings={"vision": unit(3)}),
    Query(transcript="nothing of the kind"),
)


def anew(entries: Sequence[Entry]) -> Index:
    index = Index(WIDTH)
    index.put(entries)
    return index


def assert_same(index: Index, other: Index) -> None:
    assert [each.id for each in index] == [each.id for each in other]
    for query in QUERIES:
        ours, theirs = index.search(query), other.search(query)
        assert ours.keys() == theirs.keys()
        for source, scores in ours.items():
            assert scores.shape == (len(index),)
            np.testing.assert_allclose(scores, theirs[source], rtol=1e-6, atol=1e-6)


class History(RuleBasedStateMachine):
    """Whatever is put and removed, the index is the one that is built anew from what is left."""

    def __init__(self) -> None:
        super().__init__()
        self.index, self.model = Index(WIDTH), dict[str, Entry]()

    @rule(names=st.lists(st.sampled_from("abcdefghijkl"), unique=True, max_size=6), kind=st.integers(0, 30))
    def put(self, names: list[str], kind: int) -> None:
        entries = [entry(name, kind + place) for place, name in enumerate(names)]
        self.index.put(entries)
        for each in entries:
            self.model.pop(each.id, None)
            self.model[each.id] = each

    @rule(places=st.sets(st.integers(0, 11), max_size=5))
    def remove(self, places: set[int]) -> None:
        names = [name for place, name in enumerate(self.model) if place in places]
        self.index.remove(names)
        for name in names:
            del self.model[name]

    @rule()
    def save_and_load(self) -> None:
        self.index = from_bytes(to_bytes(self.index))

    @invariant()
    def is_as_if_built_anew(self) -> None:
        assert len(self.index) == len(self.model)
        assert_same(self.index, anew(list(self.model.values())))


TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)


def test_the_best_come_first_and_equals_in_their_order() -> None:
    index = anew([entry(name, 0) for name in "dcba"])
    found = index.find(QUERIES[1], Rule(), most=3)
    assert [each.entry.id for each in found] == ["d", "c", "b"]
    assert found[0].probability == pytest.approx(0.25)
    assert found[0].entry.meta == {"kind": 0}
    assert Index(WIDTH).find(QUERIES[1], Rule()) == []


def test_code_is_found_by_a_renamed_fragment() -> None:
    index = anew([entry(str(kind), kind) for kind in range(4)])
    scores = index.search(Query(code="this_one = another + this_one"))
    assert {"code:words", "code:literal", "code:outline", "code:shape"} == set(scores)
    assert int(scores["code:shape"].argmax()) == int(scores["code:outline"].argmax()) == 3


def test_dense_evidence_takes_the_nearest_field_and_knows_who_has_none() -> None:
    near, far = unit(1), unit(2)
    index = anew(
        [
            Entry("both", embeddings={"text": far, "code": near}),
            Entry("one", embeddings={"text": far}),
            Entry("none", text="words alone"),
        ]
    )
    scores = index.search(Query(embeddings={"text": near}))["text:dense"]
    assert scores[0] == pytest.approx(1.0)
    assert scores[1] == scores[2] == pytest.approx(float(near @ far))


@given(st.binary(max_size=40), st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_damage_is_noticed(bytes_there: bytes, place: int) -> None:
    whole = SAVED
    place %= len(whole)
    damaged = whole[:place] + bytes_there + whole[place + len(bytes_there) :]
    for data in (damaged, whole[:place], bytes_there):
        if data != whole:
            with pytest.raises(CorruptData):
                from_bytes(data)


SAVED = to_bytes(anew([entry(name, place) for place, name in enumerate("abcde")]))


def test_files(tmp_path: Path) -> None:
    index = anew([entry("a", 3), entry("b", 5)])
    save_index(index, tmp_path / "mine.index")
    assert_same(load_index(tmp_path / "mine.index"), index)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.index"]
    with pytest.raises(NotFound, match="mine2"):
        load_index(tmp_path / "mine2.index")
    with pytest.raises(LimitReached):
        load_index(tmp_path / "mine.index", most=1)


def test_newer_formats_are_refused_by_name() -> None:
    with pytest.raises(CorruptData, match="format 2"):
        from_bytes(SAVED.replace(b"noodle-index 1", b"noodle-index 2", 1))


def test_bounds_are_kept_and_nothing_is_half_done() -> None:
    index = Index(WIDTH, most=2)
    index.put([entry("a", 0), entry("b", 1)])
    with pytest.raises(LimitReached):
        index.put([entry("a", 0), entry("c", 1)])
    index.put([entry("a", 2)])
    assert [each.id for each in index] == ["b", "a"]
    with pytest.raises(NotFound):
        index.remove(["a", "x"])
    assert len(index) == 2
    assert "a" in index
    assert index["a"].meta == {"kind": 2}


@pytest.mark.parametrize(
    ("faulty", "field"),
    [
        (Entry("", text="x"), "id"),
        (Entry("a"), "entry"),
        (Entry("a", text="x" * (limits.TEXT_CHARACTERS + 1)), "text"),
        (Entry("a", embeddings={"text": np.ones(WIDTH, np.float32)}), "embeddings.text"),
        (Entry("a", embeddings={"text": np.full(WIDTH, np.nan, np.float32)}), "embeddings.text"),
        (Entry("a", embeddings={"text": unit(1)[:3]}), "embeddings.text"),
        (Entry("a", embeddings={"smell": unit(1)}), "embeddings.smell"),
        (Entry("a", text="x", meta={"x": object()}), "meta"),
        (Entry("a", text="x", meta={"x": float("nan")}), "meta"),
    ],
)
def test_faulty_entries_are_refused_with_the_field(faulty: Entry, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Index(WIDTH).put([faulty])
    assert field in [fault.field for fault in caught.value.faults]


def test_faulty_questions_are_refused() -> None:
    index = anew([entry("a", 0)])
    for query in (Query(), Query(embeddings={"image": unit(1)}), Query(embeddings={"text": unit(1)[:2]})):
        with pytest.raises(InvalidInput):
            index.search(query)
    with pytest.raises(InvalidInput, match="different"):
        index.put([entry("b", 0), entry("b", 1)])
