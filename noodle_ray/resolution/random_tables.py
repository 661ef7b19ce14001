"""Random packages that are hard to resolve: each version needs a few others, in ranges narrow enough to fail often."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from noodle_ray.resolution.table import Packages


@dataclass(frozen=True, slots=True)
class Shape:
    """How many packages, versions of each, needs of each version, and which share of the versions a need allows."""

    packages: int = 40
    versions: int = 10
    needs: int = 3
    allowed_share: float = 0.4
    requested: int = 5


def random_table(shape: Shape, seed: int) -> tuple[Packages, dict[str, str]]:
    """Packages and a request, the same for the same seed."""
    chance = np.random.default_rng(seed)
    names = [f"p{number}" for number in range(shape.packages)]
    width = max(1, round(shape.allowed_share * shape.versions))

    def need() -> str:
        low = int(chance.integers(1 - width // 2, shape.versions - width // 2 + 1))
        return f">={max(low, 0)}.0.0,<{low + width}.0.0"

    packages = {}
    for name in names:
        others = [other for other in names if other != name]
        packages[name] = {
            f"{number}.0.0": {
                others[place]: need() for place in sorted(chance.choice(len(others), shape.needs, replace=False))
            }
            for number in range(1, shape.versions + 1)
        }
    requested = sorted(chance.choice(shape.packages, shape.requested, replace=False))
    return packages, {names[place]: "*" for place in requested}
