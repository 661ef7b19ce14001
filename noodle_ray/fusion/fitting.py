"""Fits a Rule on cases with known answers: temperatures, then for each subset the method that validation prefers.

Every method is a weighting of the same experts, so late fusion is always among what is compared, and is kept where
nothing beats it. Weights: conditional logistic regression (McFadden 1974), drawn towards late fusion by a ridge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from noodle_ray.fusion.modality import MODALITIES
from noodle_ray.fusion.rule import (
    LATE,
    Rule,
    Scores,
    SubsetRule,
    log_softmax,
    modality_of,
    subset_of,
    uncertainty,
    weighted_sum,
)

WEIGHTED, GATED = "weighted", "gated"
RIDGE = 0.01
"""Nats a case that a weight one away from late fusion costs."""
WORTH = 0.002
"""Nats a case by which a method must beat a simpler one on validation data to be chosen."""
FOLDS = 3
COLDEST, HOTTEST = 1e-4, 1e3


@dataclass(frozen=True, slots=True)
class Case:
    """One question: each source's scores of its candidates, and the index of the right one."""

    scores: Mapping[str, Scores]
    right: int

    def limited_to(self, modalities: Sequence[str]) -> Case | None:
        """The case with these modalities alone; None where one of them says nothing here."""
        kept = {source: values for source, values in self.scores.items() if modality_of(source) in modalities}
        if {modality_of(source) for source in kept} != set(modalities):
            return None
        return Case(kept, self.right)


def subsets_of(cases: Sequence[Case]) -> list[tuple[str, ...]]:
    """Every non-empty subset of the modalities that occur, smaller ones first."""
    named = {modality_of(source) for case in cases for source in case.scores}
    present = [modality for modality in MODALITIES if modality in named]
    present += sorted(named.difference(MODALITIES))
    return [subset for size in range(1, len(present) + 1) for subset in combinations(present, size)]


def fit_rule(fit: Sequence[Case], validation: Sequence[Case]) -> Rule:
    """Temperatures and weights from `fit`; the method of each subset by its likelihood on `validation`.

    The last temperature of a subset is fitted on `validation`. Raises ValueError without cases.
    """
    if not fit or not validation:
        raise ValueError("cases to fit on and others to validate with are needed")
    rule = Rule(temperatures=_temperatures(fit))
    for modalities in subsets_of(fit):
        ours, theirs = _limited(fit, modalities), _limited(validation, modalities)
        if ours and theirs:
            rule = _with(rule, modalities, _best(rule, ours, theirs))
    return rule


def beats(before: Rule, cases: Sequence[Case]) -> bool:
    """Whether a rule fitted on such cases is likely to do better on others of their kind than the one before.

    Three times, two thirds of the cases fit a rule (a half of them its weights, the other half its methods and last
    temperatures), and both are tried on the third that is left.
    """
    order = np.random.default_rng(0).permutation(len(cases))
    folds = [[cases[index] for index in order[number::FOLDS]] for number in range(FOLDS)]
    losses = []
    for left in folds:
        tried = fit_rule(*(fold for fold in folds if fold is not left))
        losses.append(negative_log_likelihood(before, left) - negative_log_likelihood(tried, left))
    return float(np.mean(losses)) > WORTH


def fitted_by(method: str, fit: Sequence[Case], validation: Sequence[Case]) -> Rule:
    """As fit_rule with one method for every subset: for comparisons."""
    rule = Rule(temperatures=_temperatures(fit))
    subsets = {}
    for modalities in subsets_of(fit):
        ours, theirs = _limited(fit, modalities), _limited(validation, modalities)
        if ours and theirs:
            subsets[subset_of(modalities)] = _calibrated(METHODS[method](rule, ours), rule, theirs)
    return rule.model_copy(update={"subsets": subsets})


def negative_log_likelihood(rule: Rule, cases: Sequence[Case]) -> float:
    """Mean over the cases, in nats."""
    return float(-np.mean([np.log(max(rule.posterior(case.scores)[case.right], 1e-300)) for case in cases]))


def best_temperature(scores: Sequence[Scores], right: Sequence[int]) -> float:
    """The temperature under which the right candidates are likeliest, by golden section over its logarithm.

    As if the closest case came once more, and its runner-up were right (after Laplace's rule of succession): that all
    of a few cases are right is no reason to be sure without end. Where some are wrong it makes no difference to speak
    of.
    """
    closest = min(range(len(right)), key=lambda case: _lead(scores[case], right[case]))
    runner_up = _runner_up(scores[closest], right[closest])
    more_scores, more_right = [*scores, scores[closest]], [*right, runner_up]
    low, high = np.log(COLDEST), np.log(HOTTEST)
    ratio = (5**0.5 - 1) / 2
    while high - low > 1e-4:
        left, middle = high - ratio * (high - low), low + ratio * (high - low)
        if loss_at(more_scores, more_right, np.exp(left)) <= loss_at(more_scores, more_right, np.exp(middle)):
            high = middle
        else:
            low = left
    return float(np.exp((low + high) / 2))


def loss_at(scores: Sequence[Scores], right: Sequence[int], temperature: float) -> float:
    """Mean negative log-likelihood of the right candidates at this temperature, in nats."""
    pairs = zip(scores, right, strict=True)
    return float(-np.mean([log_softmax(values / temperature)[index] for values, index in pairs]))


