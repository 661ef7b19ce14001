"""One session's memory: what its latest requests gave and how they were answered, fading with time and turns."""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, Field, InstanceOf, PlainSerializer

from noodle_ray.base_model import Model
from noodle_ray.errors import CorruptData, InvalidInput
from noodle_ray.fusion.reading import Vector
from noodle_ray.fusion.remembered import Remembered, Turn

FADING = 0.75
"""What is left of a turn's weight when one more turn has come."""
ANSWER_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class MemoryLimits:
    """How much a session remembers: at most so many turns, half of each after `half_life_s`, nothing when idle longer
    than `ttl_s`."""

    turns: int
    half_life_s: float
    ttl_s: float


def _vector_from(value: object) -> object:
    vector = np.frombuffer(base64.b64decode(value, validate=True), "<f4") if isinstance(value, str) else value
    if isinstance(vector, np.ndarray) and not (vector.ndim == 1 and np.isfinite(vector).all()):
        raise ValueError("must be one row of finite numbers")
    return vector


def _vector_text(vector: Vector) -> str:
    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()


KeptVector = Annotated[
    InstanceOf[np.ndarray[Any, Any]],
    BeforeValidator(_vector_from),
    PlainSerializer(_vector_text, when_used="json"),
]


class KeptTurn(Model):
    """A turn as it is kept, with the time at which it was noted, in seconds."""

    at: float
    space: str
    place: KeptVector | None = None
    answer: Annotated[str, Field(max_length=ANSWER_CHARACTERS)] | None = None
    answer_place: KeptVector | None = None

    @classmethod
    def of(cls, turn: Turn, at: float) -> KeptTurn:
        answer = None if turn.answer is None else turn.answer[:ANSWER_CHARACTERS]
        return cls(at=at, space=turn.space, place=turn.place, answer=answer, answer_place=turn.answer_place)

    def direction(self) -> Vector | None:
        """Where the turn lies: between what was given and what it was found to be; None where it lies nowhere."""
        if self.place is None or self.answer_place is None or self.place.shape != self.answer_place.shape:
            return _unit(self.place) if self.place is not None else None
        return _unit(self.place + self.answer_place)


class KeptContext(Model):
    """A session as it is kept."""

    used_at: float
    turns: tuple[KeptTurn, ...] = ()


class EnhancedContext:
    """The memory of one session. Times are seconds on any one clock; one that steps back makes nothing younger."""

    def __init__(self, limits: MemoryLimits, now: float) -> None:
        self._limits = limits
        self._turns: deque[KeptTurn] = deque(maxlen=limits.turns)
        self._used_at = now

    def __len__(self) -> int:
        return len(self._turns)

    @property
    def expires_at(self) -> float:
        return self._used_at + self._limits.ttl_s

    def is_expired(self, now: float) -> bool:
        return now >= self.expires_at

    def note(self, turn: Turn, now: float) -> None:
        """Adds a turn; the oldest goes where there are too many."""
        self._used(now)
        self._turns.append(KeptTurn.of(turn, now))

    def remembered(self, now: float) -> Remembered:
        """What is left of it.

        The place is the mean of the turns, each weighed by 2**(-age / half-life) and by FADING for every turn after
        it; only those count that lie in the space of the latest one. The strength is the heaviest turn's weight times
        how far the turns agree (the mean's length before it is normalised): a session that jumps between subjects says
        little about the next one.
        """
        self._used(now)
        weighed = list(self._weighed(now))
        if not weighed:
            return Remembered(turns=len(self._turns))
        space, shape = weighed[0][0].space, weighed[0][2].shape
        directions = [
            (weight, direction)
            for turn, weight, direction in weighed
            if turn.space == space and direction.shape == shape
        ]
        weights = np.array([weight for weight, _ in directions])
        heaviest = float(weights.max())
        if heaviest <= 0.0:
            return Remembered(turns=len(directions), space=space)
        mean = (weights / weights.sum()) @ np.stack([direction for _, direction in directions]).astype(np.float64)
        strength = min(1.0, heaviest * float(np.linalg.norm(mean)))
        place = _unit(mean)
        if place is None:
            return Remembered(turns=len(directions), space=space)
        return Remembered(turns=len(directions), space=space, place=place, strength=strength)

    def _weighed(self, now: float) -> Iterator[tuple[KeptTurn, float, Vector]]:
        """The turns that lie somewhere, the latest first, with their weights."""
        for later, turn in enumerate(reversed(self._turns)):
            direction = turn.direction()
            if direction is not None:
                age = max(0.0, now - turn.at)
                yield turn, FADING**later * 0.5 ** (age / self._limits.half_life_s), direction

    def _used(self, now: float) -> None:
        self._used_at = max(self._used_at, now)

    def to_json(self) -> dict[str, Any]:
        return KeptContext(used_at=self._used_at, turns=tuple(self._turns)).to_json()

    @classmethod
    def from_json(cls, document: Mapping[str, Any], limits: MemoryLimits) -> EnhancedContext:
        """What `to_json` gave; where the limits have shrunk meanwhile, the oldest turns go. Raises CorruptData."""
        try:
            kept = KeptContext.parse(dict(document))
        except InvalidInput as error:
            raise CorruptData(f"a kept session cannot be read: {error}") from error
        context = cls(limits, kept.used_at)
        context._turns.extend(kept.turns)
        return context


def _unit(vector: Any) -> Vector | None:
    """The vector with length 1; None where it has no direction."""
    length = float(np.linalg.norm(vector))
    return (vector / length).astype(np.float32) if length > 1e-6 else None
