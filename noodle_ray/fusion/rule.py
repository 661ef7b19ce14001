"""How the evidence of several sources becomes one answer: a weighted product of experts, fitted for each task.

A source is one way of scoring the candidates: a modality ("text"), or one of a modality's several ways ("audio:words").
Each source's scores become log-probabilities by its temperature (Guo et al. 2017, "On Calibration of Modern Neural
Networks"); these are added up with weights (Hinton 1999, "Products of Experts") and normalised. Each subset of
modalities has weights and one more temperature of its own: an answer from what came in time is calibrated, too. What
the rules of two subsets disagree about never makes a modality count against what it says itself (`combined`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from noodle_ray.base_model import Model
from noodle_ray.fusion.modality import CONTEXT, MODALITIES

Scores = npt.NDArray[np.float64]
"""(candidates,): higher is likelier, on the source's own scale."""
Positive = Annotated[float, Field(gt=0)]

LATE = "late"


class SubsetRule(Model):
    """The rule for one subset of modalities.

    method:      how the weights were found; LATE is the plain sum of log-probabilities.
    weights:     each source's exponent in the product; a source without one counts once.
    gates:       how much a source's exponent falls with its own uncertainty: weight * exp(-gate * entropy / ln(n)).
    temperature: what the sum is divided by in the end.
    """

    method: str = LATE
    weights: dict[str, float] = Field(default_factory=dict)
    gates: dict[str, float] = Field(default_factory=dict)
    temperature: Positive = 1.0


PLAIN = SubsetRule()


class Rule(Model):
    """Temperatures by source, and a rule by subset of modalities ("text+audio", in the fixed order of MODALITIES).

    A subset without a rule of its own is fused late. `fitted` documents data, split and figures.
    """

    temperatures: dict[str, Positive] = Field(default_factory=dict)
    subsets: dict[str, SubsetRule] = Field(default_factory=dict)
    fitted: dict[str, Any] = Field(default_factory=dict)

    def posterior(self, scores: Mapping[str, Scores]) -> Scores:
        """The candidates' probabilities, by the scores of the sources that came. Raises ValueError without any."""
        return combined(self.subsets, self.experts(scores))

    def experts(self, scores: Mapping[str, Scores]) -> dict[str, Scores]:
        return {source: self.expert(source, values) for source, values in scores.items()}

    def expert(self, source: str, scores: Scores) -> Scores:
        """What one source says: log-probabilities."""
        return log_softmax(np.asarray(scores, np.float64) / self.temperatures.get(source, 1.0))


def combined(subsets: Mapping[str, SubsetRule], experts: Mapping[str, Scores]) -> Scores:
    """The candidates' probabilities from all experts together. Raises ValueError without any.

    Where a modality's own answer is that of all together, that answer is at least as probable as without the modality.
    What a session remembers is weighed like one more expert where there is no rule that knows of it.
    """
    return Combination(subsets, experts).of(frozenset(map(modality_of, experts)))


class Combination:
    """What each subset of the modalities makes of the experts' evidence, each subset computed once."""

    def __init__(self, subsets: Mapping[str, SubsetRule], experts: Mapping[str, Scores]) -> None:
        self._subsets, self._experts = subsets, experts
        self._known: dict[frozenset[str], Scores] = {}
        self._products: dict[frozenset[str], Scores] = {}

    def of(self, modalities: frozenset[str]) -> Scores:
        """The candidates' probabilities from these modalities' experts. Raises ValueError where there are none."""
        if modalities not in self._known:
            probabilities = self._product(modalities)
            best = int(probabilities.argmax())
            least = max((float(rest[best]) for rest in self._without_those_who_agree(modalities, best)), default=0.0)
            self._known[modalities] = _lifted(probabilities, best, least)
        return self._known[modalities]

    def _without_those_who_agree(self, modalities: frozenset[str], best: int) -> Iterator[Scores]:
        """What would be probable without each modality whose own answer is the best."""
        for modality in modalities if len(modalities) > 1 else ():
            if int(self._product(frozenset({modality})).argmax()) == best:
                yield self.of(modalities - {modality})

    def _product(self, modalities: frozenset[str]) -> Scores:
        if modalities not in self._products:
            own = {source: expert for source, expert in self._experts.items() if modality_of(source) in modalities}
            self._products[modalities] = _product(self._subsets, own)
        return self._products[modalities]


def _product(subsets: Mapping[str, SubsetRule], experts: Mapping[str, Scores]) -> Scores:
    if not experts:
        raise ValueError("there is no evidence")
    own = [source for source in experts if modality_of(source) != CONTEXT]
    rule = subsets.get(subset_of(experts)) or subsets.get(subset_of(own)) or PLAIN
    probabilities: Scores = np.exp(log_softmax(weighted_sum(rule, experts) / rule.temperature))
    return probabilities


def _lifted(probabilities: Scores, best: int, least: float) -> Scores:
    """With at least so much for the best one, at the cost of all others alike."""
    if probabilities[best] >= least:
        return probabilities
    result: Scores = probabilities * ((1.0 - least) / (1.0 - probabilities[best]))
    result[best] = least
    return result


def weighted_sum(rule: SubsetRule, experts: Mapping[str, Scores]) -> Scores:
    """(candidates,): the experts' log-probabilities, each times its weight and what is left of that by its gate."""
    total = np.zeros(len(next(iter(experts.values()))))
    for source in sorted(experts):
        weight = rule.weights.get(source, 1.0)
        if gate := rule.gates.get(source, 0.0):
            weight *= float(np.exp(-gate * uncertainty(experts[source])))
        total += weight * np.maximum(experts[source], -1e6)  # a probability of zero is a veto, but never a NaN
    return total


def log_softmax(scores: npt.ArrayLike) -> Scores:
    values = np.asarray(scores, np.float64)
    shifted = values - values.max()
    result: Scores = shifted - np.log(np.exp(shifted).sum())
    return result


def uncertainty(log_probabilities: Scores) -> float:
    """Entropy as a share of what it could be: 0 for one certain candidate, 1 where all are alike."""
    if len(log_probabilities) < 2:
        return 0.0
    entropy = -float((np.exp(log_probabilities) * np.maximum(log_probabilities, -1e6)).sum())
    return entropy / float(np.log(len(log_probabilities)))


def modality_of(source: str) -> str:
    """ "audio:words" is one of audio's ways."""
    return source.partition(":")[0]


def subset_of(sources: Iterable[str]) -> str:
    """The subset's name: its modalities in the fixed order, others (such as the context) behind them."""
    named = {modality_of(source) for source in sources}
    known = [modality for modality in MODALITIES if modality in named]
    return "+".join([*known, *sorted(named.difference(MODALITIES))])
