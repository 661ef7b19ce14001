"""The explanation: why a request has no answer, as a smallest conflict and in sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from noodle_ray.resolution.conflict import Conflict, Needs, smallest_conflict
from noodle_ray.resolution.derivation import derive
from noodle_ray.resolution.search import Circle
from noodle_ray.resolution.sentences import Words, tell
from noodle_ray.resolution.universe import Universe

MAX_SENTENCES = 40
SHOWN_FACTS = 10


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why there is no answer."""

    conflict: Conflict
    sentences: tuple[str, ...]


def explain(universe: Universe, circles: Sequence[Circle], there_is: Callable[[str], str]) -> Explanation:
    """For universes without an answer. Where the reason is too long to follow, its extent is told instead."""
    conflict = smallest_conflict(universe, circles)
    end = derive(universe, conflict.facts)
    sentences = tell(universe, end, there_is) if end is not None else []
    if not 0 < len(sentences) <= MAX_SENTENCES:
        sentences = _summary(conflict, Words(universe, there_is))
    return Explanation(conflict, tuple(sentences))


def _summary(conflict: Conflict, words: Words) -> list[str]:
    facts = words.facts(conflict.facts)
    packages = {fact.package for fact in conflict.facts if isinstance(fact, Needs)}
    extent = (
        f"{len(facts)} needs of {len(packages)} packages leave no answer between them, too many to tell step by step"
    )
    more = "; and so on" if len(facts) > SHOWN_FACTS else ""
    return [f"{extent}: {'; '.join(facts[:SHOWN_FACTS])}{more}."]
