"""The conflict: of all facts about a universe, a smallest set that cannot hold together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pysat.solvers import Solver

from noodle_ray.resolution.clauses import VersionClauses
from noodle_ray.resolution.search import Circle
from noodle_ray.resolution.universe import ROOT, Need, Universe

TRIMS = 5
"""How often a solver is asked for a smaller conflict within one before facts are left out one by one."""

MINIMISING_CONFLICTS = 20_000
"""Conflicts of the solver after which no more facts are left out: a second or two, met only where nobody could read the
result anyway."""


@dataclass(frozen=True, slots=True)
class Needs:
    """These versions of a package need another one, all in the same versions."""

    package: str
    versions: int
    need: Need


@dataclass(frozen=True, slots=True)
class Around:
    """These needs would lead in a circle, and must not."""

    circle: Circle


Fact = Needs | Around


def facts_of(universe: Universe, circles: Sequence[Circle]) -> list[Fact]:
    """Everything there is to know; versions that need the same are one fact."""
    versions: dict[tuple[str, str, int], int] = {}
    first: dict[tuple[str, str, int], Need] = {}
    for package, place, need in universe.needs():
        key = package, need.package, need.allowed
        versions[key] = versions.get(key, 0) | 1 << place
        first.setdefault(key, need)
    needs = [Needs(key[0], together, first[key]) for key, together in versions.items()]
    return [*needs, *(Around(circle) for circle in circles)]


@dataclass(frozen=True, slots=True)
class Conflict:
    """Facts that leave no answer. `minimal`: without any one of them there would be an answer."""

    facts: tuple[Fact, ...]
    minimal: bool


def smallest_conflict(universe: Universe, circles: Sequence[Circle]) -> Conflict:
    """For universes without an answer, where `circles` were met and forbidden.

    Facts are left out one by one (deletion-based extraction of a minimal unsatisfiable subset; Marques-Silva, "Minimal
    Unsatisfiability", 2010).
    """
    facts = facts_of(universe, circles)
    versions = VersionClauses(universe)
    switches = [versions.variable() for _ in facts]
    for switch, fact in zip(switches, facts, strict=True):
        versions.clauses.extend([-switch, *clause] for clause in _clauses(fact, versions))
    versions.clauses.append([versions.taken[ROOT][0]])
    solver = versions.solver()
    try:
        kept, minimal = _minimise(solver, switches)
    finally:
        solver.delete()
    return Conflict(tuple(fact for switch, fact in zip(switches, facts, strict=True) if switch in kept), minimal)


def _clauses(fact: Fact, versions: VersionClauses) -> Iterable[list[int]]:
    if isinstance(fact, Needs):
        allowed = versions.one_of(fact.need.package, fact.need.allowed)
        return [[-version, *allowed] for version in versions.one_of(fact.package, fact.versions)]
    uses = []
    clauses = []
    for package, needed in fact.circle:
        use = versions.variable()
        uses.append(-use)
        needing = versions.universe.packages[package].needing(needed)
        clauses += [[-version, use] for version in versions.one_of(package, needing)]
    return [*clauses, uses]


def _minimise(solver: Solver, switches: list[int]) -> tuple[set[int], bool]:
    """Switches that leave no answer, and whether each of them is needed for that."""
    solver.solve(assumptions=switches)
    core = _used(solver, switches)
    for _ in range(TRIMS):
        solver.solve(assumptions=core)
        if len(smaller := _used(solver, core)) == len(core):
            break
        core = smaller
    needed: list[int] = []
    before = solver.accum_stats()["conflicts"]
    while core:
        if (left := MINIMISING_CONFLICTS + before - solver.accum_stats()["conflicts"]) <= 0:
            return {*needed, *core}, False
        solver.conf_budget(left)
        tried = core.pop()
        if solver.solve_limited(assumptions=[*needed, *core]) is False:
            core = _used(solver, core)
        else:
            needed.append(tried)
    return set(needed), True


def _used(solver: Solver, switches: list[int]) -> list[int]:
    """Those that the solver used to find that there is no answer, in their order."""
    used = set(solver.get_core() or ())
    return [switch for switch in switches if switch in used]
