"""How often the resolver is right, and how fast, beside resolvelib: on given cases and on hard random graphs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from resolvelib import AbstractProvider, BaseReporter, ResolutionImpossible, ResolutionTooDeep, Resolver

from noodle_ray.entry.bench.report import Row
from noodle_ray.entry.bench.timing import percentile
from noodle_ray.modules.resolver import solve
from noodle_ray.resolution.cases import Case, is_answer
from noodle_ray.resolution.checking import is_smallest
from noodle_ray.resolution.explanation import explain
from noodle_ray.resolution.random_tables import Shape, random_table
from noodle_ray.resolution.search import search
from noodle_ray.resolution.table import Packages, Table
from noodle_ray.resolution.universe import explore, places

LIMIT_S = 1.0
"""A resolver that takes longer has not answered."""

GOALS_MS = {"p95": 100.0, "max": 1000.0}

HARD_SHAPES = (
    Shape(packages=20, versions=6, needs=3, allowed_share=0.4),
    Shape(packages=30, versions=8, needs=3, allowed_share=0.5),
    Shape(packages=40, versions=10, needs=2, allowed_share=0.4),
    Shape(packages=40, versions=10, needs=3, allowed_share=0.65),
)

Answer = dict[str, str]
Solve = Callable[[Packages, Mapping[str, str]], Answer | None]


class TooLong(Exception):
    """No answer within the limit."""


@dataclass(slots=True)
class Tally:
    """One resolver on one group of cases."""

    taken_ms: list[float] = field(default_factory=list)
    right: int = 0


def hard_cases(count: int, seed_from: int) -> list[Case]:
    """Random graphs of each shape in turn; nobody knows their answers beforehand."""
    cases = []
    for number in range(count):
        shape, seed = HARD_SHAPES[number % len(HARD_SHAPES)], seed_from + number
        packages, request = random_table(shape, seed)
        cases.append(Case(f"hard/{seed}", "hard", packages, request, None))
    return cases


def measure(cases: Sequence[Case], with_rival: bool, advance: Callable[[], None]) -> list[Row]:
    """Each case by each resolver, one right after the other. Those without a known answer are checked by explaining."""
    resolvers: dict[str, Solve] = {"noodle": solve, **({"resolvelib": solve_with_resolvelib} if with_rival else {})}
    tallies: dict[tuple[str, str], Tally] = {}
    refusals = Refusals()
    for case in cases:
        known = case.satisfiable if case.satisfiable is not None else refusals.explained(case) is None
        if case.satisfiable is False:
            refusals.explained(case)
        for name, resolver in resolvers.items():
            _try(resolver, case, known, tallies.setdefault((case.group, name), Tally()))
        advance()
    return [*_rows(tallies), *refusals.rows()]


def _try(resolver: Solve, case: Case, satisfiable: bool, tally: Tally) -> None:
    start = time.perf_counter()
    try:
        answer = resolver(case.packages, case.request)
    except TooLong:
        tally.taken_ms.append((time.perf_counter() - start) * 1000)
        return
    tally.taken_ms.append((time.perf_counter() - start) * 1000)
    if answer is None:
        tally.right += not satisfiable
    else:
        tally.right += is_answer(case.packages, case.request, answer)


def _rows(tallies: Mapping[tuple[str, str], Tally]) -> Iterator[Row]:
    resolvers = dict.fromkeys(name for _, name in tallies)
    groups = {group: {name: tallies[group, name] for name in resolvers} for group, _ in tallies}
    published = [by for group, by in groups.items() if group != "hard"]
    if len(published) > 1:
        groups["all given"] = {name: _sum(by[name] for by in published) for name in resolvers}
    for group, by in groups.items():
        for name, tally in by.items():
            context: dict[str, str | int | float] = {"cases": group, "count": len(tally.taken_ms), "resolver": name}
            ours = name == "noodle"
            percent = 100 * tally.right / len(tally.taken_ms)
            goal = 100.0 if ours else None
            yield Row(metric="correct_percent", value=percent, unit="%", goal=goal, better="higher", context=context)
            for which, value in _times(tally.taken_ms):
                yield Row(
                    metric=f"resolve_ms_{which}",
                    value=value,
                    unit="ms",
                    goal=GOALS_MS.get(which) if ours else None,
                    context=context,
                )


def _sum(tallies: Iterable[Tally]) -> Tally:
    together = Tally()
    for tally in tallies:
        together.taken_ms += tally.taken_ms
        together.right += tally.right
    return together


def _times(taken_ms: Sequence[float]) -> Iterator[tuple[str, float]]:
    yield "p50", percentile(taken_ms, 50)
    yield "p95", percentile(taken_ms, 95)
    yield "max", max(taken_ms)


@dataclass(slots=True)
class Refusals:
    """What is told where there is no answer, and whether it is true and could not be shorter."""

    taken_ms: list[float] = field(default_factory=list)
    smallest: int = 0

    def explained(self, case: Case) -> tuple[str, ...] | None:
        """The sentences, checked; None where there is an answer."""
        table = Table(case.packages)
        universe = explore(table, case.request)
        outcome = search(universe)
        if outcome.choice is not None:
            return None
        start = time.perf_counter()
        explanation = explain(universe, outcome.circles, table.there_is)
        self.taken_ms.append((time.perf_counter() - start) * 1000)
        self.smallest += is_smallest(universe, explanation.conflict.facts)
        return explanation.sentences

    def rows(self) -> Iterator[Row]:
        if not self.taken_ms:
            return
        context: dict[str, str | int | float] = {"refusals": len(self.taken_ms)}
        percent = 100 * self.smallest / len(self.taken_ms)
        yield Row(
            metric="smallest_conflict_percent", value=percent, unit="%", goal=100.0, better="higher", context=context
        )
        for which, value in _times(self.taken_ms):
            yield Row(metric=f"explain_ms_{which}", value=value, unit="ms", context=context)


# -- the rival

Pick = tuple[str, int]
Wanted = tuple[str, str]


def solve_with_resolvelib(packages: Packages, request: Mapping[str, str]) -> Answer | None:
    """The same by resolvelib, packages with the fewest candidates first. Raises TooLong."""
    provider = _Provider(packages)
    reporter = _Deadline(time.perf_counter() + LIMIT_S)
    try:
        result = Resolver(provider, reporter).resolve(list(request.items()), max_rounds=1_000_000)
    except ResolutionImpossible:
        return None
    except (ResolutionTooDeep, RecursionError):  # the latter: needs in long circles
        raise TooLong from None
    return {name: provider.table.versions(name)[place] for name, (_, place) in result.mapping.items()}


class _Deadline(BaseReporter[Wanted, Pick, str]):
    def __init__(self, end: float) -> None:
        self._end = end

    def starting_round(self, index: int) -> None:
        if time.perf_counter() > self._end:
            raise TooLong


class _Provider(AbstractProvider[Wanted, Pick, str]):
    def __init__(self, packages: Packages) -> None:
        self.table = Table(packages)

    def identify(self, requirement_or_candidate: Wanted | Pick) -> str:
        return requirement_or_candidate[0]

    def get_preference(
        self, identifier: str, resolutions: Any, candidates: Any, information: Any, backtrack_causes: Any
    ) -> tuple[bool, int, str]:
        causes = any(
            identifier in (cause.requirement[0], cause.parent[0] if cause.parent else None)
            for cause in backtrack_causes
        )
        return not causes, sum(1 for _ in candidates[identifier]), identifier

    def find_matches(self, identifier: str, requirements: Any, incompatibilities: Any) -> list[Pick]:
        allowed = -1
        for name, constraint in requirements[identifier]:
            allowed &= self.table.allowed(name, constraint)
        allowed &= (1 << len(self.table.versions(identifier))) - 1
        excluded = {place for _, place in incompatibilities[identifier]}
        return [(identifier, place) for place in places(allowed) if place not in excluded]

    def is_satisfied_by(self, requirement: Wanted, candidate: Pick) -> bool:
        return bool(self.table.allowed(*requirement) >> candidate[1] & 1)

    def get_dependencies(self, candidate: Pick) -> list[Wanted]:
        return list(self.table.requires(*candidate).items())
