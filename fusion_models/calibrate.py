"""Fits the temperatures of `noodle_ray/fusion/calibration.json` on real data, with fixed seed and splits.

One temperature a modality, by the negative log-likelihood of the right candidates (Guo et al. 2017, section 4.2), on
one part of the data; what is reported is measured on the other. Where there are too few cases for two parts, each case
is tried with the temperature of all the others (leave-one-out).
"""

from __future__ import annotations

import io
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from noodle_ray.errors import Unavailable
from noodle_ray.fusion.calibration import Calibration, Presumption, Scale
from noodle_ray.fusion.decoding import decode_audio, decode_image
from noodle_ray.fusion.reading import Matrix, Reading
from noodle_ray.fusion.rule import log_softmax
from noodle_ray.fusion_models.encoders import ModalityEncoder
from noodle_ray.fusion_models.text import Sentences

SEED = 7
CANDIDATES = 10
HARD_CANDIDATES = 4
"""Of the wrong sentences, so many are those spelt most like the right one; the rest is drawn at random."""
TEXT_CASES, SPEECH_CASES, SPEECH_SECONDS, DRAWING_CASES = 400, 200, 8.0, 400
BINS = 10

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Trial:
    """One question: a score for each candidate, and which one is right."""

    scores: npt.NDArray[np.float64]
    right: int


@dataclass(frozen=True, slots=True)
class Case:
    """One input with its right answer: `content` as the encoder takes it."""

    content: Any
    answer: str


def negative_log_likelihood(trials: Sequence[Trial], temperature: float) -> float:
    """Mean over the trials, in nats."""
    return float(-np.mean([log_softmax(trial.scores / temperature)[trial.right] for trial in trials]))


def expected_calibration_error(trials: Sequence[Trial], temperature: float) -> float:
    """Mean gap between confidence and accuracy over ten equally wide bins of confidence (Guo et al. 2017, eq. 3)."""
    posteriors = [np.exp(log_softmax(trial.scores / temperature)) for trial in trials]
    confidence = np.array([posterior.max() for posterior in posteriors])
    right = np.array([posterior.argmax() == trial.right for posterior, trial in zip(posteriors, trials, strict=True)])
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [
        abs(confidence[bins == index].mean() - right[bins == index].mean()) * (bins == index).sum()
        for index in np.unique(bins)
    ]
    return float(sum(gaps) / len(trials))


def accuracy(trials: Sequence[Trial]) -> float:
    return float(np.mean([trial.scores.argmax() == trial.right for trial in trials]))


def best_temperature(trials: Sequence[Trial], lowest: float = 1e-3, highest: float = 1e2) -> float:
    """The temperature of least negative log-likelihood, by golden-section search over its logarithm."""
    low, high = np.log(lowest), np.log(highest)
    ratio = (5**0.5 - 1) / 2
    while high - low > 1e-4:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if negative_log_likelihood(trials, np.exp(left)) <= negative_log_likelihood(trials, np.exp(right)):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))


def fit_scale(trials: Sequence[Trial], before: float, data: str) -> Scale:
    """Fits on the first half and measures on the second. `before`: the temperature that it is compared with."""
    middle = len(trials) // 2
    fit, test = trials[:middle], trials[middle:]
    temperature = best_temperature(fit)
    report = {
        "data": data,
        "split": f"seed {SEED}, first half fitted, second half tested",
        "n_fit": len(fit),
        "n_test": len(test),
        **_before_and_after(test, before, [temperature] * len(test)),
    }
    return Scale(temperature=round(temperature, 5), fitted=report)


def fit_scale_leaving_one_out(trials: Sequence[Trial], before: float, data: str) -> Scale:
    """Fits on all; measures each trial with the temperature fitted on all the others."""
    others = [best_temperature([*trials[:index], *trials[index + 1 :]]) for index in range(len(trials))]
    report = {
        "data": data,
        "split": "leave-one-out",
        "n_fit": len(trials),
        "n_test": len(trials),
        "caution": f"{len(trials)} cases only: all figures are rough",
        **_before_and_after(trials, before, others),
    }
    return Scale(temperature=round(best_temperature(trials), 5), fitted=report)


