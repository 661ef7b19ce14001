"""How good answers are that may also be withheld: accuracy, coverage, calibration, and what a lost sense does.

Selective classification: El-Yaniv and Wiener 2010, "On the Foundations of Noise-free Selective Classification".
Expected calibration error: Guo et al. 2017, equation 3, over ten equally wide bins of confidence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from noodle_ray.fusion.rule import Scores

BINS = 10
ENOUGH_CASES = 50
"""A class with fewer cases has no figure of its own."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answered case. `confidence`: 0..1; `label`: the right answer's class, where classes are compared."""

    confidence: float
    is_right: bool
    label: str = ""


@dataclass(frozen=True, slots=True)
class Bin:
    """A bar of a reliability diagram: mean confidence and accuracy (0..1) of `count` answers."""

    confidence: float
    accuracy: float
    count: int


@dataclass(frozen=True, slots=True)
class Selective:
    """Figures of a set of answers, in percent but for `ece` (0..1).

    selective_accuracy_percent is None where nothing is answered with confidence. worst_class: the class of at least
    ENOUGH_CASES cases whose confident answers are least often right, with that share.
    """

    cases: int
    accuracy_percent: float
    selective_accuracy_percent: float | None
    coverage_percent: float
    ece: float
    worst_class: tuple[str, float] | None


def answer_of(probabilities: Scores, right: int, label: str = "") -> Answer:
    """The answer that a posterior gives. Of equals the first counts."""
    best = int(probabilities.argmax())
    return Answer(float(probabilities[best]), best == right, label)


def selective(answers: Sequence[Answer], threshold: float) -> Selective:
    """The figures where answers below the threshold are withheld. Raises ValueError without answers."""
    if not answers:
        raise ValueError("there are no answers")
    confident = [answer for answer in answers if answer.confidence >= threshold]
    return Selective(
        cases=len(answers),
        accuracy_percent=_percent_right(answers),
        selective_accuracy_percent=_percent_right(confident) if confident else None,
        coverage_percent=100.0 * len(confident) / len(answers),
        ece=expected_calibration_error(answers),
        worst_class=_worst_class(answers, confident),
    )


def _percent_right(answers: Sequence[Answer]) -> float:
    return 100.0 * sum(answer.is_right for answer in answers) / len(answers)


def _worst_class(answers: Sequence[Answer], confident: Sequence[Answer]) -> tuple[str, float] | None:
    counts = Counter(answer.label for answer in answers if answer.label)
    shares = []
    for label in sorted(label for label, count in counts.items() if count >= ENOUGH_CASES):
        if own := [answer for answer in confident if answer.label == label]:
            shares.append((label, _percent_right(own)))
    return min(shares, key=lambda share: share[1]) if shares else None


def reliability(answers: Sequence[Answer]) -> list[Bin]:
    """The bars of the reliability diagram, empty bins left out."""
    bins: dict[int, list[Answer]] = {}
    for answer in answers:
        bins.setdefault(min(int(answer.confidence * BINS), BINS - 1), []).append(answer)
    return [_bin(bins[index]) for index in sorted(bins)]


def _bin(answers: Sequence[Answer]) -> Bin:
    confidence = float(np.mean([answer.confidence for answer in answers]))
    return Bin(confidence, _percent_right(answers) / 100.0, len(answers))


def expected_calibration_error(answers: Sequence[Answer]) -> float:
    """Mean gap between confidence and accuracy, over the bins, 0..1."""
    gaps = (abs(bar.confidence - bar.accuracy) * bar.count for bar in reliability(answers))
    return sum(gaps) / len(answers)


def confidence_rise_percent(pairs: Sequence[tuple[Mapping[str, float], float]]) -> float:
    """The share of cases, in percent, in which leaving out a modality raises the confidence in the right answer.

    pairs: for each case, what remains of the right answer's probability without each clean and correct modality, and
    that probability with all of them.
    """
    tried = [(without, together) for rest, together in pairs for without in rest.values()]
    if not tried:
        return 0.0
    return 100.0 * sum(without > together for without, together in tried) / len(tried)
