"""Reads what is to be found, and the queries an index is fitted to, with the encoders that answer requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from noodle_ray.errors import InvalidInput, NotFound
from noodle_ray.fusion import limits
from noodle_ray.fusion.deadline import Deadline
from noodle_ray.fusion.fitting import Case, beats, fit_rule
from noodle_ray.fusion.index_entry import Entry
from noodle_ray.fusion.index_messages import Given, KnownQuery, NewEntry
from noodle_ray.fusion.inputs import MultimodalInput
from noodle_ray.fusion.modality import FIELD_OF, MODALITIES
from noodle_ray.fusion.ports import Encoders
from noodle_ray.fusion.reading import Reading
from noodle_ray.fusion.rule import Rule, modality_of
from noodle_ray.fusion.sensing import ANCHOR, Inquiry, Senses
from noodle_ray.fusion.stages import Stages
from noodle_ray.fusion.stored_index import ReadEntry, StoredIndex

AT_ONCE = 4
"""Readings under way for an index: requests, which have deadlines, get their turns in between."""
PATIENCE_MS = 120_000.0
VALIDATED = 3
"""Of so many queries the last validates, the others fit."""


class Indexer:
    """Reads through the engine's senses, and so through its cache."""

    def __init__(self, encoders: Encoders, senses: Senses, clock: Callable[[], float]) -> None:
        self._encoders, self._senses, self._clock = encoders, senses, clock

    async def space(self) -> str:
        """The space into which texts are placed now. Raises Unavailable."""
        inquiry = await self._inquiry(MultimodalInput(text="space"))
        return (await self._senses.place_texts(inquiry, ("space",))).space

    async def read_entries(self, entries: Sequence[NewEntry]) -> list[ReadEntry]:
        """The entries as an index holds them. Raises what decoders and encoders raise, naming the entry."""
        readings = await self._read_all(entries, [entry.name for entry in entries])
        return [read_entry(entry, found) for entry, found in zip(entries, readings, strict=True)]

    async def fit(self, index: StoredIndex, queries: Sequence[KnownQuery]) -> Rule:
        """The rule that suits these queries: that of its kind where no other is likely to be better.

        Raises InvalidInput for answers that are no entries of the index.
        """
        positions = _positions(index, queries)
        requests = [query.request() for query in queries]
        readings = await self._read_all(queries, [f"query {number}" for number in range(1, len(queries) + 1)])
        scored = [index.search(request, found) for request, found in zip(requests, readings, strict=True)]
        cases = [Case(scores, right) for scores, right in zip(scored, positions, strict=True)]
        return await asyncio.to_thread(fitted_rule, cases, index.first_rule)

    async def _read_all(self, given: Sequence[Given], names: Sequence[str]) -> list[dict[str, Reading]]:
        turns = asyncio.Semaphore(AT_ONCE)

        async def read(one: Given, name: str) -> dict[str, Reading]:
            async with turns:
                return await self._read(one, name)

        tasks = [asyncio.ensure_future(read(one, name)) for one, name in zip(given, names, strict=True)]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()  # what is wrong with one is wrong with all: the others need not be read

    async def _read(self, given: Given, name: str) -> dict[str, Reading]:
        inquiry = await self._inquiry(given.request())
        try:
            return {
                modality: await self._senses.read(inquiry, modality, items, ()) for modality, items in given.given()
            }
        except InvalidInput as error:
            raise InvalidInput(error.faults, subject=name) from error

    async def _inquiry(self, request: MultimodalInput) -> Inquiry:
        versions = await self._encoders.versions(sorted({ANCHOR, *(modality for modality, _ in request.given())}))
        return Inquiry(request, Deadline.after(self._clock(), PATIENCE_MS), Stages(self._clock), versions)


def read_entry(entry: NewEntry, readings: Mapping[str, Reading]) -> ReadEntry:
    """An entry with what was made of it: its words and code as given, what is said in its sounds and shown in its
    pictures, and where each lies."""
    placed = {modality: reading for modality, reading in readings.items() if reading.embedding is not None}
    spaces = {reading.space for reading in placed.values()}
    if len(spaces) > 1:
        raise InvalidInput.of(entry.name, f"was read into several spaces: {', '.join(sorted(spaces))}")
    made = Entry(
        id=entry.name,
        text=_joined(entry.text, limits.TEXT_CHARACTERS),
        code=_joined(entry.code, limits.CODE_CHARACTERS),
        others=tuple(
            readings[modality].transcript or readings[modality].seen
            for modality in ("audio", "vision")
            if modality in readings
        ),
        embeddings={
            FIELD_OF[name]: reading.embedding for name, reading in placed.items() if reading.embedding is not None
        },
        meta=entry.meta,
    )
    return ReadEntry(made, next(iter(spaces), ""))


def _joined(parts: Sequence[str], limit: int) -> str | None:
    return "\n".join(parts)[:limit] if parts else None


def _positions(index: StoredIndex, queries: Sequence[KnownQuery]) -> list[int]:
    known = {name: position for position, name in enumerate(index.names)}
    strangers = sorted({query.answer for query in queries} - known.keys())
    if not known:
        raise NotFound("entry", strangers[0])
    if strangers:
        raise InvalidInput.of("answer", f"is no entry of the index {index.name}", ", ".join(strangers))
    return [known[query.answer] for query in queries]


def fitted_rule(cases: Sequence[Case], first: Rule) -> Rule:
    """The rule that suits the cases, with its figures on those that only validated; the first where none beats it.

    Of every three cases the third validates: the split depends on their order alone. What the cases do not show is
    weighed as by the first rule.
    """
    validation = cases[VALIDATED - 1 :: VALIDATED]
    fit = [case for number, case in enumerate(cases, 1) if number % VALIDATED]
    is_better = beats(first, cases)
    rule = completed(fit_rule(fit, validation), first) if is_better else first
    right = [int(np.argmax(rule.posterior(case.scores))) == case.right for case in validation]
    figures = {
        "is_kept": not is_better,
        "fitted_on": len(fit),
        "validated_on": len(validation),
        "accuracy_percent": round(100.0 * float(np.mean(right)), 1),
        "modalities": [name for name in MODALITIES if any(s.startswith(name) for case in cases for s in case.scores)],
    }
    return rule.model_copy(update={"fitted": figures})


def completed(rule: Rule, first: Rule) -> Rule:
    """The rule, with what only the first one knows: other sources' temperatures, subsets without any of its own."""
    known = {modality_of(source) for source in rule.temperatures}
    others = {name: subset for name, subset in first.subsets.items() if known.isdisjoint(name.split("+"))}
    temperatures = {**first.temperatures, **rule.temperatures}
    return rule.model_copy(update={"temperatures": temperatures, "subsets": {**others, **rule.subsets}})
