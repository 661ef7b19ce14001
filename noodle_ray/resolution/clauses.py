"""Versions as clauses: what a SAT solver must know so that at most one version of each package is taken."""

from __future__ import annotations

from collections.abc import Iterable

from pysat.solvers import Solver

from noodle_ray.resolution.universe import Package, Universe, places

SOLVER = "glucose4"
"""python-sat has others too; this one found first answers soonest on hard random graphs."""


class VersionClauses:
    """Variables and clauses of a universe's versions, without what they need.

    For each version a variable says that it is taken. For each package a ladder of variables says that one of its k
    most welcome versions is taken: it lets one version at most be taken, and lets the solver be asked for a better one.
    """

    def __init__(self, universe: Universe) -> None:
        self.universe = universe
        self.clauses: list[list[int]] = []
        self.taken: dict[str, dict[int, int]] = {}
        self.ladder: dict[str, list[int]] = {}
        self._count = 0
        for package in universe.packages.values():
            self._add(package)

    def variable(self) -> int:
        self._count += 1
        return self._count

    def one_of(self, package: str, versions: int) -> list[int]:
        """The variables of these versions: those that nothing can reach are not among them."""
        taken = self.taken[package]
        return [taken[place] for place in places(versions) if place in taken]

    def solver(self) -> Solver:
        """Of all clauses up to now; to be deleted by whoever asks for it."""
        return Solver(name=SOLVER, bootstrap_with=self.clauses)

    def _add(self, package: Package) -> None:
        taken = self.taken[package.name] = {place: self.variable() for place in package.order}
        ladder = self.ladder[package.name] = [self.variable() for _ in package.order]
        for rung, place in enumerate(package.order):
            version, upper = taken[place], ladder[rung]
            below = [ladder[rung - 1]] if rung else []
            self.clauses += [[-version, upper], [-upper, version, *below]]
            for lower in below:
                self.clauses += [[-lower, upper], [-lower, -version]]


def model_of(solver: Solver) -> frozenset[int]:
    """The variables that hold in the solver's last answer."""
    literals: Iterable[int] = solver.get_model()
    return frozenset(literal for literal in literals if literal > 0)