def _before_and_after(trials: Sequence[Trial], before: float, after: Sequence[float]) -> dict[str, Any]:
    scaled = [Trial(trial.scores / temperature, trial.right) for trial, temperature in zip(trials, after, strict=True)]
    return {
        "candidates": len(trials[0].scores),
        "accuracy": round(accuracy(trials), 4),
        "temperature_before": before,
        "nll_before": round(negative_log_likelihood(trials, before), 4),
        "nll_after": round(negative_log_likelihood(scaled, 1.0), 4),
        "ece_before": round(expected_calibration_error(trials, before), 4),
        "ece_after": round(expected_calibration_error(scaled, 1.0), 4),
    }


def fit_presumption(literal: Sequence[float], free: Sequence[float], data: str) -> Presumption:
    """Logistic regression of "a candidate was read aloud" on the unlikeliness of the best one, in nats.

    literal: unlikeliness where the right sentence was among the candidates; free: where it was not.
    """
    features = np.array([*literal, *free])
    labels = np.array([1.0] * len(literal) + [0.0] * len(free))
    design = np.stack([np.ones_like(features), -features], 1)
    weights = np.zeros(2)
    # Newton's method; the ridge keeps the slope finite where the two groups do not overlap.
    for _ in range(50):
        probabilities = 1 / (1 + np.exp(-np.clip(design @ weights, -500, 500)))
        gradient = design.T @ (probabilities - labels) + 0.1 * weights
        curvature = design.T @ (design * (probabilities * (1 - probabilities))[:, None]) + 0.1 * np.eye(2)
        weights = weights - np.linalg.solve(curvature, gradient)
    wrong = float(np.mean(((design @ weights) > 0) != (labels > 0)))
    report = {"data": data, "n_literal": len(literal), "n_free": len(free), "error_on_fitted_data": round(wrong, 4)}
    return Presumption(offset=round(float(weights[0]), 4), slope=round(float(weights[1]), 5), fitted=report)


