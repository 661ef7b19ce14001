"""Versions and constraints on them, as PEP 440 has them."""

from __future__ import annotations

from dataclasses import dataclass

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from noodle_ray.errors import InvalidInput

MAX_LENGTH = 200
"""Characters of a version or of a constraint."""


def parse_version(text: str) -> Version:
    """Reads a PEP 440 version such as "1.2" or "2.0rc1". Raises InvalidInput."""
    try:
        return read_version(text)
    except ValueError as error:
        raise InvalidInput.of("version", str(error), text) from None


def compare_versions(left: str, right: str) -> int:
    """-1 where `left` is the older one, 0 where they are equal ("1.0" and "1.0.0" are), 1 where it is the newer one."""
    first, second = parse_version(left), parse_version(right)
    return (first > second) - (first < second)


@dataclass(frozen=True, slots=True)
class VersionConstraint:
    """Which versions will do: `~=`, `==`, `!=`, `<=`, `>=`, `<` and `>` with commas between; empty means any.

    A pre-release satisfies a constraint only where the constraint itself names one (">=2.0rc1"), or where it is told
    that pre-releases will do.
    """

    specifiers: SpecifierSet

    @classmethod
    def parse(cls, text: str, field: str = "constraint") -> VersionConstraint:
        """Reads ">=1.2,<2". Raises InvalidInput that names `field`."""
        try:
            return read_constraint(text)
        except ValueError as error:
            raise InvalidInput.of(field, str(error), text) from None

    def satisfies(self, version: str | Version, prereleases: bool = False) -> bool:
        """Whether this version will do. Raises InvalidInput where it is no version."""
        candidate = parse_version(version) if isinstance(version, str) else version
        return self.specifiers.contains(candidate, prereleases=prereleases or bool(self.specifiers.prereleases))

    @property
    def pinned(self) -> Version | None:
        """The one version that "==1.2.3" names, where the constraint is of that form."""
        specifiers = list(self.specifiers)
        if len(specifiers) == 1 and specifiers[0].operator == "==" and not specifiers[0].version.endswith(".*"):
            return Version(specifiers[0].version)
        return None

    def __str__(self) -> str:
        return ",".join(sorted(map(str, self.specifiers), key=_lower_bounds_first))


def read_version(text: str) -> Version:
    """As `parse_version`, for validators: raises ValueError."""
    try:
        if len(text) > MAX_LENGTH:
            raise InvalidVersion
        return Version(text)
    except InvalidVersion:
        raise ValueError('must be a version as PEP 440 has it, such as "1.2" or "2.0rc1"') from None


def read_constraint(text: str) -> VersionConstraint:
    """As `VersionConstraint.parse`, for validators: raises ValueError."""
    try:
        if len(text) > MAX_LENGTH:
            raise InvalidSpecifier
        specifiers = SpecifierSet(text)
    except InvalidSpecifier:
        raise ValueError('must be a constraint such as ">=1.2,<2" or "==1.4", or empty for any version') from None
    if any(specifier.operator == "===" for specifier in specifiers):
        raise ValueError('"===" compares letters, not versions; use "=="')
    return VersionConstraint(specifiers)


def _lower_bounds_first(specifier: str) -> tuple[int, str]:
    return ("~>=!<".find(specifier[0]), specifier)
