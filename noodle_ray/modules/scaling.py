"""How many hosts a module wants: as many as its calls need, sooner more than fewer."""

from __future__ import annotations

import math
from dataclasses import dataclass

from noodle_ray.modules.manifest import Replicas

CALM_S = 30.0
"""So long fewer hosts must have been enough before one goes."""


@dataclass
class Scaler:
    """Follows one module's calls between the limits that its manifest sets."""

    limits: Replicas
    _calm_since_s: float | None = None
    _peak: int = 0

    def wanted(self, in_flight: int, hosts: int, now_s: float) -> int:
        """How many hosts there should be, of so many that there are, with so many calls under way; asked regularly."""
        needed = self._within_limits(math.ceil(in_flight / self.limits.calls))
        if needed >= hosts:
            self._calm_since_s = None
            return needed
        if self._calm_since_s is None:
            self._calm_since_s, self._peak = now_s, needed
        self._peak = max(self._peak, needed)
        if now_s - self._calm_since_s < CALM_S:
            return self._within_limits(hosts)
        self._calm_since_s = None
        return self._peak

    def _within_limits(self, hosts: int) -> int:
        return min(self.limits.max, max(self.limits.min, hosts))
