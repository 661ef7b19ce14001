"""Task: which digit is seen and heard, at four levels of noise, by a head trained as a user would train it.

One head for all levels: its layers are fitted on noisy copies of 800 pictures beside clips of the training voices, and
stopped on 400 other pictures with the validation voices; half of these then fits a level's rule, the other half
chooses its method. Tested on the remaining 597 pictures, with voices that neither has heard.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from noodle_ray.entry.bench.fusion.digits_data import LEVELS, PICTURES, SEED, WORDS, Encoded, encoded
from noodle_ray.entry.bench.fusion.task import Goal, Progress, Setting, Task
from noodle_ray.fusion.fitting import Case, best_temperature
from noodle_ray.fusion.head import Head, logits
from noodle_ray.fusion.reading import Reading
from noodle_ray.fusion.rule import log_softmax
from noodle_ray.fusion.selective import Answer, answer_of
from noodle_ray.fusion_models.fitting_layers import Fitted, Part, fit_linear, fit_network
from noodle_ray.fusion_models.train import Shown, cases_of, train_head

BOTH = "audio+vision"
EARLY = "early"
HARD = 2
"""The level at which the answer may be withheld."""

Parts = Mapping[tuple[str, int], Encoded]


def settings(cache_dir: Path, progress: Progress) -> Iterator[Setting]:
    data = encoded(cache_dir, progress)
    shown = {part: [one for level in range(len(LEVELS)) for one in _shown(data[part, level])] for part in PICTURES}
    head = train_head("digits", shown, SEED, progress)
    progress("the rival: both modalities' features, joined")
    early = _early(data)
    for level in range(len(LEVELS)):
        yield _setting(level, data, head, early)


def _shown(part: Encoded) -> list[Shown]:
    return [
        Shown({"vision": _reading(vision), "audio": _reading(audio)}, WORDS[digit])
        for vision, audio, digit in zip(part.vision, part.audio, part.digits.tolist(), strict=True)
    ]


def _reading(features: npt.NDArray[np.float32]) -> Reading:
    return Reading("digits", "", 1.0, None, features=features)


def _setting(level: int, data: Parts, head: Head, early: Fitted) -> Setting:
    test = data["test", level]
    first, second = _halves(cases_of(head, _shown(data["validation", level])))
    names = [WORDS[digit] for digit in test.digits]
    return Setting(
        name=LEVELS[level].name,
        fit=first,
        validation=second,
        test=cases_of(head, _shown(test)),
        labels=names,
        clean=[("audio", "vision")] * len(names) if LEVELS[level].snr_db is None else (),
        rivals={(EARLY, BOTH): _answers(early, data["validation", level], test)},
        goals=_goals(level),
    )


def _halves(cases: list[Case]) -> tuple[list[Case], list[Case]]:
    """By pictures: no half sees a picture of the other, with whatever noise."""
    count = PICTURES["validation"]
    in_first = [index % count < count // 2 for index in range(len(cases))]
    return (
        [case for case, is_first in zip(cases, in_first, strict=True) if is_first],
        [case for case, is_first in zip(cases, in_first, strict=True) if not is_first],
    )


def _goals(level: int) -> tuple[Goal, ...]:
    if level != HARD:
        return ()
    return Goal("selective_accuracy_percent", BOTH, 95.0), Goal("coverage_percent", BOTH, 90.0)


def _early(data: Parts) -> Fitted:
    """Early fusion: one model over both modalities' features; the better of a linear one and a network."""
    fit, validation = (_joined(data, part) for part in ("fit", "validation"))
    fitted = fit_linear(fit, validation, len(WORDS)), fit_network(fit, validation, len(WORDS), SEED)
    return min(fitted, key=lambda one: one.loss)


def _joined(data: Parts, part: str) -> Part:
    levels = [data[part, level] for level in range(len(LEVELS))]
    rows = np.concatenate([_both(level) for level in levels])
    return Part(rows, np.concatenate([level.digits for level in levels]))


def _both(part: Encoded) -> npt.NDArray[np.float32]:
    return np.concatenate([part.vision, part.audio], 1)


def _answers(early: Fitted, validation: Encoded, test: Encoded) -> list[Answer]:
    """The rival's answers, calibrated for the level like every other method's."""
    temperature = best_temperature(list(logits(early.layers, _both(validation))), validation.digits.tolist())
    probabilities = [np.exp(log_softmax(row / temperature)) for row in logits(early.layers, _both(test))]
    return [answer_of(row, digit, WORDS[digit]) for row, digit in zip(probabilities, test.digits.tolist(), strict=True)]


TASK = Task(
    name="digits",
    split=f"pictures {PICTURES} drawn by seed {SEED}; training, validation and test voices are disjoint",
    settings=settings,
)
