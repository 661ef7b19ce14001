"""The resolver: requirements and published releases in, a lock out, or an explanation of why there is none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import networkx

from noodle_ray.errors import InvalidInput, Unresolvable
from noodle_ray.modules.catalogue import INTERFACE, Catalogue, Target, Wishes
from noodle_ray.modules.manifest import normalise_name, read_wanted, wanted_key
from noodle_ray.modules.release import Lock, LockedModule, Release
from noodle_ray.modules.versions import VersionConstraint, parse_version
from noodle_ray.resolution.explanation import explain
from noodle_ray.resolution.search import Choice, search
from noodle_ray.resolution.table import Packages, Table
from noodle_ray.resolution.universe import Universe, explore


@dataclass(frozen=True, slots=True)
class Requirement:
    """One module that must be there, perhaps with an optional feature, in a version that satisfies the constraint."""

    name: str
    feature: str | None
    constraint: VersionConstraint

    @property
    def key(self) -> str:
        return wanted_key(self.name, self.feature)


class DependencyResolver:
    """Finds exact versions, newest first, exactly where there are any (see `noodle_ray.resolution`).

    Yanked versions are left out but where the request pins one exactly or prefers it; pre-releases but where every
    constraint on the module names one, or `prereleases` is set. `target` are the machines that it is for.
    """

    def __init__(self, target: Target | None = None) -> None:
        self._target = target or Target()

    def resolve(
        self,
        requirements: Mapping[str, str],
        releases: Iterable[Release],
        prefer: Mapping[str, str] | None = None,
        prereleases: bool = False,
    ) -> Lock:
        """The lock for {name or name[feature]: constraint}. `prefer` names versions to take before newer ones, where
        they will do: those that are loaded, for as little change as possible.

        Raises InvalidInput (a name or constraint that cannot be read) or Unresolvable, whose message explains.
        """
        wanted = read_requirements(requirements)
        pinned = {one.name: one.constraint.pinned for one in wanted if one.constraint.pinned is not None}
        preferred = {normalise_name(name): parse_version(version) for name, version in (prefer or {}).items()}
        wishes = Wishes(frozenset(one.name for one in wanted), pinned, preferred, prereleases)
        catalogue = Catalogue(releases, wishes, self._target)
        request = {one.key: str(one.constraint) for one in wanted}
        universe = explore(catalogue, request)
        outcome = search(universe, circles_allowed=False)
        if outcome.choice is None:
            raise Unresolvable(" ".join(explain(universe, outcome.circles, catalogue.there_is).sentences))
        return _lock(request, universe, outcome.choice, catalogue)


def solve(packages: Packages, root: Mapping[str, str]) -> dict[str, str] | None:
    """Exact versions for plain tables {name: {version: {dependency: constraint}}}, newest first; None where there are
    none. Dependencies in a circle are allowed here.

    Raises InvalidInput for versions other than numbers with dots, and for constraints other than "*" and comparisons
    with commas between.
    """
    universe = explore(Table(packages), root)
    choice = search(universe).choice
    if choice is None:
        return None
    return {name: universe.packages[name].versions[place] for name, place in choice.items()}


def read_requirements(requirements: Mapping[str, str]) -> list[Requirement]:
    """The requirements of a request, by name. Raises InvalidInput."""
    if not requirements:
        raise InvalidInput.of("requirements", "must name at least one module")
    read: dict[str, Requirement] = {}
    for given, constraint in requirements.items():
        try:
            name, feature = read_wanted(given)
        except ValueError as error:
            raise InvalidInput.of("name", str(error), given) from None
        key = wanted_key(name, feature)
        if key in read:
            raise InvalidInput.of("requirements", f"name {key} twice", given)
        read[key] = Requirement(name, feature, VersionConstraint.parse(constraint, field=f"requirements.{key}"))
    return [read[key] for key in sorted(read)]


def _lock(request: Mapping[str, str], universe: Universe, choice: Choice, catalogue: Catalogue) -> Lock:
    chosen = {name: catalogue.release(name, place) for name, place in choice.items() if _is_module(name)}
    requires = _requires(universe, choice, catalogue)
    features = {
        name: tuple(sorted(package[len(name) + 1 : -1] for package in choice if package.startswith(f"{name}[")))
        for name in chosen
    }
    locked = [
        LockedModule(
            name=name,
            version=chosen[name].manifest.version,
            sha256=chosen[name].sha256,
            requires=requires[name],
            features=features[name],
        )
        for name in loading_order(requires)
    ]
    return Lock(requirements=dict(request), modules=tuple(locked))


def _requires(universe: Universe, choice: Choice, catalogue: Catalogue) -> dict[str, dict[str, str]]:
    """What each chosen module needs of the others: its own needs, those of its chosen features, and its interfaces."""
    requires: dict[str, dict[str, str]] = {package: {} for package in choice if _is_module(package)}
    for package in sorted(choice):
        owner = catalogue.owner(package)
        for need in universe.packages[package].needs[choice[package]] if owner in requires else ():
            if need.package.startswith(INTERFACE):
                needed, text = catalogue.release(need.package, choice[need.package]).name, ""
            else:
                needed, text = catalogue.owner(need.package), need.text
            if needed != owner:
                parts = dict.fromkeys([requires[owner].get(needed, ""), text])
                requires[owner][needed] = ",".join(filter(None, parts))
    return requires


def _is_module(package: str) -> bool:
    return not package.startswith(INTERFACE) and "[" not in package


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
