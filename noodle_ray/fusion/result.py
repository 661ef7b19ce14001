"""The answer to a fusion request."""

from __future__ import annotations

from pydantic import Field

from noodle_ray.base_model import Model


class RankedCandidate(Model):
    """A possible answer and its probability, 0..1."""

    candidate: str
    probability: float


class FusionResult(Model):
    """One answer from all the modalities that came in time.

    embedding:       unit vector in the pack's anchor space (384 numbers with the pack `base`); empty where every
                     encoder used has a space of its own.
    candidates:      best first; their probabilities sum to 1. Empty where the request gave none.
    confidence:      the best candidate's probability; 0 without candidates.
    confident:       whether that reaches NOODLE_FUSION_CONFIDENCE_THRESHOLD.
    contributions:   by modality, from leaving it out: how much it adds to the best candidate's probability (-1..1);
                     without candidates, how far it turns the embedding (1 - cosine).
    modalities_used: what the answer rests on. late: what did not come before the deadline. failed: what raised, and
                     why. Both may name "candidates": comparing the candidates' own embeddings.
    encoders:        by modality, which encoder and weights. readings: what each made of its input, for people.
    stage_ms:        decode, each modality, candidates, fuse and total, in milliseconds.
    """

    request_id: str
    embedding: tuple[float, ...] = Field(repr=False)
    candidates: tuple[RankedCandidate, ...] = ()
    confidence: float = 0.0
    confident: bool = False
    contributions: dict[str, float]
    modalities_used: tuple[str, ...]
    late: tuple[str, ...] = ()
    failed: dict[str, str] = Field(default_factory=dict)
    encoders: dict[str, str]
    readings: dict[str, str]
    stage_ms: dict[str, float]
