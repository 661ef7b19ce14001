"""The derivation: how facts lead to "there is no answer", step by step, as PubGrub finds it.

Unit propagation and conflict-driven learning over sets of versions (Weizenbaum, "PubGrub: Next-Generation Version
Solving", 2018), here over the few facts of a smallest conflict only, to explain what a SAT solver has found.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from noodle_ray.resolution.conflict import Fact, Needs
from noodle_ray.resolution.universe import ROOT, Universe

MAX_STEPS = 500
"""Decisions and conflicts that are followed; a derivation that takes more could not be read anyway."""


@dataclass(frozen=True, slots=True, eq=False)
class Clash:
    """What cannot be: each package of `terms` in the set given for it.

    In these sets, one bit more than there are versions says that the package is absent. `causes` are the fact it says,
    or the two from which it follows.
    """

    terms: Mapping[str, int]
    causes: Fact | tuple[Clash, Clash]


@dataclass(frozen=True, slots=True)
class _Step:
    """From here on a package is in `allowed` only: decided (no cause), or because of a clash."""

    package: str
    allowed: int
    cause: Clash | None
    level: int


def derive(universe: Universe, facts: Iterable[Fact]) -> Clash | None:
    """The clash that says that the request cannot be met, or None where its derivation is too long.

    The facts must leave no answer.
    """
    return _Derivation(universe, facts).run()


def absent(universe: Universe, package: str) -> int:
    """The bit that says that a package is absent."""
    return 1 << len(universe.packages[package].versions)


def everything(universe: Universe, package: str) -> int:
    """All versions of a package, and its absence."""
    return 2 * absent(universe, package) - 1


class _Derivation:
    def __init__(self, universe: Universe, facts: Iterable[Fact]) -> None:
        self._universe = universe
        self._full = {name: everything(universe, name) for name in universe.packages}
        self._clashes = [clash for fact in facts if (clash := self._of_fact(fact)) is not None]
        self._steps: list[_Step] = [_Step(ROOT, 1, None, 0)]
        self._now = {**self._full, ROOT: 1}
        self._level = 0

    def _of_fact(self, fact: Fact) -> Clash | None:
        terms: dict[str, int] = {}
        if isinstance(fact, Needs):
            terms[fact.package] = fact.versions
            unmet = self._full[fact.need.package] & ~fact.need.allowed
            terms[fact.need.package] = terms.get(fact.need.package, self._full[fact.need.package]) & unmet
        else:
            for package, needed in fact.circle:
                needing = self._universe.packages[package].needing(needed)
                terms[package] = terms.get(package, self._full[package]) & needing
        return self._clash(terms, fact)

    def _clash(self, terms: Mapping[str, int], causes: Fact | tuple[Clash, Clash]) -> Clash | None:
        """Terms that always hold are left out; one that never holds makes it say nothing."""
        if not all(terms.values()):
            return None
        return Clash({name: term for name, term in terms.items() if term != self._full[name]}, causes)

    def run(self) -> Clash | None:
        for _ in range(MAX_STEPS):
            clash = self._propagate()
            if clash is not None:
                learned = self._learn(clash)
                if set(learned.terms) <= {ROOT}:
                    return learned
                self._clashes.append(learned)
            elif not self._decide():
                raise ValueError("these facts leave an answer")
        return None

    def _propagate(self) -> Clash | None:
        """Follows what is known as far as it leads; the clash that has come true, if one has."""
        changed = True
        while changed:
            changed = False
            for clash in reversed(self._clashes):  # what was learned last leads furthest
                open_terms = [name for name, term in clash.terms.items() if self._now[name] & ~term]
                if not open_terms:
                    return clash
                [name, *more] = open_terms
                if not more and self._now[name] & clash.terms[name]:
                    self._take(_Step(name, self._full[name] & ~clash.terms[name], clash, self._level))
                    changed = True
        return None

    def _take(self, step: _Step) -> None:
        self._steps.append(step)
        self._now[step.package] &= step.allowed

    def _decide(self) -> bool:
        """Takes the newest version of a package that must be there: the one with the fewest left."""
        undecided = [
            (allowed.bit_count(), name)
            for name, allowed in self._now.items()
            if not allowed & absent(self._universe, name) and allowed.bit_count() > 1
        ]
        if not undecided:
            return False
        name = min(undecided)[1]
        self._level += 1
        self._take(_Step(name, self._now[name] & -self._now[name], None, self._level))
        return True

    # -- learning

    def _learn(self, clash: Clash) -> Clash:
        """Goes back along causes until the clash tells what to do differently at an earlier level, and goes there."""
        while not set(clash.terms) <= {ROOT}:
            latest, level_before = self._latest(clash)
            step = self._steps[latest]
            if step.cause is None or level_before < step.level:
                self._go_back(level_before)
                return clash
            clash = self._resolved(clash, step.cause, step.package)
        return clash

    def _latest(self, clash: Clash) -> tuple[int, int]:
        """The step that made the clash come true, and the level at which the rest of it was true."""
        at = {name: self._true_since(name, term) for name, term in clash.terms.items()}
        package = max(at, key=lambda name: at[name])
        latest = at[package]
        # What this step does not bring about by itself was so before.
        rest = (clash.terms[package] | ~self._steps[latest].allowed) & self._full[package]
        before = [self._true_since(package, rest), *(index for name, index in at.items() if name != package)]
        return latest, max(self._steps[index].level for index in before)

    def _true_since(self, package: str, term: int) -> int:
        """The first step after which the package is surely within the term."""
        allowed = self._full[package]
        if not allowed & ~term:
            return 0
        for index, step in enumerate(self._steps):
            if step.package == package:
                allowed &= step.allowed
                if not allowed & ~term:
                    return index
        raise AssertionError("the term does not hold")

    def _resolved(self, clash: Clash, cause: Clash, package: str) -> Clash:
        """What follows from both: whichever version the package has, one of the two applies."""
        terms = {}
        for name in {**clash.terms, **cause.terms}:
            one, other = clash.terms.get(name, self._full[name]), cause.terms.get(name, self._full[name])
            terms[name] = one | other if name == package else one & other
        followed = self._clash(terms, (clash, cause))
        assert followed is not None, "both held, so that what follows is not void"
        return followed

    def _go_back(self, level: int) -> None:
        self._level = level
        self._steps = [step for step in self._steps if step.level <= level]
        self._now = dict(self._full)
        for step in self._steps:
            self._now[step.package] &= step.allowed
