"""Training heads on readings that are made up: what can be learnt is, honestly told, the same each time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from noodle_ray.errors import InvalidInput
from noodle_ray.fusion.head import logits
from noodle_ray.fusion.head_card import card_of
from noodle_ray.fusion.reading import Reading
from noodle_ray.fusion_models.fitting_layers import Part, fit_linear, fit_network
from noodle_ray.fusion_models.train import Shown, train_head

LABELS = ("low", "middle", "high")


def shown(count: int, seed: int, noise: float = 1.0, width: int = 6) -> list[Shown]:
    """Texts tell low from the others, sounds tell high from the others; the rest of a vector is noise."""
    draw = np.random.default_rng(seed)
    result = []
    for index in range(count):
        which = index % 3
        text, sound = draw.normal(0, noise, (2, width)).astype(np.float32)
        text[0] += 4 * (which == 0)
        sound[1] += 4 * (which == 2)
        readings = {
            "text": Reading("base/t", "", 1.0, text),
            "audio": Reading("base/a", "", 1.0, draw.normal(0, 1, 4).astype(np.float32), features=sound),
        }
        result.append(Shown(readings, LABELS[which]))
    return result


def parts(noise: float = 1.0) -> dict[str, list[Shown]]:
    return {"fit": shown(150, 1, noise), "validation": shown(90, 2, noise), "test": shown(300, 3, noise)}


def test_two_modalities_together_know_what_neither_does_alone() -> None:
    head = train_head("levels", parts(), seed=5)
    figures = head.description.trained["figures"]
    assert list(figures) == ["text", "audio", "text+audio"]
    assert figures["text+audio"]["accuracy_percent"] > 90
    assert figures["text+audio"]["accuracy_percent"] > figures["text"]["accuracy_percent"] + 15
    assert figures["text+audio"]["selective_accuracy_percent"] > 90
    assert figures["text+audio"]["ece"] < 0.1
    assert head.labels == ("high", "low", "middle")
    assert head.description.sources["audio"].parts == ("features",)
    card = card_of(head.description)
    assert "| text+audio | 300 |" in card
    assert "150 fit, 90 validation, 300 test" in card


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        torch.manual_seed(hash(folder) % 1000)  # whatever was drawn before
        train_head("levels", parts(), seed=5).save(tmp_path / folder)
    for name in ("levels.json", "levels.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_nothing_to_learn_is_told_as_that() -> None:
    figures = train_head("noise", parts(noise=50.0), seed=5).description.trained["figures"]["text+audio"]
    assert figures["accuracy_percent"] < 50
    assert figures["coverage_percent"] < 20
    assert figures["ece"] < 0.12


def test_a_modality_must_show_every_label() -> None:
    given = parts()
    mute = [
        replace(one, readings={"text": one.readings["text"]}) if one.label == "high" else one for one in given["fit"]
    ]
    with pytest.raises(InvalidInput, match="audio: is given for no row of 'high' in the part 'fit'"):
        train_head("levels", {**given, "fit": mute}, seed=5)


def test_rows_may_lack_a_modality() -> None:
    given = parts()
    sparse = [
        replace(one, readings={"text": one.readings["text"]}) if index % 2 else one
        for index, one in enumerate(given["test"])
    ]
    figures = train_head("levels", {**given, "test": sparse}, seed=5).description.trained["figures"]
    assert (figures["text"]["cases"], figures["audio"]["cases"], figures["text+audio"]["cases"]) == (300, 150, 150)


def ring(count: int, seed: int) -> Part:
    """Inside or outside a circle: no linear model can tell."""
    rows = np.random.default_rng(seed).normal(size=(count, 2)).astype(np.float32)
    return Part(rows * 3 + 10, ((rows**2).sum(1) > 1.4).astype(np.int64))


def test_a_network_finds_what_a_line_cannot() -> None:
    fit, held = ring(600, 1), ring(300, 2)
    line, network = fit_linear(fit, held, 2), fit_network(fit, held, 2, seed=1)
    assert network.loss < line.loss - 0.3
    test = ring(300, 3)
    assert np.mean(logits(network.layers, test.rows).argmax(1) == test.labels) > 0.93


def test_what_never_changes_does_no_harm() -> None:
    data = ring(200, 1)
    flat = Part(np.concatenate([data.rows, np.full((200, 1), 1e6, np.float32)], 1), data.labels)
    fitted = fit_linear(flat, flat, 2)
    assert np.isfinite(fitted.loss)
    assert all(np.isfinite(layer.weights).all() and np.isfinite(layer.bias).all() for layer in fitted.layers)
