"""The search: a SAT solver finds whether there is an answer, and is asked for better ones, package by package.

Complete: it finds an answer exactly where there is one. Which packages are decided first is fixed: those that the
request names, in its order, then what these need, breadth first. Each takes the most welcome version that leaves an
answer to be found, given all that were decided before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import networkx

from noodle_ray.resolution.clauses import VersionClauses, model_of
from noodle_ray.resolution.universe import ROOT, Need, Universe

IMPROVING_CONFLICTS = 10_000
"""Conflicts that the solver may meet in looking for better versions: about a second of work.

Only graphs far harder than any published one come near it. What is not improved then satisfies everything, but may not
be the newest. Counted in conflicts, not in seconds, so that the same request has the same answer everywhere.
"""

Choice = Mapping[str, int]
"""The place of the version that is taken, by package."""

Circle = tuple[tuple[str, str], ...]
"""Needs that lead in a circle: a package and one that it needs, then that one, or an option of it, and so on."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a search came to.

    `choice` is None where there is no answer; packages that nothing in the answer needs are not in it. `circles` were
    met and forbidden. `newest` is False where the search for newer versions was cut short.
    """

    choice: Choice | None
    circles: tuple[Circle, ...] = ()
    newest: bool = True


def search(universe: Universe, circles_allowed: bool = True) -> Outcome:
    """The best answer. `circles_allowed`: whether packages of the answer may need each other in a circle."""
    circles: list[Circle] = []
    with _Search(universe) as asked:
        while (choice := asked.best()) is not None:
            circle = None if circles_allowed else find_circle(universe, choice)
            if circle is None:
                break
            circles.append(circle)
            asked.forbid_circle(circle)
        return Outcome(choice, tuple(circles), asked.conflicts_left > 0)


def find_circle(universe: Universe, choice: Choice) -> Circle | None:
    """Needs within the choice that lead in a circle, the same ones for the same choice."""
    graph = networkx.DiGraph()
    packages = universe.packages
    for name in sorted(choice):
        for needed in sorted(need.package for need in packages[name].needs[choice[name]]):
            ends = packages[name].owner, packages[needed].owner
            if ends[0] != ends[1] and not graph.has_edge(*ends):
                graph.add_edge(*ends, need=(name, needed))
    try:
        return tuple(graph.edges[edge]["need"] for edge in networkx.find_cycle(graph))
    except networkx.NetworkXNoCycle:
        return None


class _Search:
    """A universe as clauses, and a solver that is asked again and again.

    For each set of versions that somebody needs, a variable says that one of them is taken.
    """

    def __init__(self, universe: Universe) -> None:
        self._universe = universe
        self._versions = VersionClauses(universe)
        self._sets: dict[tuple[str, int], int] = {}
        self._uses: dict[tuple[str, str], int] = {}
        self.conflicts_left = IMPROVING_CONFLICTS
        clauses = self._versions.clauses
        for package, place, need in universe.needs():
            if (version := self._versions.taken[package].get(place)) is not None:
                clauses.append([-version, self._set(need)])
        clauses.append([self._versions.taken[ROOT][0]])
        self._solver = self._versions.solver()
        self._model: frozenset[int] = frozenset()

    def __enter__(self) -> _Search:
        return self

    def __exit__(self, *_: object) -> None:
        self._solver.delete()

    def _set(self, need: Need) -> int:
        key = need.package, need.allowed
        if key not in self._sets:
            one_of = self._sets[key] = self._versions.variable()
            self._versions.clauses.append([-one_of, *self._versions.one_of(need.package, need.allowed)])
        return self._sets[key]

    def forbid_circle(self, circle: Circle) -> None:
        """No answer has all of these needs, whatever the versions."""
        self._solver.add_clause([-self._use(name, needed) for name, needed in circle])

    def _use(self, name: str, needed: str) -> int:
        """The variable that says that a version is taken which needs the other package."""
        key = name, needed
        if key not in self._uses:
            self._uses[key] = self._versions.variable()
            for version in self._versions.one_of(name, self._universe.packages[name].needing(needed)):
                self._solver.add_clause([-version, self._uses[key]])
        return self._uses[key]

    # -- asking

    def best(self) -> Choice | None:
        """The best answer, as far as conflicts are left to look for it."""
        if not self._solver.solve():
            return None
        self._model = model_of(self._solver)
        choice: dict[str, int] = {ROOT: 0}
        decided = [self._versions.taken[ROOT][0]]
        todo = deque(need.package for need in self._universe.request)
        while todo:
            name = todo.popleft()
            if name in choice:
                continue
            choice[name] = self._improve(name, decided)
            decided.append(self._versions.taken[name][choice[name]])
            todo.extend(need.package for need in self._universe.packages[name].needs[choice[name]])
        del choice[ROOT]
        return choice

    def _improve(self, name: str, decided: list[int]) -> int:
        """The place of its most welcome version that leaves an answer.

        Asks for the first, then for one of the next two, of the next four: that there is none is found out quickly,
        and an answer is expensive, so that it should be a good one.
        """
        ladder, known, step = self._versions.ladder[name], 0, 1
        found = self._rung(name)
        while known < found and self.conflicts_left > 0:
            top = min(known + step, found)
            if self._ask([*decided, ladder[top - 1]]):
                found, step = self._rung(name), 1
            else:
                known, step = top, 2 * step
        return self._universe.packages[name].order[found]

    def _rung(self, name: str) -> int:
        """How welcome the version is that the last answer takes: 0 is best."""
        taken = self._versions.taken[name]
        return next(
            rung for rung, place in enumerate(self._universe.packages[name].order) if taken[place] in self._model
        )

    def _ask(self, assumptions: list[int]) -> bool:
        """Whether there is an answer with all of these; False too where the conflicts are used up."""
        before = self._solver.accum_stats()["conflicts"]
        self._solver.conf_budget(self.conflicts_left)
        found = self._solver.solve_limited(assumptions=assumptions)
        self.conflicts_left -= self._solver.accum_stats()["conflicts"] - before
        if found is None:
            self.conflicts_left = 0
        if not found:
            return False
        self._model = model_of(self._solver)
        return True
