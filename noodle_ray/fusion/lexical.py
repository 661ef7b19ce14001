"""Which documents share terms with a query, by BM25, in a collection that grows and shrinks.

Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", section 3. Postings lie in
segments that are merged when they are about equally long (Bentley and Saxe 1980, "Decomposable Searching Problems"),
so that a document is moved a logarithmic number of times; the scores are those of one built anew, bit by bit or nearly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from noodle_ray.fusion.code_tokens import Terms
from noodle_ray.fusion.growing import Growing

Slots = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Document:
    """The terms of a document, each once in ascending order, and how often each occurs."""

    terms: Terms
    counts: Floats

    @classmethod
    def of(cls, terms: Terms) -> Document:
        unique, counts = np.unique(terms, return_counts=True)
        return cls(unique, counts.astype(np.float64))

    @property
    def length(self) -> float:
        return float(self.counts.sum())


@dataclass(frozen=True, slots=True)
class Segment:
    """Postings by ascending term: term i occurs in slots[starts[i]:starts[i + 1]], so often as counts say."""

    terms: Terms
    starts: Slots
    slots: Slots
    counts: Floats

    def __len__(self) -> int:
        return len(self.slots)

    @classmethod
    def of(cls, terms: Terms, slots: Slots, counts: Floats) -> Segment:
        """From one entry a posting, in any order of terms; those of a term in ascending order of slots."""
        order = np.argsort(terms, kind="stable")
        unique, starts = np.unique(terms[order], return_index=True)
        return cls(unique, np.append(starts, len(terms)).astype(np.int64), slots[order], counts[order])

    def spread(self) -> tuple[Terms, Slots, Floats]:
        """One entry a posting."""
        return np.repeat(self.terms, np.diff(self.starts)), self.slots, self.counts

    def find(self, terms: Terms) -> tuple[Slots, Slots]:
        """(which of the terms, which posting): every posting of the terms, by index."""
        if not len(self.terms):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        places = np.minimum(np.searchsorted(self.terms, terms), len(self.terms) - 1)
        known = np.flatnonzero(self.terms[places] == terms)
        first, last = self.starts[places[known]], self.starts[places[known] + 1]
        lengths = last - first
        ends = np.cumsum(lengths)
        postings = np.arange(ends[-1] if len(ends) else 0) + np.repeat(first - ends + lengths, lengths)
        return np.repeat(known, lengths), postings


EMPTY = Segment(np.zeros(0, np.uint64), np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros(0))


@dataclass(frozen=True, slots=True)
class Weighting:
    """BM25's two parameters. k1: how much a repetition counts; b: how much a long document is held against it."""

    k1: float = 1.2
    b: float = 0.75


class Postings:
    """The terms of documents, each in a slot. Slots are given out in ascending order and not used again.

    A removed document's postings stay until their segment is merged; they count nowhere.
    """

    def __init__(self) -> None:
        self._segments: list[Segment] = []
        self._lengths = Growing(np.float64)

    @property
    def everything(self) -> Mask:
        """The mask of all slots, for collections from which nothing is removed."""
        return np.ones(len(self._lengths.rows), np.bool_)

    def append(self, documents: Sequence[Document], alive: Mask) -> None:
        """Adds documents in the next slots. alive: (slots before this,), which of them are still there."""
        first = len(self._lengths.rows)
        self._lengths.append([document.length for document in documents])
        slots = np.repeat(np.arange(first, first + len(documents)), [len(document.terms) for document in documents])
        terms = np.concatenate([document.terms for document in documents])
        counts = np.concatenate([document.counts for document in documents])
        self._segments.append(Segment.of(terms, slots, counts))
        self._merge(np.append(alive, np.ones(len(documents), bool)))

    def renumber(self, alive: Mask) -> None:
        """Forgets the slots that are not alive, and numbers the others anew without gaps."""
        places = np.cumsum(alive) - 1
        self._segments = [_moved(_merged([segment], alive), places) for segment in self._segments]
        self._lengths.keep(alive)

    def gathered(self, alive: Mask) -> tuple[Segment, Floats]:
        """All that is alive in one segment, slots without gaps, and the documents' lengths: what is saved."""
        whole = _moved(_merged(self._segments, alive), np.cumsum(alive) - 1)
        return whole, self._lengths.rows[alive]

    @classmethod
    def of(cls, whole: Segment, lengths: Floats) -> Postings:
        """From what `gathered` gave."""
        postings = cls()
        postings._segments.append(whole)
        postings._lengths.append(lengths)
        return postings

    def scores(self, query: Document, weighting: Weighting, alive: Mask) -> Floats:
        """(slots,): BM25 of each document, 0 where it shares no term or is not alive."""
        found = [self._found(segment, query.terms, alive) for segment in (*self._segments, EMPTY)]
        which = np.concatenate([row[0] for row in found])
        slots = np.concatenate([row[1] for row in found])
        counts = np.concatenate([row[2] for row in found])
        documents = int(alive.sum())
        frequency = np.bincount(which, minlength=len(query.terms))
        rarity = np.log1p((documents - frequency + 0.5) / (frequency + 0.5))
        lengths = self._lengths.rows
        mean = max(float(lengths[alive].sum()) / max(documents, 1), 1e-9)
        # What depends on the document or on the term alone is worked out once for each, not once a posting.
        damping = weighting.k1 * (1.0 - weighting.b + weighting.b * lengths / mean)
        worth = query.counts * rarity * (weighting.k1 + 1.0)
        gains = worth[which] * counts / (counts + damping[slots])
        return np.bincount(slots, gains, minlength=len(alive)).astype(np.float64)

    def _found(self, segment: Segment, terms: Terms, alive: Mask) -> tuple[Slots, Slots, Floats]:
        which, postings = segment.find(terms)
        slots = segment.slots[postings]
        if alive.all():  # spares most searches a pass over all postings
            return which, slots, segment.counts[postings]
        kept = alive[slots]
        return which[kept], slots[kept], segment.counts[postings[kept]]

    def _merge(self, alive: Mask) -> None:
        while len(self._segments) > 1 and len(self._segments[-2]) <= 2 * len(self._segments[-1]):
            last = self._segments.pop()
            self._segments[-1] = _merged([self._segments[-1], last], alive)


def _merged(segments: Sequence[Segment], alive: Mask) -> Segment:
    rows = [segment.spread() for segment in (*segments, EMPTY)]
    terms = np.concatenate([row[0] for row in rows])
    slots = np.concatenate([row[1] for row in rows])
    counts = np.concatenate([row[2] for row in rows])
    kept = alive[slots]
    return Segment.of(terms[kept], slots[kept], counts[kept])


def _moved(segment: Segment, places: Slots) -> Segment:
    return Segment(segment.terms, segment.starts, places[segment.slots], segment.counts)
