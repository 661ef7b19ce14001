"""An index as it is kept and asked: entries in one anchor's space, with the rule that weighs its evidence."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from noodle_ray.errors import Conflict, CorruptData, InvalidInput, NotFound
from noodle_ray.fusion.index import Index
from noodle_ray.fusion.index_entry import Entry, Query
from noodle_ray.fusion.index_file import from_bytes, to_bytes
from noodle_ray.fusion.index_messages import IndexInfo
from noodle_ray.fusion.index_rules import shipped_rule
from noodle_ray.fusion.inputs import MultimodalInput
from noodle_ray.fusion.modality import CONTEXT, MODALITIES
from noodle_ray.fusion.reading import Reading
from noodle_ray.fusion.rule import Rule, Scores

DENSE = ":dense"
_MAGIC = b"noodle-fusion-index 1 "
_COSINE_TEMPERATURE = 0.05
"""That with which sentence encoders are trained: for what nobody has fitted."""


@dataclass(frozen=True, slots=True)
class IndexKind:
    """What an index of that kind compares, and the rule that it begins with."""

    description: str
    uses: Callable[[str], bool]
    rule: Rule


_UNFITTED = {f"{name}{DENSE}": _COSINE_TEMPERATURE for name in (*MODALITIES, CONTEXT)}


def _completed(rule: Rule) -> Rule:
    """The rule, with a scale for the embeddings of what it was not fitted on."""
    return rule.model_copy(update={"temperatures": {**_UNFITTED, **rule.temperatures}})


def _everything(source: str) -> bool:
    return True


KINDS = {
    "code": IndexKind("embeddings, words, code by tokens and structure", _everything, _completed(shipped_rule("code"))),
    "text": IndexKind("embeddings and words of texts", _everything, _completed(shipped_rule("text"))),
    "dense": IndexKind("embeddings alone", lambda source: source.endswith(DENSE), _completed(Rule())),
}


@dataclass(frozen=True, slots=True)
class ReadEntry:
    """An entry with what the encoders made of it, and the space in which its embeddings lie ("": it has none)."""

    entry: Entry
    space: str = ""


class StoredIndex:
    """One index. Satisfies the engine's port `Searchable`. Not safe for use by several threads at once."""

    def __init__(self, name: str, kind: str, most: int) -> None:
        """Raises InvalidInput for an unknown kind."""
        if kind not in KINDS:
            raise InvalidInput.of("kind", f"is none of {', '.join(KINDS)}", kind)
        self.name, self.kind, self._most = name, kind, most
        self.space = ""
        self.rule = KINDS[kind].rule
        self._index: Index | None = None
        self._ordered: list[Entry] | None = None

    def __len__(self) -> int:
        return 0 if self._index is None else len(self._index)

    @property
    def entries(self) -> list[Entry]:
        """In their order, which is that of the scores."""
        if self._ordered is None:
            self._ordered = list(self._index or ())
        return self._ordered

    @property
    def names(self) -> list[str]:
        return [entry.id for entry in self.entries]

    @property
    def first_rule(self) -> Rule:
        """The rule that indexes of its kind begin with."""
        return KINDS[self.kind].rule

    @property
    def texts(self) -> tuple[str, ...]:
        return ()  # for an encoder that scores texts itself, an index is too much to read in time

    def meta(self, position: int) -> dict[str, Any]:
        return dict(self.entries[position].meta)

    def put(self, entries: Sequence[ReadEntry]) -> None:
        """Adds entries, all or none; one of a known name takes that one's place.

        Raises Conflict where they lie in another space than the index, InvalidInput, LimitReached.
        """
        spaces = {entry.space for entry in entries if entry.entry.embeddings} | ({self.space} if len(self) else set())
        if len(spaces) > 1:
            raise Conflict(
                f"the index {self.name} lies in another space than what the encoders make of things now: drop it, and "
                "add its entries again"
            )
        if self._index is None or not len(self):
            self._index = Index(_width(entries), self._most)
        self._index.put([entry.entry for entry in entries])
        self._ordered, self.space = None, next(iter(spaces), self.space)

    def remove(self, names: Sequence[str]) -> None:
        """Removes what is there of these."""
        if self._index is not None:
            self._index.remove([name for name in dict.fromkeys(names) if name in self._index])
            self._ordered = None

    def position(self, name: str) -> int:
        """Where the entry stands in scores. Raises NotFound."""
        if self._index is None or name not in self._index:
            raise NotFound("entry", name)
        return self.names.index(name)

    def search(self, request: MultimodalInput, readings: Mapping[str, Reading]) -> dict[str, Scores]:
        """By source, a score for each entry: of what was read of the request, and of what a session remembers.

        Raises Conflict for an empty index, InvalidInput for readings of another space.
        """
        if self._index is None or not len(self):
            raise Conflict(f"the index {self.name} is empty: add entries first")
        self._check_space(readings)
        scores = self._index.search(_query(request, readings)) if _asks(readings) else {}
        used = {source: values for source, values in scores.items() if KINDS[self.kind].uses(source)}
        if CONTEXT in readings and (place := readings[CONTEXT].embedding) is not None:
            found = self._index.search(Query(embeddings={"text": place}))
            used[CONTEXT + DENSE] = found["text" + DENSE]
        return used

    def _check_space(self, readings: Mapping[str, Reading]) -> None:
        for modality, reading in readings.items():
            if reading.embedding is not None and self.space and reading.space not in ("", self.space):
                problem = f"was read into the space {reading.space}, the index {self.name} lies in {self.space}"
                raise InvalidInput.of(modality, f"{problem}: drop it, and add its entries again")

    def with_rule(self, rule: Rule) -> None:
        """Weighs its evidence by this rule from now on. What a session remembers keeps its own scale."""
        self.rule = _completed(rule)

    def info(self, version: str = "") -> IndexInfo:
        return IndexInfo(
            name=self.name,
            kind=self.kind,
            entries=len(self),
            version=version,
            space=self.space,
            fitted=self.rule.fitted,
        )

    def to_bytes(self) -> bytes:
        """The whole index. Its first line holds the hash of the rest: its version."""
        head = {**self.info().to_json(), "rule": self.rule.to_json()}
        rest = json.dumps(head).encode() + b"\n" + (to_bytes(self._index) if self._index is not None else b"")
        return _MAGIC + sha256(rest).hexdigest().encode() + b"\n" + rest

    @classmethod
    def from_bytes(cls, data: bytes, most: int) -> StoredIndex:
        """What `to_bytes` gave. Raises CorruptData, LimitReached for more than `most` entries."""
        rest = checked(data)
        head, _, content = rest.partition(b"\n")
        described = json.loads(head)
        try:
            stored = cls(described["name"], described["kind"], most)
            stored.rule = Rule.parse(described["rule"])
            stored.space = str(described["space"])
        except (KeyError, InvalidInput) as error:
            raise CorruptData(f"an index of another release: {error}") from error
        stored._index = from_bytes(content, most) if content else None
        return stored


