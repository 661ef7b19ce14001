"""Checking a conflict: the same question put another way to another solver, so that no slip of the search is shared."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from pysat.solvers import Solver

from noodle_ray.resolution.conflict import Fact, Needs
from noodle_ray.resolution.universe import ROOT, Universe, places

SOLVER = "cadical153"


def leaves_answer(universe: Universe, facts: Sequence[Fact]) -> bool:
    """Whether there is an answer where nothing but these facts holds."""
    numbers: dict[tuple[str, int], int] = {}
    for package in universe.packages.values():
        for place in range(len(package.versions)):
            numbers[package.name, place] = len(numbers) + 1
    clauses = [[numbers[ROOT, 0]]]
    for package in universe.packages.values():
        mine = [numbers[package.name, place] for place in range(len(package.versions))]
        clauses += ([-one, -other] for one, other in combinations(mine, 2))
    for fact in facts:
        clauses += _clauses(universe, fact, numbers)
    with Solver(name=SOLVER, bootstrap_with=clauses) as solver:
        return bool(solver.solve())


def _clauses(universe: Universe, fact: Fact, numbers: dict[tuple[str, int], int]) -> list[list[int]]:
    if isinstance(fact, Needs):
        allowed = [numbers[fact.need.package, place] for place in places(fact.need.allowed)]
        return [[-numbers[fact.package, place], *allowed] for place in places(fact.versions)]
    choices: list[list[int]] = [[]]
    for package, needed in fact.circle:
        needing = [numbers[package, place] for place in places(universe.packages[package].needing(needed))]
        choices = [[*choice, -number] for choice in choices for number in needing]
    return choices


def is_smallest(universe: Universe, facts: Sequence[Fact]) -> bool:
    """Whether the facts leave no answer, and would leave one without any one of them."""
    if leaves_answer(universe, facts):
        return False
    return all(leaves_answer(universe, [*facts[:place], *facts[place + 1 :]]) for place in range(len(facts)))
