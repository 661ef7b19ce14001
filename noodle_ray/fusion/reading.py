"""What an encoder made of its input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float32]


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
    kind:         which kind of input it was, where a modality's kinds are calibrated apart ("drawing"); else empty.
    """

    encoder: str
    seen: str
    certainty: float
    embedding: Vector | None
    scores: Vector | None = None
    unlikeliness: float | None = None
    features: Vector | None = None
    kind: str = ""
