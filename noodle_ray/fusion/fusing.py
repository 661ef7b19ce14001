"""Readings as evidence about given candidates, what each adds to the answer, and one joint embedding of all."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from noodle_ray.fusion.calibration import UNFITTED, Calibration, Scale
from noodle_ray.fusion.modality import CONTEXT
from noodle_ray.fusion.reading import Matrix, Reading, Vector
from noodle_ray.fusion.rule import Combination, Scores, SubsetRule, combined, log_softmax, modality_of


def evidence(modality: str, reading: Reading, candidates: Matrix | None, calibration: Calibration) -> Scores | None:
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
        mixed: Scores = np.logaddexp(np.log(literal) + own, np.log1p(-literal) + compared)
    return mixed


def _compared(modality: str, reading: Reading, candidates: Matrix | None, calibration: Calibration) -> Scores | None:
    if candidates is None or reading.embedding is None:
        return None
    cosines = candidates.astype(np.float64) @ reading.embedding.astype(np.float64)
    own = calibration.cosines.get(f"{modality}:{reading.kind}")
    scale = own or _scale(calibration.cosines, UNFITTED.cosines, modality)
    return log_softmax(cosines / scale.temperature)


def _scale(fitted: Mapping[str, Scale], unfitted: Mapping[str, Scale], modality: str) -> Scale:
    return fitted.get(modality) or unfitted[modality]


def faded(experts: Mapping[str, Scores], strength: float) -> dict[str, Scores]:
    """The experts, with what a session remembers made as weak as its memory (0..1): at 0 it tells nothing apart."""
    return {
        source: log_softmax(strength * np.maximum(expert, -1e6)) if modality_of(source) == CONTEXT else expert
        for source, expert in experts.items()
    }


def contributions(subsets: Mapping[str, SubsetRule], experts: Mapping[str, Scores]) -> dict[str, float]:
    """What each modality adds to the answer's probability: with all of them, minus with all but this one (-1..1)."""
    combination, modalities = Combination(subsets, experts), frozenset(map(modality_of, experts))
    together = combination.of(modalities)
    best = int(together.argmax())
    alike = np.full(len(together), 1.0 / len(together))
    rest = {name: combination.of(modalities - {name}) if len(modalities) > 1 else alike for name in modalities}
    return {name: float(together[best] - rest[name][best]) for name in dict.fromkeys(map(modality_of, experts))}


def without(subsets: Mapping[str, SubsetRule], experts: Mapping[str, Scores], left_out: str) -> Scores:
    """The candidates' probabilities without one modality; all alike where that was the only one."""
    rest = {source: expert for source, expert in experts.items() if modality_of(source) != left_out}
    if rest:
        return combined(subsets, rest)
    count = len(next(iter(experts.values())))
    return np.full(count, 1.0 / count)


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
