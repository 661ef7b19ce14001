"""The function finder's questions, the rules of indexes and the learned map."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noodle_ray.entry.bench.fusion.function_queries import (
    FIT,
    FUNCTIONS,
    TEST,
    VALIDATION,
    Fragments,
    Target,
    common_forms,
    form_of,
    is_telling,
    renamed,
    targets,
    variables_of,
    windows_of,
)
from noodle_ray.entry.code_map_training import HELD_BACK, fitted, mean_reciprocal_rank
from noodle_ray.errors import CorruptData, InvalidInput, NotFound
from noodle_ray.fusion.code_tokens import FIXED, shape_terms, tokens_of
from noodle_ray.fusion.index import Index
from noodle_ray.fusion.index_entry import Entry, Query
from noodle_ray.fusion.index_rules import fitted_rule, is_for_validation
from noodle_ray.fusion_models.code_map import SHIPPED, CodeMap, shipped_map


@pytest.fixture(scope="module")
def functions() -> tuple[Target, ...]:
    return targets()


def test_the_thousand_functions_differ_and_are_divided_as_documented(functions: tuple[Target, ...]) -> None:
    assert len(functions) == FUNCTIONS == len({target.key for target in functions})
    assert len({shape_terms(target.code).tobytes() for target in functions}) == FUNCTIONS
    parts = Counter(target.part for target in functions)
    assert 0.45 < parts[TEST] / FUNCTIONS < 0.55
    assert min(parts[FIT], parts[VALIDATION]) > 0.2 * FUNCTIONS
    assert targets() == functions


def test_names_are_masked(functions: tuple[Target, ...]) -> None:
    for target in functions:
        name = target.key.partition(".")[2].partition("#")[0]
        assert name not in {token.text for token in tokens_of(target.code) if token.kind == "name"}
        assert name in target.named_code


def test_three_lines_have_a_form_of_their_own(functions: tuple[Target, ...]) -> None:
    fragments = Fragments(3).of(functions)
    assert sum(fragment is None for fragment in fragments) < 0.1 * FUNCTIONS
    common = common_forms(functions)
    owners = Counter(form for target in functions for form in {form_of(window) for window in windows_of(target)})
    for target, fragment in zip(functions, fragments, strict=True):
        if fragment is not None:
            assert fragment in windows_of(target)
            assert owners[form_of(fragment)] == 1
            assert form_of(fragment) not in common


def test_renaming_keeps_the_form_and_changes_variables(functions: tuple[Target, ...]) -> None:
    plain, others = Fragments(3).of(functions), Fragments(3, renames=True).of(functions)
    changed = 0
    for target, before, after in zip(functions, plain, others, strict=True):
        if before is not None and after is not None:
            fixed = [FIXED & {token.text for token in tokens_of(each)} for each in (before, after)]
            # Some variables are called like another language's keywords, whose shapes are kept.
            assert form_of(after) == form_of(before) or fixed[0] != fixed[1]
            changed += before != after
            if not set(variables_of(target.code)) & {token.text for token in tokens_of(before)}:
                assert before == after
    assert changed > 0.9 * FUNCTIONS * 0.9


def test_gaps_and_single_lines(functions: tuple[Target, ...]) -> None:
    for target, whole, gap, line in zip(
        functions,
        Fragments(3).of(functions),
        Fragments(3, gap=True).of(functions),
        Fragments(1).of(functions),
        strict=True,
    ):
        if whole is not None:
            assert gap == "\n".join([whole.splitlines()[0], whole.splitlines()[2]])
        assert line is None or (line in target.code.splitlines() and is_telling(line))


def test_attributes_are_no_variables() -> None:
    target = Target("m.f#0", "", "def f(rows):\n    rows.rows = 1\n", "")
    after = renamed(target, "rows.rows = 1", ["rows"], [f"name{number}" for number in range(20)])
    assert after.endswith(".rows = 1")
    assert not after.startswith("rows")


@given(st.permutations(range(30)))
@settings(deadline=None)
def test_what_validates_does_not_depend_on_the_order(order: list[int]) -> None:
    asked = [(Query(f"question {number}"), str(number)) for number in range(30)]
    once = {answer: is_for_validation(query, answer) for query, answer in asked}
    again = {asked[place][1]: is_for_validation(*asked[place]) for place in order}
    assert once == again


def test_a_rule_is_fitted_on_ones_own_questions() -> None:
    index = Index(2)
    words = [f"word{number}" for number in range(40)]
    index.put([Entry(word, text=f"{word} and more") for word in words])
    rule = fitted_rule(index, [(Query(f"where is {word}"), word) for word in words])
    assert rule.fitted["entries"] == 40
    best = index.find(Query("where is word7"), rule)[0]
    assert best.entry.id == "word7"
    assert best.probability > 0.9
    with pytest.raises(InvalidInput, match="not in the index"):
        fitted_rule(index, [(Query("x"), "nobody")] * 30)
    with pytest.raises(InvalidInput, match="at least"):
        fitted_rule(index, [(Query("where is word1"), "word1")])


def test_the_map_learns_a_turn_and_survives_the_disk(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    texts = draw.normal(size=(HELD_BACK + 600, 8)).astype(np.float32)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    turn = np.linalg.qr(draw.normal(size=(8, 8)) + 2 * np.eye(8))[0].astype(np.float32)
    codes = texts @ turn
    learned = CodeMap(fitted(texts, codes, lambda line: None), "base/x")
    before = mean_reciprocal_rank(texts[-HELD_BACK:], codes[-HELD_BACK:])
    assert mean_reciprocal_rank(texts[-HELD_BACK:], learned(codes[-HELD_BACK:])) > before
    learned.save(tmp_path / "map.safetensors")
    loaded = CodeMap.load(tmp_path / "map.safetensors")
    np.testing.assert_allclose(loaded(codes[:9]), learned(codes[:9]), atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(loaded(codes[:9]), axis=1), 1.0, atol=1e-5)
    (tmp_path / "map.safetensors").write_bytes(b"nothing")
    with pytest.raises(CorruptData):
        CodeMap.load(tmp_path / "map.safetensors")


def test_the_shipped_map_is_for_its_own_weights_alone() -> None:
    shipped = CodeMap.load(SHIPPED)
    assert shipped.matrix.shape == (384, 384)
    assert shipped_map(shipped.encoder) is not None
    assert shipped_map("base/others") is None
    assert SHIPPED.with_suffix(".md").is_file()


def test_unknown_kinds_of_index_are_named() -> None:
    from noodle_ray.fusion.index_rules import shipped_rule

    with pytest.raises(NotFound, match="code, text"):
        shipped_rule("pictures")
