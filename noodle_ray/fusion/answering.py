"""From readings to an answer: which evidence there is for what was asked, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from noodle_ray.errors import InvalidInput
from noodle_ray.fusion.calibration import Calibration
from noodle_ray.fusion.fusing import contributions, evidence, faded, without
from noodle_ray.fusion.inputs import MultimodalInput
from noodle_ray.fusion.modality import CONTEXT
from noodle_ray.fusion.ports import Classifier, Placed, Searchable
from noodle_ray.fusion.reading import Reading
from noodle_ray.fusion.result import ContextEffect, RankedCandidate
from noodle_ray.fusion.rule import Scores, SubsetRule, combined, modality_of

FOUND = 10
"""How many entries of an index are answered where a request does not say."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks for each possible answer: log-probabilities by source, and how they are weighed together."""

    names: Sequence[str]
    experts: dict[str, Scores]
    subsets: Mapping[str, SubsetRule]
    index: Searchable | None = None

    def meta(self, position: int) -> dict[str, Any] | None:
        return None if self.index is None else self.index.meta(position)


@dataclass(frozen=True, slots=True)
class Decision:
    """The ranked answers, and what each modality and the context added."""

    ranked: tuple[RankedCandidate, ...]
    best: int
    contributions: dict[str, float]
    context: float = 0.0
    without_context: tuple[str, float] | None = None


def chosen_evidence(
    request: MultimodalInput, readings: Mapping[str, Reading], placed: Placed | None, calibration: Calibration
) -> Evidence:
    """For a choice among candidates. `placed`: where they lie, or None where that did not come in time."""
    rows = placed.rows if placed is not None else None
    found = {modality: evidence(modality, reading, rows, calibration) for modality, reading in readings.items()}
    experts = {modality: scores for modality, scores in found.items() if scores is not None}
    return Evidence(request.names(), faded(experts, _strength(readings)), calibration.subsets)


def found_evidence(index: Searchable, request: MultimodalInput, readings: Mapping[str, Reading]) -> Evidence:
    """For what an index holds."""
    experts = index.rule.experts(index.search(request, readings))
    return Evidence(index.names, faded(experts, _strength(readings)), index.rule.subsets, index)


def _strength(readings: Mapping[str, Reading]) -> float:
    """How much is left of what the session remembers."""
    return readings[CONTEXT].certainty if CONTEXT in readings else 0.0


def classified_evidence(head: Classifier, readings: Mapping[str, Reading]) -> Evidence:
    """For the labels that a head was trained on; it knows nothing of sessions."""
    own = {modality: reading for modality, reading in readings.items() if modality != CONTEXT}
    return Evidence(head.labels, head.rule.experts(head.scores(own)), head.rule.subsets)


def decide(evidence: Evidence, top: int | None) -> Decision:
    """Ranks what there is evidence for. Equal probabilities keep the given order."""
    probabilities = combined(evidence.subsets, evidence.experts)
    order = np.argsort(-probabilities, kind="stable")
    best = int(order[0])
    shares = contributions(evidence.subsets, evidence.experts)
    return Decision(
        ranked=tuple(_ranked(evidence, int(index), probabilities) for index in order[:top]),
        best=best,
        contributions={name: share for name, share in shares.items() if name != CONTEXT},
        context=shares.get(CONTEXT, 0.0),
        without_context=_without_context(evidence),
    )


def _ranked(evidence: Evidence, index: int, probabilities: Scores) -> RankedCandidate:
    return RankedCandidate(
        candidate=evidence.names[index], probability=float(probabilities[index]), meta=evidence.meta(index)
    )


def _without_context(evidence: Evidence) -> tuple[str, float] | None:
    if not any(modality_of(source) == CONTEXT for source in evidence.experts):
        return None
    rest = without(evidence.subsets, evidence.experts, CONTEXT)
    best = int(rest.argmax())
    return evidence.names[best], float(rest[best])


def context_effect(turns: int, is_used: bool, decision: Decision | None) -> ContextEffect:
    """What is told of the session: with what it added where it was used."""
    before = decision.without_context if decision is not None else None
    if not is_used or decision is None or before is None:
        return ContextEffect(turns=turns, counted=False)
    return ContextEffect(
        turns=turns,
        counted=True,
        contribution=decision.context,
        candidate_without=before[0],
        confidence_without=before[1],
    )


def in_space(readings: Mapping[str, Reading], space: str) -> tuple[dict[str, Reading], dict[str, BaseException]]:
    """Those that can be compared in the space, and why not the others: their encoder belongs to another anchor."""
    fitting = {
        modality: reading
        for modality, reading in readings.items()
        if reading.embedding is None or not reading.space or not space or reading.space == space
    }
    others: dict[str, BaseException] = {
        modality: InvalidInput.of(modality, f"was read into the space {reading.space}, the answer is in {space}")
        for modality, reading in readings.items()
        if modality not in fitting
    }
    return fitting, others
