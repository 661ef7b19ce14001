"""Many readings, one answer: a product of experts over the candidates, and one joint embedding.

Each modality's scores become a probability distribution over the candidates by its calibrated temperature (Guo et al.
2017, "On Calibration of Modern Neural Networks"); the distributions are multiplied, each raised to its weight, and
normalised (Hinton 1999, "Products of Experts"). A modality that is missing contributes a factor of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from noodle_ray.fusion.calibration import UNFITTED, Calibration, Scale
from noodle_ray.fusion.reading import Matrix, Reading, Vector

LogProbabilities = npt.NDArray[np.float64]


def log_softmax(scores: npt.ArrayLike) -> LogProbabilities:
    values = np.asarray(scores, np.float64)
    shifted = values - values.max()
    result: LogProbabilities = shifted - np.log(np.exp(shifted).sum())
    return result


def evidence(
    modality: str, reading: Reading, candidates: Matrix | None, calibration: Calibration
) -> LogProbabilities | None:
    """The log-probability that this modality gives each candidate; None where it can say nothing.

    `candidates`: (n, width) unit vectors in the anchor space, or None where they did not come. An encoder's own
    scores come first; where they presume that a candidate was given word for word, they are mixed with the compared
    embeddings by the probability of that.
    """
    compared = _compared(modality, reading, candidates, calibration)
    if reading.scores is None:
        return compared
    own = log_softmax(reading.scores / _scale(calibration.scores, UNFITTED.scores, modality).temperature)
    if reading.unlikeliness is None or compared is None:
        return own
    literal = calibration.presumption.probability(reading.unlikeliness)
    with np.errstate(divide="ignore"):
        mixed: LogProbabilities = np.logaddexp(np.log(literal) + own, np.log1p(-literal) + compared)
    return mixed


def _compared(
    modality: str, reading: Reading, candidates: Matrix | None, calibration: Calibration
) -> LogProbabilities | None:
    if candidates is None or reading.embedding is None:
        return None
    cosines = candidates.astype(np.float64) @ reading.embedding.astype(np.float64)
    own = calibration.cosines.get(f"{modality}:{reading.kind}")
    scale = own or _scale(calibration.cosines, UNFITTED.cosines, modality)
    return log_softmax(cosines / scale.temperature)


def _scale(fitted: Mapping[str, Scale], unfitted: Mapping[str, Scale], modality: str) -> Scale:
    return fitted.get(modality) or unfitted[modality]


def weight_of(modality: str, reading: Reading, calibration: Calibration) -> float:
    """The exponent of this modality's evidence in the product."""
    fitted, unfitted = (
        (calibration.cosines, UNFITTED.cosines) if reading.scores is None else (calibration.scores, UNFITTED.scores)
    )
    return _scale(fitted, unfitted, modality).weight


def posterior(evidences: Sequence[LogProbabilities], weights: Sequence[float], candidates: int) -> LogProbabilities:
    """The normalised product of experts: (candidates,) probabilities; uniform where there is no evidence."""
    total = np.zeros(candidates)
    for log_probabilities, weight in zip(evidences, weights, strict=True):
        total += weight * np.maximum(log_probabilities, -1e6)  # a probability of zero is a veto, but never a NaN
    probabilities: LogProbabilities = np.exp(log_softmax(total))
    return probabilities


def contributions(
    evidences: Mapping[str, LogProbabilities], weights: Mapping[str, float], candidates: int
) -> dict[str, float]:
    """What each modality adds to the answer's probability: with all of them, minus with all but this one (-1..1)."""
    names = list(evidences)
    together = posterior([evidences[name] for name in names], [weights[name] for name in names], candidates)
    best = int(together.argmax())
    result = {}
    for left_out in names:
        rest = [name for name in names if name != left_out]
        without = posterior([evidences[name] for name in rest], [weights[name] for name in rest], candidates)
        result[left_out] = float(together[best] - without[best])
    return result


def joint_embedding(readings: Mapping[str, Reading]) -> Vector | None:
    """The certainty-weighted mean of the embeddings, normalised to length 1; None where no encoder gives one.

    It depends on what was given alone, not on the candidates. Opposite embeddings may cancel out exactly; then the
    surest one stands for all.
    """
    placed = [reading for reading in readings.values() if reading.embedding is not None]
    if not placed:
        return None
    total = np.zeros(len(_vector(placed[0])))
    for reading in placed:
        total += max(reading.certainty, 1e-6) * _vector(reading)
    length = float(np.linalg.norm(total))
    if length < 1e-9:
        total = _vector(max(placed, key=lambda reading: reading.certainty))
        length = float(np.linalg.norm(total))
    return (total / length).astype(np.float32)


def _vector(reading: Reading) -> npt.NDArray[np.float64]:
    return np.asarray(reading.embedding, np.float64)


def embedding_shares(readings: Mapping[str, Reading]) -> dict[str, float]:
    """What each modality adds to the joint embedding: 1 - cosine between it with and without the modality (0..2)."""
    together = joint_embedding(readings)
    result = {}
    for left_out in readings:
        without = joint_embedding({name: reading for name, reading in readings.items() if name != left_out})
        if together is None or readings[left_out].embedding is None:
            result[left_out] = 0.0
        else:
            result[left_out] = 1.0 if without is None else max(0.0, 1.0 - float(together @ without))
    return result
