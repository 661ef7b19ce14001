"""The node manager's figures in Ray's own metrics, beside Ray's: Prometheus finds them where it finds those."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

from ray.util.metrics import Gauge, Histogram

WINDOW = 1000
"""Decisions over which percentiles are taken."""

_DESCRIPTIONS = {
    "queue_length": "Claims that wait for room.",
    "oldest_wait_seconds": "How long the one has waited that waits longest.",
    "allocation_ratio": "Held part of the scarcest resource.",
    "fragmented_gpus": "Free GPU that a demand of the workload cannot be expected to use, in GPUs.",
    "ledger_differences": "Differences between our ledger and Ray that were found and repaired.",
    "gpu_corrections": "Bundles that Ray gave other GPUs than were expected.",
    "nodes_alive": "Nodes that are alive.",
    "nodes_suspect": "Nodes that are suspected: nothing new is placed there.",
    "nodes_dead": "Nodes that are held for dead and have not left yet.",
    "nodes_draining": "Nodes that are being drained.",
    "late_heartbeats": "Nodes whose agent's last report is overdue.",
    "allocations_lost": "Allocations that were lost with their node.",
    "failovers": "Allocations that were held anew after their node had died.",
    "failover_seconds": "How long the last of these was without a home.",
    "store_away_seconds": "How long the store has not answered; 0 while it does.",
    "decision_ms_p50": "Time of one decision, median of the last thousand.",
    "decision_ms_p99": "Time of one decision, 99th percentile of the last thousand.",
}


class ManagerMetrics:
    """Gauges of the manager's figures, and a histogram of how long its decisions take."""

    def __init__(self) -> None:
        self._gauges = {name: Gauge(f"noodle_{name}", text) for name, text in _DESCRIPTIONS.items()}
        self._decisions = Histogram(
            "noodle_decision_seconds",
            "Time of one decision.",
            boundaries=[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1],
        )
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
