"""What a session contributes to a request, and what a request leaves behind in it."""

from __future__ import annotations

from dataclasses import dataclass

from noodle_ray.fusion.reading import Vector


@dataclass(frozen=True, slots=True)
class Turn:
    """One request of a session: where what was given lies in the space of that name, and how it was answered.

    answer: what the best candidate was called; None where nothing was asked, or the answer was not confident.
    answer_place: where that candidate lies, where that is known.
    """

    space: str
    place: Vector | None
    answer: str | None = None
    answer_place: Vector | None = None


@dataclass(frozen=True, slots=True)
class Remembered:
    """A session as evidence: how many turns it remembers, and where their decaying mean lies in the space.

    strength: 0..1, how much of it is left after time and turns. place is None where nothing is left.
    """

    turns: int
    space: str = ""
    place: Vector | None = None
    strength: float = 0.0
