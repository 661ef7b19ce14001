"""The node manager's figures in Ray's own metrics, beside Ray's: Prometheus finds them where it finds those."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

from ray.util.metrics import Gauge, Histogram

from noodle_ray.metric import DECISION_SECONDS, MANAGER_FIGURES, PREFIX

WINDOW = 1000
"""Decisions over which percentiles are taken."""


class ManagerMetrics:
    """Gauges of the manager's figures, and a histogram of how long its decisions take."""

    def __init__(self) -> None:
        self._gauges = {one.name.removeprefix(PREFIX): Gauge(one.name, one.description) for one in MANAGER_FIGURES}
        time = DECISION_SECONDS
        self._decisions = Histogram(time.name, time.description, boundaries=list(time.buckets))
        self._recent: deque[float] = deque(maxlen=WINDOW)

    def decided(self, seconds: float) -> None:
        """One claim was decided."""
        self._recent.append(seconds)
        self._decisions.observe(seconds)

    def decision_ms(self) -> dict[str, float]:
        """The last decision and percentiles of the recent ones; empty before the first."""
        if not self._recent:
            return {}
        ordered = sorted(self._recent)
        p50, p99 = (ordered[math.ceil(len(ordered) * part) - 1] * 1000 for part in (0.5, 0.99))
        return {"decision_ms_last": self._recent[-1] * 1000, "decision_ms_p50": p50, "decision_ms_p99": p99}

    def export(self, figures: Mapping[str, float]) -> None:
        """Shows the figures as they are now."""
        for name, value in {**figures, **self.decision_ms()}.items():
            if name in self._gauges:
                self._gauges[name].set(value)
