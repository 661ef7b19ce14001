"""Fitting temperatures: on made-up trials whose right temperature is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fusion_media import picture, sound
from hypothesis import given
from hypothesis import strategies as st

from noodle_ray.errors import Unavailable
from noodle_ray.fusion.fitting import best_temperature, loss_at
from noodle_ray.fusion.reading import Reading
from noodle_ray.fusion_models.calibrate import (
    Calibrator,
    Case,
    Trial,
    cosines,
    fit_presumption,
    fit_scale,
    fit_scale_leaving_one_out,
)


def trials(count: int, temperature: float, seed: int = 0) -> list[Trial]:
    """Questions whose right answers are drawn with exactly the probabilities that this temperature gives."""
    random = np.random.default_rng(seed)
    drawn = []
    for _ in range(count):
        scores = random.normal(0, 2, 5)
        probabilities = np.exp(scores / temperature) / np.exp(scores / temperature).sum()
        drawn.append(Trial(scores, int(random.choice(5, p=probabilities))))
    return drawn


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_the_data_is_found(temperature: float) -> None:
    assert fit_scale(trials(4000, temperature), 1.0, "made up").temperature == pytest.approx(temperature, rel=0.12)


@given(st.floats(0.01, 50))
def test_no_temperature_beats_the_best(other: float) -> None:
    sample = trials(60, 1.5)
    scores, right = [trial.scores for trial in sample], [trial.right for trial in sample]
    closest = min(sample, key=lambda trial: trial.scores[trial.right] - np.delete(trial.scores, trial.right).max())
    second = max(set(range(5)) - {closest.right}, key=lambda one: closest.scores[one])

    def loss(temperature: float) -> float:
        """Of all, and of the closest once more, with its runner-up right."""
        return loss_at([*scores, closest.scores], [*right, second], temperature)

    assert loss(best_temperature(scores, right)) <= loss(other) + 1e-6


def test_calibration_error_is_small_at_the_right_temperature_only() -> None:
    scale = fit_scale(trials(8000, 2.0), 0.4, "made up")
    assert scale.fitted["ece_after"] < 0.03 < scale.fitted["ece_before"]


def test_accuracy_does_not_depend_on_the_temperature() -> None:
    sample = [Trial(np.array([1.0, 2.0]), 1), Trial(np.array([1.0, 2.0]), 0)]
    assert fit_scale([*sample, *sample], 0.5, "made up").fitted["accuracy"] == 0.5


def test_scales_report_what_was_not_used_for_fitting() -> None:
    scale = fit_scale(trials(1000, 2.0), 1.0, "made up")
    assert scale.fitted["n_fit"] == scale.fitted["n_test"] == 500
    assert scale.fitted["nll_after"] < scale.fitted["nll_before"]
    rough = fit_scale_leaving_one_out(trials(12, 2.0), 1.0, "made up")
    assert "12 cases only" in rough.fitted["caution"]


def test_presumption_separates_what_was_read_aloud() -> None:
    presumption = fit_presumption([0.1, 0.5, 2.0, 1.0], [20.0, 30.0, 45.0, 25.0], "made up")
    assert presumption.probability(1.0) > 0.8 > 0.2 > presumption.probability(30.0)
    assert presumption.fitted["error_on_fitted_data"] == 0.0


def test_what_has_no_place_cannot_be_compared() -> None:
    with pytest.raises(Unavailable):
        cosines(np.eye(2, dtype=np.float32), Reading("x", "", 1.0, None))


class Letters:
    """Places a sentence by its letters, and reads everything that way."""

    def embed(self, texts: Any) -> np.ndarray:
        rows = np.array([[text.lower().count(letter) + 0.01 for letter in "etaoinshr"] for text in texts], np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def encode(self, content: Any, candidates: tuple[str, ...] = ()) -> Reading:
        text = content if isinstance(content, str) else "unknown"
        scores = np.arange(len(candidates), 0, -1).astype(np.float32) if candidates else None
        # With the right sentence there are ten candidates, without it nine.
        unlikeliness = (0.5 if len(candidates) == 10 else 30.0) if candidates else None
        return Reading("letters", text, 1.0, self.embed([text])[0], scores, unlikeliness)


def test_a_whole_calibration_is_fitted() -> None:
    letters = Letters()
    said: list[str] = []
    calibrator = Calibrator(dict.fromkeys(("text", "audio", "vision", "code"), letters), letters, said.append)
    functions = [
        (f"read_{n}_" + "taoin"[n % 5] * n, f"Reads {n} items " + "taoin"[n % 5] * n, "def f(): pass")
        for n in range(40)
    ]
    prompts = [(sound(np.zeros(800, np.float32)), f"right sentence {n} {chr(97 + n)}") for n in range(24)]
    drawings = [Case(None, f"drawing {n}") for n in range(20)]
    calibration = calibrator.fit(
        functions, prompts, [Case(picture(), caption) for caption in ("cat", "dog", "sea")], drawings
    )
    assert set(calibration.cosines) == {"text", "audio", "vision", "code", "vision:drawing"}
    assert calibration.scores["audio"].fitted["accuracy"] == 1.0
    assert calibration.cosines["vision"].fitted["n_test"] == 3
    assert said
