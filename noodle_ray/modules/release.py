"""A release: one published version of a module, and the lock that names a set of them exactly."""

from __future__ import annotations

from typing import Annotated, Any

from packaging.utils import canonicalize_version
from packaging.version import Version
from pydantic import Field

from noodle_ray.base_model import Model
from noodle_ray.modules.manifest import Manifest
from noodle_ray.modules.signatures import Function

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Release(Model):
    """One published version. It never changes, but for `yanked`: kept out of new locks, while what runs goes on.

    `functions` are what it offers, None where only running it would tell.
    """

    manifest: Manifest
    sha256: Sha256
    size_bytes: Annotated[int, Field(ge=0)]
    published_at: float
    functions: tuple[Function, ...] | None = None
    yanked: bool = False

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def version(self) -> Version:
        return Version(self.manifest.version)

    @property
    def key(self) -> str:
        """Its key in the store. Equal versions have equal keys, however they are spelt ("1.0" and "1.0.0")."""
        return release_key(self.name, self.version)

    def summary(self) -> dict[str, Any]:
        """What a person wants to see of it, JSON-ready."""
        return {
            "name": self.name,
            "version": self.manifest.version,
            "description": self.manifest.description,
            "requires": dict(self.manifest.requires),
            "features": {name: dict(requires) for name, requires in self.manifest.features.items()},
            "provides": dict(self.manifest.provides),
            "interfaces": dict(self.manifest.interfaces),
            "sha256": self.sha256,
            "size_bytes": self.size_bytes,
            "published_at": self.published_at,
            "yanked": self.yanked,
        }


def release_key(name: str, version: Version) -> str:
    """The key "wordcount==1" of 1, 1.0 and 1.0.0: trailing zeros are no part of a version's identity."""
    return f"{name}=={canonicalize_version(version)}"


class LockedModule(Model):
    """One exact version in a lock.

    `requires` is what it needs of other modules of the lock, with what its `features` need that were asked for, and the
    modules that were chosen for the interfaces it needs.
    """

    name: str
    version: str
    sha256: Sha256
    requires: dict[str, str] = Field(default_factory=dict)
    features: tuple[str, ...] = ()


class Lock(Model):
    """Exact versions that satisfy requirements, in the order of loading: a module comes after all that it needs."""

    requirements: dict[str, str]
    modules: tuple[LockedModule, ...]

    def module(self, name: str) -> LockedModule:
        return next(module for module in self.modules if module.name == name)

    def versions(self) -> dict[str, str]:
        return {module.name: module.version for module in self.modules}
