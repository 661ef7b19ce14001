"""The universe of a resolution: which packages there are, in which versions, and what each version needs.

A set of versions of one package is an integer: bit i stands for its i-th newest version.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

ROOT = ""
"""The name of the request, as a package with one version that everything begins with."""


@dataclass(frozen=True, slots=True)
class Need:
    """A version needs some version of another package: any of those `allowed`. `text` is the constraint as written."""

    package: str
    allowed: int
    text: str


@dataclass(frozen=True, slots=True)
class Package:
    """Versions, newest first, and what each of them needs. `order` is the order of preference.

    `owner` is the package that it is a part of: its own name, but for options such as "a[fast]".
    """

    name: str
    owner: str
    versions: tuple[str, ...]
    needs: tuple[tuple[Need, ...], ...]
    order: tuple[int, ...]

    def needing(self, other: str) -> int:
        """The set of its versions that need another package."""
        return sum(1 << place for place, needs in enumerate(self.needs) if any(need.package == other for need in needs))


@dataclass(frozen=True, slots=True)
class Universe:
    """All packages that a request can lead to; versions that it cannot lead to have no needs here."""

    packages: Mapping[str, Package]

    @property
    def request(self) -> tuple[Need, ...]:
        return self.packages[ROOT].needs[0]

    def needs(self) -> Iterator[tuple[str, int, Need]]:
        """All needs, each with the package and the place of the version that has it."""
        for package in self.packages.values():
            for place, needs in enumerate(package.needs):
                for need in needs:
                    yield package.name, place, need


class Source(Protocol):
    """Where packages come from."""

    def owner(self, package: str) -> str:
        """The package that this one is an option of, or itself."""
        ...

    def versions(self, package: str) -> Sequence[str]:
        """All its versions that may be chosen, newest first; none where there is no such package."""
        ...

    def order(self, package: str) -> Sequence[int]:
        """The places of its versions, the most welcome first."""
        ...

    def requires(self, package: str, place: int) -> Mapping[str, str]:
        """What that version needs: package to constraint."""
        ...

    def allowed(self, package: str, constraint: str) -> int:
        """The set of versions that satisfy the constraint."""
        ...

    def there_is(self, package: str) -> str:
        """What there is of a package, in words, for when none of it will do: "there is only 1.0"."""
        ...


def explore(source: Source, request: Mapping[str, str]) -> Universe:
    """What the request can lead to: versions that nothing reachable allows are not even looked at."""
    walk = _Walk(source)
    walk.visit(ROOT, 0, request)
    while walk.open:
        package, place = walk.open.pop()
        walk.visit(package, place, source.requires(package, place))
    return Universe({name: walk.package(name) for name in [ROOT, *sorted(walk.reached)]})


class _Walk:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._needs: dict[tuple[str, int], tuple[Need, ...]] = {}
        self.reached: dict[str, int] = {}
        self.open: list[tuple[str, int]] = []

    def visit(self, package: str, place: int, requires: Mapping[str, str]) -> None:
        needs = []
        for name, constraint in requires.items():
            allowed = self._source.allowed(name, constraint)
            needs.append(Need(name, allowed, constraint))
            new = allowed & ~self.reached.get(name, 0)
            self.reached[name] = self.reached.get(name, 0) | allowed
            self.open.extend((name, one) for one in places(new))
        self._needs[package, place] = tuple(needs)

    def package(self, name: str) -> Package:
        if name == ROOT:
            return Package(ROOT, ROOT, ("",), (self._needs[ROOT, 0],), (0,))
        versions = tuple(self._source.versions(name))
        needs = tuple(self._needs.get((name, place), ()) for place in range(len(versions)))
        reached = self.reached[name]
        order = tuple(place for place in self._source.order(name) if reached >> place & 1)
        return Package(name, self._source.owner(name), versions, needs, order)


def places(versions: int) -> Iterator[int]:
    """The places in a set of versions, newest first."""
    while versions:
        lowest = versions & -versions
        yield lowest.bit_length() - 1
        versions ^= lowest
