"""What an encoder made of its input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float32]


OVERHEAD_BYTES = 1300
"""What a reading takes beside its numbers and its texts, with its key and its place in a cache: as measured."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One modality, read by its encoder.

    encoder:      which encoder and which weights, as text.
    seen:         for people: the transcript, the best class names, the beginning of the text.
    certainty:    0..1, how sure the encoder is of what it read, whatever the candidates are.
    embedding:    unit vector in the pack's anchor space; None where the encoder lives in a space of its own.
    scores:       one number a candidate on the encoder's own scale; None: the embeddings are compared instead.
    unlikeliness: only for scores that presume that the input *is* one of the candidates (a sentence read aloud): how
                  many nats the best candidate is less likely than the encoder's own free reading.
    features:     what a trained head looks at, in a space of the encoder's own; None: it looks at the embedding.
    sources:      more ways of scoring the candidates, by name: one number a candidate each.
    space:        which anchor's space the embedding is in. Embeddings of different spaces cannot be compared.
    needs_texts:  whether the reading depends on the candidates' texts that the encoder was given.
    transcript:   all that was said, where something was.
    kind:         which kind of input it was, where a modality's kinds are calibrated apart ("drawing"); else empty.
    """

    encoder: str
    seen: str
    certainty: float
    embedding: Vector | None
    scores: Vector | None = None
    unlikeliness: float | None = None
    features: Vector | None = None
    sources: Mapping[str, Vector] = field(default_factory=dict)
    space: str = ""
    needs_texts: bool = False
    kind: str = ""
    transcript: str = ""

    @property
    def nbytes(self) -> int:
        """About how much memory it takes."""
        arrays = [self.embedding, self.scores, self.features, *self.sources.values()]
        return (
            OVERHEAD_BYTES
            + 4 * len(self.seen + self.transcript)
            + sum(array.nbytes for array in arrays if array is not None)
        )


def merged(readings: Sequence[Reading]) -> Reading:
    """Several items of one modality that show the same thing, as one reading: everything is averaged.

    Averages, not sums: views of one thing are no independent evidence, and calibrated scales stay as they are.
    """
    if len(readings) == 1:
        return readings[0]
    first = readings[0]
    return replace(
        first,
        seen="; ".join(reading.seen for reading in readings),
        transcript="\n".join(reading.transcript for reading in readings if reading.transcript),
        certainty=float(np.mean([reading.certainty for reading in readings])),
        embedding=_unit(_weighted(readings)),
        scores=_mean([reading.scores for reading in readings]),
        unlikeliness=_mean_number([reading.unlikeliness for reading in readings]),
        features=_mean([reading.features for reading in readings]),
        sources={
            name: mean
            for name in first.sources
            if (mean := _mean([reading.sources.get(name) for reading in readings])) is not None
        },
    )


def _weighted(readings: Sequence[Reading]) -> Vector | None:
    """The embeddings' mean by certainty; the surest one's where they cancel out."""
    places = [reading.embedding for reading in readings if reading.embedding is not None]
    if len(places) < len(readings):
        return None
    weights = [max(reading.certainty, 1e-6) for reading in readings]
    total = np.average(places, axis=0, weights=weights)
    if np.linalg.norm(total) < 1e-9:
        return places[int(np.argmax(weights))]
    return np.asarray(total, np.float32)


def _unit(vector: Vector | None) -> Vector | None:
    return None if vector is None else (vector / np.linalg.norm(vector)).astype(np.float32)


def _mean(vectors: Sequence[Vector | None]) -> Vector | None:
    given = [vector for vector in vectors if vector is not None]
    if len(given) < len(vectors):
        return None
    return np.asarray(np.mean(given, axis=0), np.float32)


def _mean_number(values: Sequence[float | None]) -> float | None:
    given = [value for value in values if value is not None]
    return sum(given) / len(given) if len(given) == len(values) else None
