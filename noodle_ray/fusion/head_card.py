"""A head's model card: what it was taught with, how it was divided, and how good it is, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from noodle_ray.fusion.head import HeadDescription

COLUMNS = ("cases", "accuracy_percent", "selective_accuracy_percent", "coverage_percent", "ece", "method")
TITLES = ("modalities", "cases", "accuracy %", "accuracy of confident answers %", "coverage %", "ECE", "method")


def card_of(head: HeadDescription) -> str:
    """The card. What `trained` lacks is left out."""
    return "\n".join(_lines(head)) + "\n"


def _lines(head: HeadDescription) -> Iterator[str]:
    facts = head.trained
    yield f"# {head.name}"
    yield ""
    yield f"A head of noodle-ray's fusion: {len(head.labels)} labels, {_labels(head)}."
    yield ""
    for title in ("data", "licence", "split", "seed", "command"):
        if title in facts:
            value = f"`{facts[title]}`" if title == "command" else facts[title]
            yield f"- {title}: {value}"
    for modality, source in head.sources.items():
        yield f"- {modality}: encoder `{source.encoder}`{_model(facts.get('sources', {}).get(modality, {}))}"
    yield from _counts(facts)
    yield from _figures(facts)


def _labels(head: HeadDescription) -> str:
    shown = ", ".join(head.labels[:10])
    return shown + (", …" if len(head.labels) > 10 else "")


def _model(told: Mapping[str, Any]) -> str:
    return f", {told['model']} on {told['looks_at']} ({told['validation_nats']} nats on validation)" if told else ""


def _counts(facts: Mapping[str, Any]) -> Iterator[str]:
    counts = facts.get("examples", {})
    if counts:
        yield ""
        yield "Examples: " + ", ".join(f"{count} {part}" for part, count in counts.items()) + "."


def _figures(facts: Mapping[str, Any]) -> Iterator[str]:
    figures = facts.get("figures", {})
    if not figures:
        return
    yield ""
    yield "On the test part, which neither training nor any choice has seen; an answer is confident from 0.7 on:"
    yield ""
    yield f"| {' | '.join(TITLES)} |"
    yield f"|{'---|' * len(TITLES)}"
    for modalities, row in figures.items():
        cells = ["-" if row[column] is None else str(row[column]) for column in COLUMNS]
        yield f"| {modalities} | {' | '.join(cells)} |"
