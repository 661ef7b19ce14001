"""Which terms of an entry are counted, and which sources of evidence a question has.

Every lexical source compares a question's terms with one collection of the entries' terms:

    words     words of texts, names, strings and comments, without inflections
    literal   code as spelt, token by token and in pairs
    outline   windows of tokens with variables masked
    shape     windows of tokens with every name masked
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from noodle_ray.fusion.code_tokens import (
    Terms,
    literal_terms,
    outline_terms,
    shape_terms,
    terms_of,
    words_of_code,
    words_of_text,
)
from noodle_ray.fusion.index_entry import Entry, Query
from noodle_ray.fusion.lexical import Document, Weighting

ANALYSIS = 1
"""Goes up whenever the same entry gets other terms: saved ones are then made anew."""
WORDS, LITERAL, OUTLINE, SHAPE = COLLECTIONS = ("words", "literal", "outline", "shape")
_OF_CODE: dict[str, Callable[[str], Terms]] = {
    LITERAL: literal_terms,
    OUTLINE: outline_terms,
    SHAPE: shape_terms,
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A lexical source of a question: its name, the collection it looks into, its terms and how they are weighed."""

    source: str
    collection: str
    document: Document
    weighting: Weighting


def documents_of(entry: Entry) -> dict[str, Document]:
    """The terms of an entry, by collection."""
    code = entry.code or ""
    words = [word for text in (entry.text or "", *entry.others) for word in words_of_text(text)]
    documents = {WORDS: Document.of(terms_of(words + words_of_code(code)))}
    return documents | {name: Document.of(terms(code)) for name, terms in _OF_CODE.items()}


def asked_of(query: Query) -> Iterator[Asked]:
    """The lexical sources of a question."""
    for modality, text in (("text", query.text), ("audio", query.transcript)):
        if text is not None:
            yield Asked(f"{modality}:words", WORDS, Document.of(terms_of(words_of_text(text))), SENTENCE)
    if query.code is not None:
        yield Asked("code:words", WORDS, Document.of(terms_of(words_of_code(query.code))), FRAGMENT)
        for name, terms in _OF_CODE.items():
            yield Asked(f"code:{name}", name, Document.of(terms(query.code)), FRAGMENT)


SENTENCE = Weighting(k1=1.2, b=0.75)
FRAGMENT = Weighting(k1=1.2, b=0.75)
