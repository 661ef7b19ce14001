"""The catalogue: published releases as the universe that a resolution searches.

Beside each module stand its optional features, as packages "module[feature]" with the module's versions, and the
interfaces that modules provide, as packages with one version for each release that provides it.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from packaging.markers import Marker, default_environment
from packaging.version import Version

from noodle_ray.modules.manifest import wanted_key
from noodle_ray.modules.release import Release
from noodle_ray.modules.versions import VersionConstraint
from noodle_ray.resolution.table import there_is_only

INTERFACE = "interface "
"""What the name of an interface's package begins with: no module can be called so."""


@dataclass(frozen=True, slots=True)
class Target:
    """The machines that modules are to run on.

    `markers` are the values of PEP 508's variables there; `accelerators` are the types of their GPUs, None where any
    may come.
    """

    markers: Mapping[str, str] = field(default_factory=lambda: dict(default_environment().items()))  # type: ignore[arg-type]
    accelerators: frozenset[str] | None = None

    def obstacle(self, release: Release) -> str | None:
        """Why the release cannot run there, if it cannot."""
        wanted = release.manifest.platform
        if wanted is not None and not Marker(wanted).evaluate(dict(self.markers)):
            return f"not for {self.markers.get('sys_platform', platform.system())}: {wanted}"
        kind = release.manifest.accelerator_type
        if kind is not None and self.accelerators is not None and kind not in self.accelerators:
            return f"needs a {kind}, which no node has"
        return None


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a request says beside its requirements.

    `requested` are the modules that it names, `pinned` the versions that it names exactly, `preferred` those to take
    before newer ones where they will do; yanked releases are chosen only if they are one or the other. `prereleases`:
    whether these may be chosen where no constraint names one.
    """

    requested: frozenset[str] = frozenset()
    pinned: Mapping[str, Version] = field(default_factory=dict)
    preferred: Mapping[str, Version] = field(default_factory=dict)
    prereleases: bool = False

    def names(self, release: Release) -> bool:
        return release.version in (self.pinned.get(release.name), self.preferred.get(release.name))


@dataclass(frozen=True, slots=True)
class Offer:
    """One version of a package, and the release that has it. An interface's version is not its release's."""

    version: Version
    release: Release


class Catalogue:
    """A source of packages; see the module's text for which."""

    def __init__(self, releases: Iterable[Release], wishes: Wishes, target: Target) -> None:
        self._wishes = wishes
        self._offers: dict[str, list[Offer]] = {}
        self._left_out: dict[str, list[Offer]] = {}
        self._obstacles: dict[str, str] = {}
        self._constraints: dict[str, VersionConstraint] = {}
        for release in releases:
            self._add(release, target)
        for offers in (*self._offers.values(), *self._left_out.values()):
            offers.sort(key=lambda offer: (offer.version, offer.release.name, offer.release.version), reverse=True)

    def _add(self, release: Release, target: Target) -> None:
        obstacle = "yanked" if release.yanked and not self._wishes.names(release) else target.obstacle(release)
        if obstacle is not None:
            self._obstacles[release.key] = obstacle
        offers = self._offers if obstacle is None else self._left_out
        manifest = release.manifest
        for package in (release.name, *(wanted_key(release.name, feature) for feature in manifest.features)):
            offers.setdefault(package, []).append(Offer(release.version, release))
        for interface, version in manifest.provides.items():
            offers.setdefault(INTERFACE + interface, []).append(Offer(Version(version), release))

    def release(self, package: str, place: int) -> Release:
        return self._offers[package][place].release

    # -- as a source

    def owner(self, package: str) -> str:
        return package.partition("[")[0]

    def versions(self, package: str) -> Sequence[str]:
        return [_written(package, offer) for offer in self._offers.get(package, ())]

    def order(self, package: str) -> Sequence[int]:
        """Newest first, but what is preferred before that; of interfaces, modules that the request names or prefers."""
        offers = self._offers.get(package, [])
        return sorted(range(len(offers)), key=lambda place: (not self._is_welcome(package, offers[place]), place))

    def _is_welcome(self, package: str, offer: Offer) -> bool:
        if package.startswith(INTERFACE):
            return offer.release.name in self._wishes.requested or offer.release.name in self._wishes.preferred
        return offer.version == self._wishes.preferred.get(self.owner(package))

    def requires(self, package: str, place: int) -> Mapping[str, str]:
        release = self.release(package, place)
        manifest = release.manifest
        if package == release.name:
            interfaces = {INTERFACE + name: constraint for name, constraint in manifest.interfaces.items()}
            return {**dict(sorted(manifest.requires.items())), **dict(sorted(interfaces.items()))}
        itself = {release.name: f"=={manifest.version}"}
        if package.startswith(INTERFACE):
            return itself
        feature = package.removeprefix(release.name)[1:-1]
        return {**itself, **dict(sorted(manifest.features[feature].items()))}

    def allowed(self, package: str, constraint: str) -> int:
        read = self._constraints.setdefault(constraint, VersionConstraint.parse(constraint))
        offers = self._offers.get(package, ())
        # What must be the very version of another package may be a pre-release if that one is.
        return sum(
            1 << place
            for place, offer in enumerate(offers)
            if read.satisfies(offer.version, self._wishes.prereleases or read.pinned == offer.version)
        )

    def there_is(self, package: str) -> str:
        offers = [*self._offers.get(package, ()), *self._left_out.get(package, ())]
        offers.sort(key=lambda offer: offer.version, reverse=True)
        name = f"module that provides {package.removeprefix(INTERFACE)}" if package.startswith(INTERFACE) else package
        return there_is_only(name, [self._described(package, offer) for offer in offers])

    def _described(self, package: str, offer: Offer) -> str:
        marks = [*filter(None, [self._obstacles.get(offer.release.key)])]
        marks += ["pre-release"] if offer.version.is_prerelease else []
        return _written(package, offer) + (f" ({', '.join(marks)})" if marks else "")


def _written(package: str, offer: Offer) -> str:
    if package.startswith(INTERFACE):
        return f"{offer.version} of {offer.release.name} {offer.release.manifest.version}"
    return offer.release.manifest.version
