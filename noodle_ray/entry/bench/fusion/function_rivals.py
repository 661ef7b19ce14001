"""What people would use instead: a sentence model, BM25 on words or on masked windows, a plain sum of cosines."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from noodle_ray.entry.bench.fusion.function_queries import FIT, TEST
from noodle_ray.fusion.code_tokens import Terms, shape_terms, terms_of
from noodle_ray.fusion.fitting import Case, best_temperature, subsets_of
from noodle_ray.fusion.index_entry import Query
from noodle_ray.fusion.index_rules import shipped_rule
from noodle_ray.fusion.lexical import Document, Postings, Weighting
from noodle_ray.fusion.rule import Scores, log_softmax, subset_of
from noodle_ray.fusion.selective import Answer, answer_of

DENSE, BM25, MASKED, SUM = "sentence model", "BM25", "BM25 of masked windows", "sum of scores"
SHIPPED = "shipped rule"
Question = tuple[Query, int, str]


def rivals_of(
    asked: Sequence[Question], codes: Sequence[str], parts: Mapping[str, Sequence[Case]]
) -> dict[tuple[str, str], list[Answer]]:
    """Each rival's answers to the test questions, its scores made probabilities by a temperature fitted on `fit`."""
    found: dict[tuple[str, str], list[Answer]] = {}
    words, windows = _collected(codes, plain_terms), _collected(codes, shape_terms)
    for modality in ("text", "code"):
        if not any(f"{modality}:dense" in case.scores for case in parts[TEST]):
            continue
        dense = [(case.scores[f"{modality}:dense"], case.right, part) for part, case in _each(parts)]
        lexical = list(_bm25(asked, modality, words, plain_terms))
        found[DENSE, modality] = _answers(dense)
        found[BM25, modality] = _answers(lexical)
        if modality == "code":
            found[MASKED, modality] = _answers(list(_bm25(asked, modality, windows, shape_terms)))
    if (DENSE, "code") in found:
        found[SUM, "text+code"] = _answers([(_sum(case), case.right, part) for part, case in _each(parts)])
    return found | _by_the_shipped_rule(parts[TEST])


def _by_the_shipped_rule(cases: Sequence[Case]) -> dict[tuple[str, str], list[Answer]]:
    """By the one rule that comes with indexes of code, which is not told what kind of fragment it is asked with."""
    rule = shipped_rule("code")
    found = {}
    for modalities in subsets_of(cases):
        limited = [case for case in (each.limited_to(modalities) for each in cases) if case is not None]
        found[SHIPPED, subset_of(modalities)] = [answer_of(rule.posterior(case.scores), case.right) for case in limited]
    return found


def plain_terms(text: str) -> Terms:
    """Words as they stand, in lower case."""
    return terms_of(re.findall(r"\w+", text.lower()))


def _each(parts: Mapping[str, Sequence[Case]]) -> Iterator[tuple[str, Case]]:
    return ((part, case) for part, cases in parts.items() for case in cases)


def _sum(case: Case) -> Scores:
    """The cosines of text and code, added up."""
    return case.scores["text:dense"] + case.scores["code:dense"]


def _collected(codes: Sequence[str], terms: Callable[[str], Terms]) -> Postings:
    postings = Postings()
    postings.append([Document.of(terms(code)) for code in codes], np.zeros(0, np.bool_))
    return postings


def _bm25(
    asked: Sequence[Question], modality: str, postings: Postings, terms: Callable[[str], Terms]
) -> Iterator[tuple[Scores, int, str]]:
    for query, right, part in asked:
        document = Document.of(terms((query.text if modality == "text" else query.code) or ""))
        yield postings.scores(document, Weighting(), postings.everything), right, part


def _answers(scored: Sequence[tuple[Scores, int, str]]) -> list[Answer]:
    fit = [(scores, right) for scores, right, part in scored if part == FIT]
    temperature = best_temperature([scores for scores, _ in fit], [right for _, right in fit])
    tested = [(scores, right) for scores, right, part in scored if part == TEST]
    return [answer_of(np.exp(log_softmax(scores / temperature)), right) for scores, right in tested]