def version_of(data: bytes) -> str:
    """The version of a kept index, which is its content's hash. Raises CorruptData where it is none."""
    first = data.partition(b"\n")[0]
    if not first.startswith(_MAGIC):
        raise CorruptData("this is no index")
    return first.removeprefix(_MAGIC).decode("ascii", "replace")


def info_of(data: bytes) -> IndexInfo:
    """What the index is, from its first two lines alone. Raises CorruptData."""
    try:
        head = json.loads(data.split(b"\n", 2)[1])
        known = {name: value for name, value in head.items() if name in IndexInfo.model_fields}
        return IndexInfo.parse({**known, "version": version_of(data)})
    except (IndexError, ValueError, AttributeError, InvalidInput) as error:
        raise CorruptData(f"the index is damaged: {type(error).__name__}") from error


def checked(data: bytes) -> bytes:
    """What stands below the first line. Raises CorruptData where that is not what its hash says."""
    version, rest = version_of(data), data.partition(b"\n")[2]
    if sha256(rest).hexdigest() != version:
        raise CorruptData("the index is damaged: its sha256 is not what it says")
    return rest


def _width(entries: Sequence[ReadEntry]) -> int:
    widths = [len(vector) for entry in entries for vector in entry.entry.embeddings.values()]
    if not widths:
        raise InvalidInput.of("entries", "no encoder places any of them in the common space")
    return widths[0]


def _asks(readings: Mapping[str, Reading]) -> bool:
    return any(modality != CONTEXT for modality in readings)


def _query(request: MultimodalInput, readings: Mapping[str, Reading]) -> Query:
    """What was read in time: a modality that came too late asks nothing, not even by its words."""
    own = {modality: reading for modality, reading in readings.items() if modality != CONTEXT}
    return Query(
        text="\n".join(request.text) if "text" in own else None,
        code="\n".join(request.code) if "code" in own else None,
        transcript=own["audio"].transcript or None if "audio" in own else None,
        embeddings={modality: reading.embedding for modality, reading in own.items() if reading.embedding is not None},
    )
