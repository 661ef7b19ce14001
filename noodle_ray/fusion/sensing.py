"""Sensing: has what a request gives decoded, looked up among what was read before, and read by its encoder."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from noodle_ray.errors import Unavailable
from noodle_ray.fusion.admission import Admission
from noodle_ray.fusion.candidate_cache import CandidateCache, stacked
from noodle_ray.fusion.deadline import Deadline
from noodle_ray.fusion.inputs import MultimodalInput
from noodle_ray.fusion.items import Item
from noodle_ray.fusion.ports import Decoder, Encoders, Placed, SharedReadings
from noodle_ray.fusion.reading import Reading, Vector, merged
from noodle_ray.fusion.reading_cache import ReadingCache, content_key
from noodle_ray.fusion.stages import Stages

ANCHOR = "text"
"""The modality whose encoder places texts for all others."""


@dataclass(slots=True)
class Inquiry:
    """One request while it is answered: which versions answer it, and which readings were remembered."""

    request: MultimodalInput
    deadline: Deadline
    stages: Stages
    versions: dict[str, str]
    texts: tuple[str, ...] = ()
    busy_s: float = 0.0
    """How much the encoders had to do already when it came, in seconds of the busiest."""
    cached: set[str] = field(default_factory=set)


class Senses:
    """Reads items, each at most once as long as it is remembered."""

    def __init__(
        self,
        encoders: Encoders,
        decoder: Decoder,
        readings: ReadingCache,
        places: CandidateCache,
        shared: SharedReadings | None,
        clock: Callable[[], float],
    ) -> None:
        self._encoders, self._decoder, self._shared, self._clock = encoders, decoder, shared, clock
        self._readings, self._places = readings, places
        self.admission = Admission()

    async def read(self, inquiry: Inquiry, modality: str, items: Sequence[Item], texts: tuple[str, ...]) -> Reading:
        """All items of one modality as one reading. Raises what decoder and encoder raise."""
        version = self._version(inquiry, modality)
        known = await self._recall(modality, version, items, texts)
        missing = [item for item in dict.fromkeys(items) if item not in known]
        if missing:
            known |= await self._read_now(inquiry, modality, version, missing, texts)
        else:
            inquiry.cached.add(modality)
        return merged([known[item] for item in items])

    async def _recall(
        self, modality: str, version: str, items: Sequence[Item], texts: tuple[str, ...]
    ) -> dict[Item, Reading]:
        """What was read before: with these candidates' texts, or whatever candidates there are."""
        keys = {
            content_key(modality, version, item, told): item for item in dict.fromkeys(items) for told in (None, texts)
        }
        found = {item: reading for key, item in keys.items() if (reading := self._readings.get(key)) is not None}
        unknown = [key for key, item in keys.items() if item not in found]
        if unknown and self._shared is not None:
            shared = await self._shared.recall(unknown)
            for key, reading in shared.items():
                self._readings.put(key, reading)
                found[keys[key]] = reading
        return found

    async def _read_now(
        self, inquiry: Inquiry, modality: str, version: str, items: Sequence[Item], texts: tuple[str, ...]
    ) -> dict[Item, Reading]:
        with inquiry.stages.timed("decode"):
            decoded = await asyncio.gather(*(self._decoder.decode(modality, item) for item in items))
        turn, is_read = self.admission.begin(modality, self._clock()), False
        try:
            with inquiry.stages.timed(modality):
                within_s = inquiry.deadline.for_encoders_s(self._clock())
                readings = await self._encoders.read(modality, version, decoded, texts, within_s)
            is_read = True
        finally:
            self.admission.end(turn, self._clock(), is_read)
        fresh = dict(zip(items, readings, strict=True))
        await self._remember(modality, version, fresh, texts)
        return fresh

    async def _remember(
        self, modality: str, version: str, readings: dict[Item, Reading], texts: tuple[str, ...]
    ) -> None:
        by_key = {
            content_key(modality, version, item, texts if reading.needs_texts else None): reading
            for item, reading in readings.items()
        }
        for key, reading in by_key.items():
            self._readings.put(key, reading)
        if self._shared is not None:
            await self._shared.remember(by_key)

    async def place(self, inquiry: Inquiry) -> Placed:
        """Where the candidates lie in the anchor's space, in their order."""
        candidates = inquiry.request.candidates
        texts = tuple(candidate.text for candidate in candidates if candidate.text is not None)
        with inquiry.stages.timed("candidates"):
            placed = await self.place_texts(inquiry, texts)
            others = await asyncio.gather(
                *(self.read(inquiry, one.modality, (one.content,), ()) for one in candidates if one.text is None)
            )
        rows, read = iter(placed.rows), iter(others)
        ordered = [next(rows) if one.text is not None else _placed(next(read), placed.space) for one in candidates]
        return Placed(placed.space, np.stack(ordered))

    async def place_texts(self, inquiry: Inquiry, texts: tuple[str, ...]) -> Placed:
        version = self._version(inquiry, ANCHOR)
        vectors = self._places.known(version, texts)
        if missing := self._places.missing(version, texts):
            within_s = inquiry.deadline.for_encoders_s(self._clock())
            placed = await self._encoders.place(version, missing, within_s)
            fresh = dict(zip(missing, placed.rows, strict=True))
            self._places.put(version, placed.space, fresh)
            vectors |= fresh
        return Placed(self._places.space(version), stacked(texts, vectors))

    def _version(self, inquiry: Inquiry, modality: str) -> str:
        if modality not in inquiry.versions:
            raise Unavailable(f"no encoder reads {modality} here")
        return inquiry.versions[modality]


def _placed(reading: Reading, space: str) -> Vector:
    if reading.embedding is None or (space and reading.space != space):
        raise Unavailable(f"{reading.encoder} does not place what it reads among texts: it is no candidate's encoder")
    return reading.embedding
