"""A named index: entries that are found by any subset of modalities, exactly, as they come and go.

Every entry has a slot. Vectors and terms of a removed entry stay until half of the slots are empty; then all slots are
numbered anew, so that adding and removing cost a bounded number of moves an entry. Scores do not depend on the history:
they are those of an index built anew from the same entries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from noodle_ray.errors import InvalidInput, LimitReached, NotFound
from noodle_ray.fusion.growing import Growing
from noodle_ray.fusion.index_entry import FIELDS, Entry, Found, Query, check_entry, check_query
from noodle_ray.fusion.index_evidence import COLLECTIONS, asked_of, documents_of
from noodle_ray.fusion.lexical import Floats, Postings, Segment
from noodle_ray.fusion.reading import Vector
from noodle_ray.fusion.rule import Rule, Scores

MOST_ENTRIES = 10_000
SETTING = "NOODLE_FUSION_INDEX_ENTRIES"


class Index:
    """Entries with embeddings of one width. Not safe for use by several threads at once.

    most: how many entries it may hold. Entries are kept in the order in which they were put.
    """

    def __init__(self, width: int, most: int = MOST_ENTRIES) -> None:
        self.width, self.most = width, most
        self._entries: list[Entry | None] = []
        self._slots: dict[str, int] = {}
        self._alive = Growing(np.bool_)
        self._vectors = {field: Growing(np.float32, (width,)) for field in FIELDS}
        self._placed = {field: Growing(np.bool_) for field in FIELDS}
        self._postings = {name: Postings() for name in COLLECTIONS}

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, entry_id: object) -> bool:
        return entry_id in self._slots

    def __iter__(self) -> Iterator[Entry]:
        """The entries in their order, which is that of the scores."""
        return (entry for entry in self._entries if entry is not None)

    def __getitem__(self, entry_id: str) -> Entry:
        """Raises NotFound."""
        entry = self._entries[self._slot_of(entry_id)]
        assert entry is not None
        return entry

    def put(self, entries: Sequence[Entry]) -> None:
        """Adds entries at the end, all or none; one with a known id takes the place of the old one, at the end too.

        Raises InvalidInput for a faulty entry or an id that is given twice, LimitReached beyond `most` entries.
        """
        known = self._check(entries)
        if entries:
            analysed = [documents_of(entry) for entry in entries]
            self.remove(known)
            for name, postings in self._postings.items():
                postings.append([each[name] for each in analysed], self._alive.rows)
            self._append(entries)

    def gathered(self) -> dict[str, tuple[Segment, Floats]]:
        """The terms of all entries, for saving: `restore` takes them."""
        return {name: postings.gathered(self._alive.rows) for name, postings in self._postings.items()}

    def restore(self, entries: Sequence[Entry], postings: dict[str, Postings]) -> None:
        """Fills an empty index with entries whose terms are known. Raises as `put`."""
        self._check(entries)
        self._postings = postings
        self._append(entries)

    def _check(self, entries: Sequence[Entry]) -> list[str]:
        """The ids that are known already."""
        ids = [entry.id for entry in entries]
        for entry in entries:
            check_entry(entry, self.width)
        if len(set(ids)) < len(ids):
            raise InvalidInput.of("entries", "must have different ids")
        known = [entry_id for entry_id in ids if entry_id in self._slots]
        if len(self) + len(ids) - len(known) > self.most:
            raise LimitReached("entries in an index", self.most, SETTING)
        return known

    def remove(self, ids: Sequence[str]) -> None:
        """Removes entries, all or none. Raises NotFound."""
        slots = [self._slot_of(entry_id) for entry_id in ids]
        for entry_id, slot in zip(ids, slots, strict=True):
            self._slots.pop(entry_id, None)
            self._entries[slot] = None
            self._alive.rows[slot] = False
        if 2 * len(self) < len(self._entries):
            self._renumber()

    def search(self, query: Query) -> dict[str, Scores]:
        """(entries,) a source, in the entries' order; higher is likelier, on the source's own scale.

        "…:dense" is the cosine with the entry's nearest embedding of whatever field. An entry that has none is as far
        as the farthest of the others. Raises InvalidInput for a faulty question.
        """
        check_query(query, self.width)
        alive = self._alive.rows
        scores = {f"{modality}:dense": self._cosines(vector) for modality, vector in query.embeddings.items()}
        for asked in asked_of(query):
            postings = self._postings[asked.collection]
            scores[asked.source] = postings.scores(asked.document, asked.weighting, alive)[alive]
        return scores

    def find(self, query: Query, rule: Rule, most: int = 10) -> list[Found]:
        """The likeliest entries, best first; of equally likely ones those that were put first."""
        if not len(self):
            return []
        probabilities = rule.posterior(self.search(query))
        best = np.argsort(-probabilities, kind="stable")[:most]
        slots = np.flatnonzero(self._alive.rows)[best]
        entries = [entry for slot in slots if (entry := self._entries[slot]) is not None]
        return [Found(entry, float(probabilities[index])) for entry, index in zip(entries, best, strict=True)]

    def _slot_of(self, entry_id: str) -> int:
        if entry_id not in self._slots:
            raise NotFound("entry", entry_id)
        return self._slots[entry_id]

    def _append(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._slots[entry.id] = len(self._entries)
            self._entries.append(entry)
        self._alive.append(np.ones(len(entries), np.bool_))
        nowhere = np.zeros(self.width, np.float32)
        for field in FIELDS:
            self._vectors[field].append(np.array([entry.embeddings.get(field, nowhere) for entry in entries]))
            self._placed[field].append([field in entry.embeddings for entry in entries])

    def _cosines(self, vector: Vector) -> Scores:
        alive = self._alive.rows
        best = np.full(int(alive.sum()), -np.inf)
        for field in FIELDS:
            placed = self._placed[field].rows[alive]
            if placed.any():
                cosines = (self._vectors[field].rows @ np.asarray(vector, np.float32))[alive]
                best = np.where(placed, np.maximum(best, cosines), best)
        return _filled(best)

    def _renumber(self) -> None:
        alive = self._alive.rows.copy()
        for postings in self._postings.values():
            postings.renumber(alive)
        for column in (self._alive, *self._vectors.values(), *self._placed.values()):
            column.keep(alive)
        self._entries = [entry for entry in self._entries if entry is not None]
        self._slots = {entry.id: slot for slot, entry in enumerate(self)}


def _filled(cosines: npt.NDArray[np.float64]) -> Scores:
    """Infinities replaced by the least finite value; zeros where there is none."""
    known = np.isfinite(cosines)
    return np.where(known, cosines, cosines[known].min() if known.any() else 0.0)
