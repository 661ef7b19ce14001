"""The answer to a fusion request."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from noodle_ray.base_model import Model
from noodle_ray.fusion.inputs import Ask


class RankedCandidate(Model):
    """A possible answer and its probability, 0..1. `meta`: what an index keeps with the entry."""

    candidate: str
    probability: float
    meta: dict[str, Any] | None = None


class ContextEffect(Model):
    """What the session added to an answer.

    turns:     how many remembered turns were looked at. counted: whether they were used as evidence.
    contribution: how much they add to the best candidate's probability (-1..1); 0 where they did not count.
    candidate_without, confidence_without: the answer as it is without them.
    """

    turns: int
    counted: bool
    contribution: float = 0.0
    candidate_without: str | None = None
    confidence_without: float = 0.0


class FusionResult(Model):
    """One answer from all the modalities that came in time.

    ask:             what was asked: embed, choose, find or classify.
    embedding:       unit vector in the pack's anchor space (384 numbers with the pack `base`); empty where every
                     encoder used has a space of its own.
    candidates:      best first; the probabilities of all that were asked about sum to 1. Empty where nothing was asked.
    confidence:      the best candidate's probability; 0 without candidates.
    confident:       whether that reaches NOODLE_FUSION_CONFIDENCE_THRESHOLD.
    contributions:   by modality, from leaving it out: how much it adds to the best candidate's probability (-1..1);
                     without candidates, how far it turns the embedding (1 - cosine).
    modalities_used: what the answer rests on. late: what did not come before the deadline. failed: what raised, and
                     why. Both may name "candidates": comparing the candidates' own embeddings.
    cached:          the modalities whose reading was remembered. context: what the session added, where there is one.
    encoders:        by modality, which encoder and weights. readings: what each made of its input, for people.
    stage_ms:        decode, each modality, candidates, fuse and total, in milliseconds.
    """

    request_id: str
    ask: Ask = "embed"
    embedding: tuple[float, ...] = Field(repr=False)
    candidates: tuple[RankedCandidate, ...] = ()
    confidence: float = 0.0
    confident: bool = False
    contributions: dict[str, float]
    modalities_used: tuple[str, ...]
    late: tuple[str, ...] = ()
    failed: dict[str, str] = Field(default_factory=dict)
    cached: tuple[str, ...] = ()
    context: ContextEffect | None = None
    encoders: dict[str, str]
    readings: dict[str, str]
    stage_ms: dict[str, float]
