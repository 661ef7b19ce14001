"""Trains a head: layers for each source on the fit part, a rule over them on validation, figures on the test part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from noodle_ray.errors import InvalidInput
from noodle_ray.fusion.fitting import Case, fit_rule, subsets_of
from noodle_ray.fusion.head import Head, HeadDescription, HeadSource, Part, joined
from noodle_ray.fusion.modality import MODALITIES
from noodle_ray.fusion.reading import Reading
from noodle_ray.fusion.rule import Rule, subset_of
from noodle_ray.fusion.selective import Answer, answer_of, selective
from noodle_ray.fusion_models import fitting_layers
from noodle_ray.fusion_models.fitting_layers import Fitted, fit_linear, fit_network

THRESHOLD = 0.7
ENOUGH_FOR_HALVES = 40
"""Validation examples from which on one half finds the rule's weights and the other chooses and calibrates."""
CHOICES: tuple[tuple[Part, ...], ...] = (("embedding",), ("features",), ("features", "embedding"))
"""What a source may look at; the best on validation is taken."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Shown:
    """One example as the encoders read it: a reading by modality, and its label."""

    readings: Mapping[str, Reading]
    label: str


@dataclass(frozen=True, slots=True)
class _Source:
    description: HeadSource
    fitted: Fitted
    tried: dict[str, float]


def train_head(
    name: str,
    parts: Mapping[str, Sequence[Shown]],
    seed: int,
    progress: Progress = lambda line: None,
    facts: Mapping[str, Any] | None = None,
) -> Head:
    """A head from the parts "fit", "validation" and "test". `facts`: what its card tells beside the figures.

    The layers are fitted on `fit` and stopped on `validation`; the rule sees `validation` alone, on which the layers'
    scores are nearly as on new data. Raises InvalidInput where a modality lacks a class.
    """
    labels = tuple(sorted({shown.label for shown in parts["fit"]}))
    sources = {
        modality: _trained(modality, parts, labels, seed, progress)
        for modality in MODALITIES
        if any(modality in shown.readings for shown in parts["fit"])
    }
    described = {modality: source.description for modality, source in sources.items()}
    layers = {modality: source.fitted.layers for modality, source in sources.items()}
    plain = Head(HeadDescription(name=name, labels=labels, sources=described, rule=Rule()), layers)
    progress("the rule that weighs the modalities")
    rule = _rule(cases_of(plain, parts["validation"]))
    trained = {
        **(facts or {}),
        "seed": seed,
        "examples": {part: len(shown) for part, shown in parts.items()},
        "sources": {modality: _told(source) for modality, source in sources.items()},
        "figures": figures(rule, cases_of(plain, parts["test"]), [shown.label for shown in parts["test"]]),
    }
    return Head(plain.description.model_copy(update={"rule": rule, "trained": trained}), layers)


def cases_of(head: Head, shown: Sequence[Shown]) -> list[Case]:
    """The examples as cases: a head's scores, and the index of the right label."""
    places = {label: index for index, label in enumerate(head.labels)}
    return [Case(head.scores(example.readings), places[example.label]) for example in shown]


def figures(rule: Rule, cases: Sequence[Case], labels: Sequence[str]) -> dict[str, dict[str, Any]]:
    """By subset of modalities: cases, accuracy, and selective accuracy and coverage at THRESHOLD (percent), and ECE."""
    result = {}
    for modalities in subsets_of(cases):
        if answers := _answers(rule, cases, labels, modalities):
            found = selective(answers, THRESHOLD)
            result[subset_of(modalities)] = {
                "cases": found.cases,
                "accuracy_percent": round(found.accuracy_percent, 2),
                "selective_accuracy_percent": _rounded(found.selective_accuracy_percent),
                "coverage_percent": round(found.coverage_percent, 2),
                "ece": round(found.ece, 4),
                "method": rule.subsets[subset_of(modalities)].method if subset_of(modalities) in rule.subsets else "",
            }
    return result


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _answers(rule: Rule, cases: Sequence[Case], labels: Sequence[str], modalities: Sequence[str]) -> list[Answer]:
    limited = [(case.limited_to(modalities), label) for case, label in zip(cases, labels, strict=True)]
    return [answer_of(rule.posterior(case.scores), case.right, label) for case, label in limited if case is not None]


