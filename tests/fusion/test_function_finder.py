"""The function finder's questions, the rules of indexes and the learned map."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

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
from noodle_ray.entry.training.code_map_training import HELD_BACK, fitted, mean_reciprocal_rank
from noodle_ray.errors import CorruptData, NotFound
from noodle_ray.fusion.code_tokens import shape_terms, tokens_of
from noodle_ray.fusion.index_rules import KINDS, shipped_rule
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


def test_renaming_changes_variables_alone_and_each_to_one_name(functions: tuple[Target, ...]) -> None:
    plain, others = Fragments(3).of(functions), Fragments(3, renames=True).of(functions)
    changed = 0
    for target, before, after in zip(functions, plain, others, strict=True):
        if before is not None and after is not None:
            pairs = list(zip(tokens_of(before), tokens_of(after), strict=True))
            different = {(old.text, new.text) for old, new in pairs if old != new}
            assert {old for old, _ in different} <= set(variables_of(target.code))
            assert len({old for old, _ in different}) == len({new for _, new in different}) == len(different)
            changed += bool(different)
    assert changed > 0.8 * FUNCTIONS


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


def test_indexes_come_with_rules_that_tell_what_they_were_fitted_on() -> None:
    for kind in KINDS:
        rule = shipped_rule(kind)
        assert {"text", "audio", "code", "text+code", "text+audio+code"} <= set(rule.subsets)
        assert rule.fitted["entries"] == FUNCTIONS
    with pytest.raises(NotFound, match="code, text"):
        shipped_rule("pictures")
