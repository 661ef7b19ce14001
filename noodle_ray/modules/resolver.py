"""The resolver: requirements and a catalogue in, a lock out, or an explanation of why there is none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import networkx
from packaging.version import Version
from resolvelib import AbstractProvider, BaseReporter, ResolutionImpossible, ResolutionTooDeep, Resolver

from noodle_ray.errors import InvalidInput, Unresolvable
from noodle_ray.modules.manifest import normalise_name
from noodle_ray.modules.release import Lock, LockedModule, Release
from noodle_ray.modules.versions import VersionConstraint, parse_version

if TYPE_CHECKING:
    from resolvelib.resolvers import RequirementInformation

MAX_ROUNDS = 20_000
"""Steps of the search before it gives up: some seconds."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """One module that must be there, in a version that satisfies the constraint."""

    name: str
    constraint: VersionConstraint

    def __str__(self) -> str:
        return f"{self.name} {self.constraint}".strip()


class DependencyResolver:
    """Finds exact versions, newest first.

    The search is resolvelib's: a version is pinned, what it needs is added, and a conflict goes back to what caused
    it. Yanked versions are left out but where the request pins one exactly or prefers it; pre-releases but where every
    constraint on the module names one, or `prereleases` is set.
    """

    def resolve(
        self,
        requirements: Mapping[str, str],
        catalogue: Iterable[Release],
        prefer: Mapping[str, str] | None = None,
        prereleases: bool = False,
    ) -> Lock:
        """The lock for {name: constraint}. `prefer` names versions to take before newer ones, where they will do.

        Raises InvalidInput (a name or constraint that cannot be read) or Unresolvable, whose message explains.
        """
        wanted = read_requirements(requirements)
        provider = _Provider(wanted, catalogue, prefer or {}, prereleases)
        try:
            result = Resolver(provider, BaseReporter[Requirement, Release, str]()).resolve(wanted, MAX_ROUNDS)
        except ResolutionImpossible as error:
            raise Unresolvable(_explain(error.causes, provider)) from None
        except ResolutionTooDeep:
            raise Unresolvable(f"no answer was found within {MAX_ROUNDS} steps of the search") from None
        return _lock(wanted, result.mapping)


def read_requirements(requirements: Mapping[str, str]) -> list[Requirement]:
    """The requirements of a request, by name. Raises InvalidInput."""
    if not requirements:
        raise InvalidInput.of("requirements", "must name at least one module")
    read: dict[str, Requirement] = {}
    for given, constraint in requirements.items():
        name = normalise_name(given)
        if name in read:
            raise InvalidInput.of("requirements", f"name {name} twice", given)
        read[name] = Requirement(name, VersionConstraint.parse(constraint, field=f"requirements.{name}"))
    return [read[name] for name in sorted(read)]


class _Provider(AbstractProvider[Requirement, Release, str]):
    """What resolvelib asks of us: which releases there are for a name, in which order, and what each needs."""

    def __init__(
        self,
        wanted: Sequence[Requirement],
        catalogue: Iterable[Release],
        prefer: Mapping[str, str],
        prereleases: bool,
    ) -> None:
        self.prereleases = prereleases
        self._preferred = {normalise_name(name): parse_version(version) for name, version in prefer.items()}
        self._pinned = {requirement.name: requirement.constraint.pinned for requirement in wanted}
        self._releases: dict[str, list[Release]] = {}
        for release in catalogue:
            self._releases.setdefault(release.name, []).append(release)
        for releases in self._releases.values():
            releases.sort(key=self._rank, reverse=True)

    def _rank(self, release: Release) -> tuple[bool, Version]:
        return release.version == self._preferred.get(release.name), release.version

    def releases(self, name: str) -> list[Release]:
        return self._releases.get(name, [])

    def admits(self, requirement: Requirement, release: Release) -> bool:
        asked_for = (self._pinned.get(release.name), self._preferred.get(release.name))
        if release.yanked and release.version not in asked_for:
            return False
        return requirement.constraint.satisfies(release.version, self.prereleases)

    def identify(self, requirement_or_candidate: Requirement | Release) -> str:
        return requirement_or_candidate.name

    def get_preference(
        self,
        identifier: str,
        resolutions: Mapping[str, Release],
        candidates: Mapping[str, Iterator[Release]],
        information: Any,
        backtrack_causes: Any,
    ) -> tuple[int, str]:
        """The module with the fewest candidates first, then by name."""
        return sum(1 for _ in candidates[identifier]), identifier

    def find_matches(
        self,
        identifier: str,
        requirements: Mapping[str, Iterator[Requirement]],
        incompatibilities: Mapping[str, Iterator[Release]],
    ) -> list[Release]:
        asked = list(requirements[identifier])
        excluded = {release.key for release in incompatibilities[identifier]}
        return [
            release
            for release in self.releases(identifier)
            if release.key not in excluded and all(self.admits(requirement, release) for requirement in asked)
        ]

    def is_satisfied_by(self, requirement: Requirement, candidate: Release) -> bool:
        return self.admits(requirement, candidate)

    def get_dependencies(self, candidate: Release) -> list[Requirement]:
        requires = candidate.manifest.requires
        return [Requirement(name, VersionConstraint.parse(requires[name])) for name in sorted(requires)]


def _lock(wanted: Sequence[Requirement], chosen: Mapping[str, Release]) -> Lock:
    locked = [
        LockedModule(
            name=name,
            version=chosen[name].manifest.version,
            sha256=chosen[name].sha256,
            requires=chosen[name].manifest.requires,
        )
        for name in loading_order({name: release.manifest.requires for name, release in chosen.items()})
        if name in chosen
    ]
    return Lock(
        requirements={requirement.name: str(requirement.constraint) for requirement in wanted}, modules=tuple(locked)
    )


def loading_order(needs: Mapping[str, Iterable[str]]) -> list[str]:
    """The names so that each comes after all that it needs; by name where that leaves a choice.

    Raises Unresolvable that names a circle, where there is one.
    """
    graph = networkx.DiGraph()
    graph.add_nodes_from(sorted(needs))
    graph.add_edges_from((needed, name) for name in sorted(needs) for needed in sorted(needs[name]))
    try:
        return list(networkx.lexicographical_topological_sort(graph))
    except networkx.NetworkXUnfeasible:
        circle = [edge[1] for edge in reversed(networkx.find_cycle(graph))]
        path = " needs ".join([*circle, circle[0]])
        raise Unresolvable(f"modules need each other in a circle: {path}") from None


def _explain(causes: Iterable[RequirementInformation[Requirement, Release]], provider: _Provider) -> str:
    """Why the search ended, in sentences: who needs what of the modules that no version will do for."""
    needs: dict[str, dict[str, None]] = {}
    for cause in causes:
        parent = f"{cause.parent.name} {cause.parent.manifest.version}" if cause.parent else "the request"
        text = f"{parent} needs {cause.requirement}" + ("" if str(cause.requirement.constraint) else " in any version")
        needs.setdefault(cause.requirement.name, {})[text] = None
    return "; ".join(
        f"because {_enumerate(list(reasons))}, no version of {name} will do ({_what_there_is(name, provider)})"
        for name, reasons in sorted(needs.items())
    )


def _enumerate(reasons: Sequence[str]) -> str:
    return reasons[0] if len(reasons) == 1 else ", ".join(reasons[:-1]) + f" and {reasons[-1]}"


def _what_there_is(name: str, provider: _Provider) -> str:
    releases = provider.releases(name)
    if not releases:
        return f"no {name} is published"
    return f"published: {', '.join(map(_shown, releases[:10]))}" + (" and older ones" if len(releases) > 10 else "")


def _shown(release: Release) -> str:
    marks = [
        mark for mark, holds in (("yanked", release.yanked), ("pre-release", release.version.is_prerelease)) if holds
    ]
    return release.manifest.version + (f" ({', '.join(marks)})" if marks else "")
