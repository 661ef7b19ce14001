"""A kept index: found by any subset, in one space, weighed by its rule, and the same after it was kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noodle_ray.errors import Conflict, CorruptData, InvalidInput, LimitReached, NotFound
from noodle_ray.fusion.catalogue import Listed, Listing, entries_of, outdated
from noodle_ray.fusion.fitting import Case
from noodle_ray.fusion.index_entry import Entry
from noodle_ray.fusion.indexing import completed, fitted_rule
from noodle_ray.fusion.inputs import MultimodalInput
from noodle_ray.fusion.reading import Reading
from noodle_ray.fusion.rule import Rule, SubsetRule
from noodle_ray.fusion.stored_index import ReadEntry, StoredIndex, info_of, version_of

WORDS = ("sort numbers", "count words", "draw a circle")


def unit(seed: int) -> Any:
    vector = np.random.default_rng(seed).normal(size=8)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def entry(number: int, name: str | None = None, space: str = "a") -> ReadEntry:
    words = WORDS[number % 3]
    code = f"def {words.replace(' ', '_')}(): ..."
    made = Entry(name or f"e{number}", words, code, embeddings={"text": unit(number)}, meta={"number": number})
    return ReadEntry(made, space)


def reading(seed: int, space: str = "a", seen: str = "") -> Reading:
    return Reading("e", seen, 1.0, unit(seed), space=space)


@pytest.fixture
def index() -> StoredIndex:
    stored = StoredIndex("toys", "code", 5)
    stored.put([entry(0), entry(1), entry(2)])
    return stored


def best(index: StoredIndex, request: MultimodalInput, **readings: Reading) -> str:
    probabilities = index.rule.posterior(index.search(request, readings))
    return index.names[int(probabilities.argmax())]


def test_an_entry_is_found_by_its_place_and_by_its_words(index: StoredIndex) -> None:
    assert best(index, MultimodalInput(text="anything"), text=reading(1)) == "e1"
    far = Reading("e", "", 1.0, None)
    assert best(index, MultimodalInput(text="a circle, please: draw it"), text=far) == "e2"
    assert best(index, MultimodalInput(code="def count_words(): ..."), code=far) == "e1"
    said = "well " * 30 + "sort some numbers"
    assert best(index, MultimodalInput(audio=b"x"), audio=Reading("e", said[:80], 1.0, None, transcript=said)) == "e0"
    assert index.meta(2) == {"number": 2} and index.texts == ()


def test_a_dense_index_compares_embeddings_alone() -> None:
    stored = StoredIndex("toys", "dense", 5)
    stored.put([entry(0), entry(1)])
    scores = stored.search(MultimodalInput(text="count words", code="x"), {"text": reading(0), "code": reading(1)})
    assert set(scores) == {"text:dense", "code:dense"}


def test_what_came_too_late_asks_nothing(index: StoredIndex) -> None:
    scores = index.search(MultimodalInput(text="count words", code="x = 1"), {"code": reading(1)})
    assert {source.partition(":")[0] for source in scores} == {"code"}


def test_what_a_session_remembers_is_one_more_source(index: StoredIndex) -> None:
    scores = index.search(MultimodalInput(text="it"), {"text": reading(7), "context": reading(2)})
    assert int(scores["context:dense"].argmax()) == 2
    index.with_rule(Rule(temperatures={"text:dense": 0.1}, fitted={"validated_on": 9}))
    assert index.rule.temperatures["context:dense"] == 0.05
    assert index.info().fitted == {"validated_on": 9}


def test_other_spaces_are_refused(index: StoredIndex) -> None:
    with pytest.raises(InvalidInput, match="space b, the index toys lies in a"):
        index.search(MultimodalInput(text="it"), {"text": reading(1, space="b")})
    with pytest.raises(Conflict, match="another space"):
        index.put([entry(3, space="b")])
    assert len(index) == 3
    index.remove(["e0", "e1", "e2", "ghost"])
    index.put([entry(3, space="b")])
    assert (index.names, index.space) == (["e3"], "b")


def test_an_empty_index_says_so() -> None:
    with pytest.raises(Conflict, match="empty"):
        StoredIndex("toys", "dense", 5).search(MultimodalInput(text="it"), {"text": reading(1)})


def test_bounds_and_kinds(index: StoredIndex) -> None:
    with pytest.raises(LimitReached, match="NOODLE_FUSION_INDEX_ENTRIES"):
        index.put([entry(number) for number in range(3, 7)])
    assert len(index) == 3
    with pytest.raises(InvalidInput, match="code, text, dense"):
        StoredIndex("toys", "wooden", 5)
    with pytest.raises(InvalidInput, match="no encoder places"):
        StoredIndex("toys", "dense", 5).put([ReadEntry(Entry("a", "words"))])
    with pytest.raises(NotFound):
        index.position("ghost")
    assert index.position("e2") == 2


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=15))
def test_any_history_leaves_what_a_new_index_would_have(history: list[tuple[bool, int]]) -> None:
    stored, plain = StoredIndex("toys", "code", 100), {}
    for puts, number in history:
        name = f"e{number}"
        if puts:
            stored.put([entry(number)])
        else:
            stored.remove([name])
        plain.pop(name, None)
        plain |= {name: number} if puts else {}
        assert stored.names == list(plain)
    kept = StoredIndex.from_bytes(stored.to_bytes(), 100)
    assert (kept.names, kept.kind, kept.space) == (stored.names, "code", stored.space)
    assert kept.to_bytes() == stored.to_bytes()
    assert info_of(stored.to_bytes()).entries == len(plain)
    if plain:
        request, read = MultimodalInput(text="count words"), {"text": reading(3)}
        fresh = StoredIndex("toys", "code", 100)
        fresh.put([entry(number) for number in plain.values()])
        for source, scores in fresh.search(request, read).items():
            assert np.allclose(stored.search(request, read)[source], scores)
            assert np.allclose(kept.search(request, read)[source], scores)


class TestKept:
    def test_every_damaged_byte_is_seen(self, index: StoredIndex) -> None:
        content = index.to_bytes()
        for place in range(0, len(content), 97):
            damaged = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
            with pytest.raises(CorruptData):
                StoredIndex.from_bytes(damaged, 5)

    @pytest.mark.parametrize("content", [b"", b"noodle", b"noodle-fusion-index 1 00\n", b"\xff" * 50])
    def test_foreign_bytes(self, content: bytes) -> None:
        with pytest.raises(CorruptData):
            StoredIndex.from_bytes(content, 5)
        with pytest.raises(CorruptData):
            info_of(content)

    def test_the_version_is_the_contents(self, index: StoredIndex) -> None:
        before = index.to_bytes()
        assert version_of(before) == version_of(StoredIndex.from_bytes(before, 5).to_bytes())
        index.with_rule(Rule(temperatures={"text:dense": 0.2}))
        assert version_of(index.to_bytes()) != version_of(before)
        assert StoredIndex.from_bytes(index.to_bytes(), 5).rule == index.rule


def test_a_rule_is_fitted_on_two_thirds_and_judged_on_the_rest(index: StoredIndex) -> None:
    request = MultimodalInput(text="count words")
    cases = [Case(index.search(request, {"text": reading(number % 3)}), number % 3) for number in range(12)]
    rule = fitted_rule(cases, Rule(temperatures={"text:dense": 50.0, "audio:dense": 0.3}))
    assert not rule.fitted["is_kept"]
    assert rule.temperatures["audio:dense"] == 0.3
    assert (rule.fitted["fitted_on"], rule.fitted["validated_on"]) == (8, 4)
    assert rule.fitted["modalities"] == ["text"]
    assert rule.fitted["accuracy_percent"] == 100.0


def test_a_rule_is_kept_where_no_other_does_better() -> None:
    """What little there is to fit on would have it claim too much."""
    draw = np.random.default_rng(0)
    cases = [Case({"text": draw.normal(size=20)}, int(draw.integers(20))) for _ in range(12)]
    kept = Rule(temperatures={"text": 1e3})
    rule = fitted_rule(cases, kept)
    assert rule.fitted["is_kept"] and rule.temperatures == kept.temperatures


def test_what_the_queries_do_not_show_is_weighed_as_before() -> None:
    before = Rule(
        temperatures={"text": 2.0, "audio": 3.0},
        subsets={"audio": SubsetRule(temperature=5.0), "text+audio": SubsetRule(temperature=7.0)},
    )
    rule = completed(Rule(temperatures={"text": 1.0}, subsets={"text": SubsetRule()}), before)
    assert rule.temperatures == {"text": 1.0, "audio": 3.0}
    assert rule.subsets == {"text": SubsetRule(), "audio": SubsetRule(temperature=5.0)}


class TestCatalogue:
    LISTING = Listing(2, (Listed("count-words", "2.0", "counts words", ("count(text) → int",)), Listed("draw", "1.0")))

    def modules(self, *entries: tuple[str, str]) -> StoredIndex:
        stored = StoredIndex("modules", "code", 9)
        if entries:
            stored.put(
                [
                    ReadEntry(Entry(name, name, embeddings={"text": unit(1)}, meta={"version": version}), "a")
                    for name, version in entries
                ]
            )
        return stored

    def test_only_what_is_new_is_read(self) -> None:
        change = outdated(self.modules(("count-words", "1.0"), ("draw", "1.0"), ("old", "3")), self.LISTING, "a")
        assert change.gone == ("old",)
        assert [module.name for module in change.fresh] == ["count-words"]
        assert outdated(self.modules(("count-words", "2.0"), ("draw", "1.0")), self.LISTING, "a").fresh == ()

    def test_another_anchor_has_everything_read_anew(self) -> None:
        change = outdated(self.modules(("count-words", "2.0")), self.LISTING, "b")
        assert change.gone == ("count-words",) and len(change.fresh) == 2
        assert len(outdated(self.modules(), self.LISTING, "b").fresh) == 2

    def test_modules_as_entries(self) -> None:
        words, draw = entries_of(self.LISTING.modules, {"draw": "def draw():\n    'a \0'", "count-words": "x = 1"})
        assert words.text == ("count words: counts words\ncount(text) → int",) and words.code == ("x = 1",)
        assert words.meta == {"version": "2.0", "description": "counts words"}
        assert draw.text == ("draw",) and draw.code == ()

    @given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=50))
    def test_any_module_is_an_entry(self, description: str, code: str, offer: str) -> None:
        (entry,) = entries_of([Listed("m", "1", description, (offer,))], {"m": code})
        assert entry.name == "m" and entry.text[0].startswith("m")
