"""The rules by which an index weighs its evidence: those that come with noodle-ray, and one's own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path

from noodle_ray.errors import Fault, InvalidInput, NotFound, shorten
from noodle_ray.fusion.fitting import Case, fit_rule
from noodle_ray.fusion.index import Index
from noodle_ray.fusion.index_entry import Query
from noodle_ray.fusion.rule import Rule

KINDS = ("code", "text")
"""Indexes of code, and indexes of texts: each has a rule that comes with noodle-ray."""
LEAST_QUESTIONS = 20


@cache
def shipped_rule(kind: str) -> Rule:
    """The rule for indexes of this kind; `fitted` in it tells on what. Raises NotFound that lists the kinds."""
    if kind not in KINDS:
        raise NotFound("kind of index", kind, KINDS)
    return Rule.model_validate_json(rule_path(kind).read_bytes())


def rule_path(kind: str) -> Path:
    return Path(__file__).with_name(f"index_rule_{kind}.json")


def is_for_validation(question: Query, answer: str) -> bool:
    """A third of the questions, by a hash of what is asked and answered, whatever their order."""
    asked = "\0".join([question.text or "", question.code or "", question.transcript or "", answer])
    return sha256(asked.encode("utf-8", "surrogatepass")).digest()[0] % 3 == 0


def fitted_rule(index: Index, questions: Sequence[tuple[Query, str]]) -> Rule:
    """A rule from questions with known answers (ids of entries): fitted on two thirds, chosen on the others.

    Raises InvalidInput where answers are not in the index or there are fewer than LEAST_QUESTIONS.
    """
    places = {entry.id: place for place, entry in enumerate(index)}
    faults = [
        Fault(f"questions.{number}", "has an answer that is not in the index", shorten(answer))
        for number, (_, answer) in enumerate(questions)
        if answer not in places
    ]
    parts = [is_for_validation(question, answer) for question, answer in questions]
    if len(questions) < LEAST_QUESTIONS or len(set(parts)) < 2:
        faults.append(Fault("questions", f"at least {LEAST_QUESTIONS} different ones are needed", str(len(questions))))
    if faults:
        raise InvalidInput(faults, subject="questions")
    cases = [Case(index.search(question), places[answer]) for question, answer in questions]
    fit = [case for case, held_back in zip(cases, parts, strict=True) if not held_back]
    validation = [case for case, held_back in zip(cases, parts, strict=True) if held_back]
    rule = fit_rule(fit, validation)
    return rule.model_copy(update={"fitted": {"fit": len(fit), "validation": len(validation), "entries": len(index)}})