def _runner_up(scores: Scores, right: int) -> int:
    """The best candidate but the right one; that one where there is no other."""
    order = np.argsort(-np.asarray(scores), kind="stable")[:2]
    return int(next((index for index in order if index != right), right))


def _lead(scores: Scores, right: int) -> float:
    return float(scores[right] - scores[_runner_up(scores, right)])


def _temperatures(cases: Sequence[Case]) -> dict[str, float]:
    sources = sorted({source for case in cases for source in case.scores})
    result = {}
    for source in sources:
        own = [case for case in cases if source in case.scores]
        values = [np.asarray(case.scores[source], np.float64) for case in own]
        result[source] = best_temperature(values, [case.right for case in own])
    return result


def _limited(cases: Sequence[Case], modalities: Sequence[str]) -> list[Case]:
    return [limited for case in cases if (limited := case.limited_to(modalities)) is not None]


def _best(rule: Rule, fit: Sequence[Case], validation: Sequence[Case]) -> SubsetRule:
    """The simplest method that no other beats on validation by what its complexity must be worth."""
    best, least = None, np.inf
    for method in METHODS.values():
        tried = _calibrated(method(rule, fit), rule, validation)
        loss = negative_log_likelihood(_with(rule, fit[0].scores, tried), validation)
        if loss < least - WORTH:
            best, least = tried, loss
    assert best is not None
    return best


def _with(rule: Rule, sources: Iterable[str], subset: SubsetRule) -> Rule:
    return rule.model_copy(update={"subsets": {**rule.subsets, subset_of(sources): subset}})


def _calibrated(subset: SubsetRule, rule: Rule, validation: Sequence[Case]) -> SubsetRule:
    sums = [weighted_sum(subset, _experts(rule, case)) for case in validation]
    temperature = best_temperature(sums, [case.right for case in validation])
    return subset.model_copy(update={"temperature": temperature})


def _experts(rule: Rule, case: Case) -> dict[str, Scores]:
    return {source: rule.expert(source, scores) for source, scores in case.scores.items()}


def _late(rule: Rule, cases: Sequence[Case]) -> SubsetRule:
    return SubsetRule(method=LATE)


def _weighted(rule: Rule, cases: Sequence[Case]) -> SubsetRule:
    return _fitted_weights(rule, cases, is_gated=False)


def _gated(rule: Rule, cases: Sequence[Case]) -> SubsetRule:
    return _fitted_weights(rule, cases, is_gated=True)


METHODS: dict[str, Callable[[Rule, Sequence[Case]], SubsetRule]] = {LATE: _late, WEIGHTED: _weighted, GATED: _gated}
"""Every method by name, simpler ones first: a new one is a function that fits a SubsetRule, and a line here."""


def _fitted_weights(rule: Rule, cases: Sequence[Case], is_gated: bool) -> SubsetRule:
    sources = sorted({source for case in cases for source in case.scores})
    experts = [_experts(rule, case) for case in cases]
    found = minimize(
        _penalised_loss,
        np.concatenate([np.ones(len(sources)), np.zeros(len(sources) if is_gated else 0)]),
        args=(sources, experts, [case.right for case in cases]),
        method="L-BFGS-B",
        jac=True,
        bounds=[(0.0, 20.0)] * len(sources) + [(0.0, 10.0)] * (len(sources) if is_gated else 0),
    ).x
    weights = dict(zip(sources, map(float, found[: len(sources)]), strict=True))
    gates = dict(zip(sources, map(float, found[len(sources) :]), strict=True)) if is_gated else {}
    return SubsetRule(method=GATED if is_gated else WEIGHTED, weights=weights, gates=gates)


def _penalised_loss(
    parameters: npt.NDArray[np.float64],
    sources: Sequence[str],
    experts: Sequence[Mapping[str, Scores]],
    right: Sequence[int],
) -> tuple[float, npt.NDArray[np.float64]]:
    """Mean negative log-likelihood with the ridge, and its gradient."""
    weights, gates = parameters[: len(sources)], parameters[len(sources) :]
    loss, gradient = 0.0, np.zeros_like(parameters)
    for case, index in zip(experts, right, strict=True):
        rows, slopes = _rows(case, sources, gates)
        log_probabilities = log_softmax(weights @ rows)
        loss -= log_probabilities[index]
        pull = np.exp(log_probabilities)
        pull[index] -= 1.0
        along = rows @ pull
        gradient[: len(sources)] += along
        if len(gates):
            gradient[len(sources) :] -= weights * slopes * along
    offset = np.concatenate([weights - 1.0, gates])
    count = len(experts)
    return loss / count + RIDGE * float(offset @ offset), gradient / count + 2 * RIDGE * offset


def _rows(
    experts: Mapping[str, Scores], sources: Sequence[str], gates: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(sources, candidates): what each expert says times what its gate lets through; and each one's uncertainty."""
    count = len(next(iter(experts.values())))
    rows, uncertain = np.zeros((len(sources), count)), np.zeros(len(sources))
    for position, source in enumerate(sources):
        if source in experts:
            rows[position] = np.maximum(experts[source], -1e6)
            uncertain[position] = uncertainty(experts[source])
    if len(gates):
        rows *= np.exp(-gates * uncertain)[:, None]
    return rows, uncertain