class Calibrator:
    """Fits a pack's calibration. `encoders` by modality; `sentences` places the candidates."""

    def __init__(self, encoders: dict[str, ModalityEncoder], sentences: Sentences, progress: Progress) -> None:
        self._encoders, self._sentences, self._progress = encoders, sentences, progress
        self._random = random.Random(SEED)  # noqa: S311 - a repeatable draw is what is wanted

    def fit(
        self,
        functions: Sequence[tuple[str, str, str]],
        prompts: Sequence[tuple[bytes, str]],
        photographs: Sequence[Case],
        drawings: Sequence[Case] = (),
    ) -> Calibration:
        """functions: (name, summary, code); prompts: (WAV bytes, transcript); photographs: (file's bytes, caption).

        drawings: (pixels, name), for encoders that read drawings in a way of their own.
        """
        python = f"functions of the standard library of Python {sys.version.split()[0]}"
        chosen = self._drawn(functions, TEXT_CASES)
        named = [Case(summary, name.strip("_").replace("_", " ")) for name, summary, _ in chosen]
        written = [Case(code.replace(name, "function"), summary) for name, summary, code in chosen]
        text = fit_scale(self._compared("text", named), 0.05, f"first line of the docstring → name, {python}")
        code = fit_scale(
            self._compared("code", written), 0.05, f"code, name masked → first line of the docstring, {python}"
        )
        vision = self._vision(photographs)
        spoken, scored, presumption = self._speech(prompts)
        cosines = {"text": text, "code": code, "vision": vision, "audio": spoken}
        if drawings:
            cosines["vision:drawing"] = self.fit_drawings(drawings)
        return Calibration(
            cosines=cosines,
            scores={"audio": scored},
            presumption=presumption,
        )

    def fit_drawings(self, drawings: Sequence[Case]) -> Scale:
        """(pixels, name): the scale of vision's cosines for drawings."""
        trials = self._compared("vision", self._drawn(drawings, DRAWING_CASES))
        return fit_scale(trials, 0.05, "emoji of a style not trained on, of known and unknown names → names")

    def _drawn(self, items: Sequence[Any], count: int) -> list[Any]:
        return self._random.sample(list(items), min(count, len(items)))

    def _compared(self, modality: str, cases: Sequence[Case]) -> list[Trial]:
        """Each case against its own answer and randomly drawn other ones, by cosine."""
        self._progress(f"{modality}: {len(cases)} cases")
        answers = sorted({case.answer for case in cases})
        places = dict(zip(answers, self._sentences.embed(answers), strict=True))
        trials = []
        for case in cases:
            wrong = self._random.sample([answer for answer in answers if answer != case.answer], CANDIDATES - 1)
            rows = np.stack([places[answer] for answer in [case.answer, *wrong]])
            trials.append(Trial(cosines(rows, self._encoders[modality].encode(case.content)), 0))
        return trials

    def _vision(self, photographs: Sequence[Case]) -> Scale:
        self._progress(f"vision: {len(photographs)} photographs")
        places = self._sentences.embed([photograph.answer for photograph in photographs])
        trials = [
            Trial(cosines(places, self._encoders["vision"].encode(decode_image(case.content))), index)
            for index, case in enumerate(photographs)
        ]
        return fit_scale_leaving_one_out(trials, 0.05, "photographs of scikit-image → captions of ours")

    def _speech(self, prompts: Sequence[tuple[bytes, str]]) -> tuple[Scale, Scale, Presumption]:
        answers = sorted({answer for _, answer in prompts})
        drawn = self._drawn(prompts, len(prompts))
        cases = [Case(data, answer) for data, answer in drawn if seconds_of(data) <= SPEECH_SECONDS][:SPEECH_CASES]
        compared, scored, literal, free = [], [], [], []
        for number, case in enumerate(cases):
            if number % 20 == 0:
                self._progress(f"audio: clip {number + 1} of {len(cases)}")
            candidates = [case.answer, *self._wrong_sentences(case.answer, answers)]
            samples = decode_audio(case.content)
            with_it = self._encoders["audio"].encode(samples, tuple(candidates))
            without = self._encoders["audio"].encode(samples, tuple(candidates[1:]))
            compared.append(Trial(cosines(self._sentences.embed(candidates), with_it), 0))
            if with_it.scores is not None and without.unlikeliness is not None:
                scored.append(Trial(with_it.scores.astype(np.float64), 0))
                literal.append(float(with_it.unlikeliness or 0.0))
                free.append(float(without.unlikeliness))
        middle = len(literal) // 2
        data = f"asterisk-core-sounds-en → transcript, {HARD_CANDIDATES} of the wrong ones spelt alike"
        return (
            fit_scale(compared, 0.05, data),
            fit_scale(scored, 1.0, data),
            fit_presumption(literal[:middle], free[:middle], f"{data}; free: the right one taken away"),
        )

    def _wrong_sentences(self, right: str, answers: Sequence[str]) -> list[str]:
        others = [answer for answer in answers if _spelling(answer) != _spelling(right)]
        trigrams = _trigrams(right)
        hard = sorted(others, key=lambda answer: (-_overlap(trigrams, _trigrams(answer)), answer))[:HARD_CANDIDATES]
        rest = [answer for answer in others if answer not in hard]
        return hard + self._random.sample(rest, CANDIDATES - 1 - len(hard))


def cosines(rows: Matrix, reading: Reading) -> npt.NDArray[np.float64]:
    """The cosine between each row and what was read; both have length 1."""
    if reading.embedding is None:
        raise Unavailable(f"{reading.encoder} has a space of its own: there is nothing to compare")
    return rows.astype(np.float64) @ reading.embedding.astype(np.float64)


def seconds_of(data: bytes) -> float:
    with soundfile.SoundFile(io.BytesIO(data)) as sound:
        return float(sound.frames / sound.samplerate)


def _spelling(sentence: str) -> str:
    return "".join(character for character in sentence.lower() if character.isalnum())


def _trigrams(sentence: str) -> set[str]:
    letters = _spelling(sentence)
    return {letters[start : start + 3] for start in range(max(1, len(letters) - 2))}


def _overlap(left: set[str], right: set[str]) -> float:
    return len(left & right) / len(left | right)