def _rule(cases: Sequence[Case]) -> Rule:
    if len(cases) < ENOUGH_FOR_HALVES:
        return fit_rule(cases, cases)
    # In turn within each class, so that both halves hold the classes alike.
    ordered = sorted(range(len(cases)), key=lambda index: (cases[index].right, index))
    halves = [[cases[index] for index in ordered[start::2]] for start in (0, 1)]
    return fit_rule(halves[0], halves[1])


def _trained(
    modality: str, parts: Mapping[str, Sequence[Shown]], labels: Sequence[str], seed: int, progress: Progress
) -> _Source:
    """What the modality's source looks at and its layers: linear over every choice, a network over the best."""
    own = {part: [shown for shown in parts[part] if modality in shown.readings] for part in ("fit", "validation")}
    _check(modality, own, labels)
    tried: dict[str, float] = {}
    best: tuple[tuple[Part, ...], Fitted] | None = None
    for choice in _possible(modality, own):
        progress(f"{modality}: {' and '.join(choice)}, linear")
        fitted = fit_linear(*_data(modality, own, choice, labels), len(labels))
        tried[f"{'+'.join(choice)} {fitted.kind}"] = round(fitted.loss, 4)
        if best is None or fitted.loss < best[1].loss - fitting_layers.WORTH:
            best = (choice, fitted)
    assert best is not None
    choice, chosen = best
    progress(f"{modality}: {' and '.join(choice)}, network")
    network = fit_network(*_data(modality, own, choice, labels), len(labels), seed)
    tried[f"{'+'.join(choice)} {network.kind}"] = round(network.loss, 4)
    if network.loss < chosen.loss - fitting_layers.WORTH:
        chosen = network
    encoder = own["fit"][0].readings[modality].encoder
    width = chosen.layers[0].weights.shape[1]
    return _Source(HeadSource(encoder=encoder, parts=choice, width=width), chosen, tried)


def _told(source: _Source) -> dict[str, Any]:
    return {
        "model": source.fitted.kind,
        "looks_at": "+".join(source.description.parts),
        "validation_nats": round(source.fitted.loss, 4),
        "tried": source.tried,
    }


def _check(modality: str, own: Mapping[str, Sequence[Shown]], labels: Sequence[str]) -> None:
    for part, shown in own.items():
        if missing := sorted(set(labels).difference(example.label for example in shown)):
            names = ", ".join(map(repr, missing))
            raise InvalidInput.of(modality, f"is given for no row of {names} in the part {part!r}")


def _possible(modality: str, own: Mapping[str, Sequence[Shown]]) -> list[tuple[Part, ...]]:
    readings = [shown.readings[modality] for part in own.values() for shown in part]
    possible = [choice for choice in CHOICES if all(joined(reading, choice) is not None for reading in readings)]
    if not possible:
        raise InvalidInput.of(modality, "cannot be learnt from: its encoder gives neither features nor an embedding")
    return possible


def _data(
    modality: str, own: Mapping[str, Sequence[Shown]], choice: Sequence[Part], labels: Sequence[str]
) -> tuple[fitting_layers.Part, fitting_layers.Part]:
    places = {label: index for index, label in enumerate(labels)}
    made = []
    for part in ("fit", "validation"):
        vectors = [joined(shown.readings[modality], choice) for shown in own[part]]
        rows = np.stack([vector for vector in vectors if vector is not None])
        made.append(fitting_layers.Part(rows, np.array([places[shown.label] for shown in own[part]], np.int64)))
    return made[0], made[1]
