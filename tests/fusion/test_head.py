"""A head applied: the same numbers from memory and from disk, and readings of other encoders refused."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noodle_ray.errors import CorruptData, InvalidInput, NotFound
from noodle_ray.fusion.head import Head, HeadDescription, HeadSource, Layer, joined, known_heads, logits
from noodle_ray.fusion.head_card import card_of
from noodle_ray.fusion.reading import Reading
from noodle_ray.fusion.rule import Rule

LABELS = ("cat", "dog", "eel")


def layers(*widths: int, seed: int = 0) -> tuple[Layer, ...]:
    draw = np.random.default_rng(seed)
    return tuple(
        Layer(draw.normal(size=(outputs, inputs)).astype(np.float32), draw.normal(size=outputs).astype(np.float32))
        for inputs, outputs in pairwise(widths)
    )


def head(name: str = "animals", hidden: int = 4) -> Head:
    sources = {
        "text": HeadSource(encoder="base/t", parts=("embedding",), width=5),
        "vision": HeadSource(encoder="base/v", parts=("features", "embedding"), width=8),
    }
    description = HeadDescription(name=name, labels=LABELS, sources=sources, rule=Rule(temperatures={"text": 2.0}))
    return Head(description, {"text": layers(5, 3), "vision": layers(8, hidden, 3)})


def reading(encoder: str, embedding: int = 5, features: int | None = None, seed: int = 1) -> Reading:
    draw = np.random.default_rng(seed)
    own = None if features is None else draw.normal(size=features).astype(np.float32)
    return Reading(encoder, "", 1.0, draw.normal(size=embedding).astype(np.float32), features=own)


def test_scores_are_the_layers_of_each_source_that_came() -> None:
    seen = {"text": reading("base/t"), "vision": reading("base/v", 5, 3), "audio": reading("base/a")}
    found = head().scores(seen)
    first, second = head().layers["vision"]
    vector = np.concatenate([seen["vision"].features, seen["vision"].embedding])  # type: ignore[list-item]
    expected = second.weights @ np.maximum(first.weights @ vector + first.bias, 0) + second.bias
    assert set(found) == {"text", "vision"}
    assert np.allclose(found["vision"], expected, atol=1e-4)
    assert set(head().scores({"text": seen["text"]})) == {"text"}
    assert head().rule.posterior(found).sum() == pytest.approx(1.0)


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 1000))
def test_a_batch_is_its_rows(width: int, hidden: int, seed: int) -> None:
    stack = layers(width, hidden, 3, seed=seed)
    rows = np.random.default_rng(seed).normal(size=(4, width))
    assert np.allclose(logits(stack, rows), [logits(stack, row) for row in rows], rtol=1e-9, atol=1e-9)


@given(st.integers(1, 9))
def test_what_is_saved_is_what_is_loaded(tmp_path_factory: pytest.TempPathFactory, hidden: int) -> None:
    folder = tmp_path_factory.mktemp("heads")
    ours = head(hidden=hidden)
    ours.save(folder)
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    again = Head.load(folder, "animals")
    again.save(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    assert again.description == ours.description
    seen = {"vision": reading("base/v", 5, 3)}
    assert np.array_equal(again.scores(seen)["vision"], ours.scores(seen)["vision"])


def test_readings_of_another_encoder_or_width_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"trained with base/t.*noodle fusion train"):
        head().scores({"text": reading("base/other")})
    with pytest.raises(InvalidInput, match="looks at 8 numbers, not 9"):
        head().scores({"vision": reading("base/v", 5, 4)})
    with pytest.raises(InvalidInput, match="looks at 8 numbers, not 0"):
        head().scores({"vision": reading("base/v", 8)})


def test_heads_are_found_by_name(tmp_path: Path) -> None:
    assert known_heads(tmp_path / "nowhere") == []
    head().save(tmp_path)
    head("birds").save(tmp_path)
    assert known_heads(tmp_path) == ["animals", "birds"]
    with pytest.raises(NotFound, match="animals, birds"):
        Head.load(tmp_path, "../animals")


@pytest.mark.parametrize("name", ["", "Has Spaces", "../up", "a" * 64])
def test_a_name_is_a_plain_one(name: str) -> None:
    with pytest.raises(InvalidInput, match="name"):
        head(name)


def test_damaged_files_are_corrupt_data(tmp_path: Path) -> None:
    head().save(tmp_path)
    weights, description = tmp_path / "animals.safetensors", tmp_path / "animals.json"
    good = weights.read_bytes()
    weights.write_bytes(good[:-8])
    with pytest.raises(CorruptData, match="noodle fusion train"):
        Head.load(tmp_path, "animals")
    weights.unlink()
    with pytest.raises(CorruptData, match="animals"):
        Head.load(tmp_path, "animals")
    weights.write_bytes(good)
    description.write_text(description.read_text().replace('"width": 5', '"width": 6'))
    with pytest.raises(CorruptData, match="wrong shapes"):
        Head.load(tmp_path, "animals")
    description.write_text("{}")
    with pytest.raises(CorruptData, match="labels"):
        Head.load(tmp_path, "animals")


def test_parts_are_joined_in_the_given_order() -> None:
    seen = reading("base/v", 2, 3)
    vector = joined(seen, ("features", "embedding"))
    assert vector is not None
    assert vector.tolist() == [*seen.features, *seen.embedding]  # type: ignore[misc]
    assert joined(reading("base/v", 2), ("features",)) is None


def test_a_card_without_figures_is_a_card() -> None:
    text = card_of(head().description)
    assert "# animals" in text
    assert "base/v" in text
    assert "|" not in text
