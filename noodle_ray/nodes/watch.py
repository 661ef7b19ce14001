"""The watch: how well the ledger is used, how far it has been from Ray's, and when that is worth a warning."""

from __future__ import annotations

from noodle_ray.nodes.figures import EFFICIENT, allocation_ratio
from noodle_ray.nodes.instructions import Notice
from noodle_ray.placement.fragmentation import fragmentation
from noodle_ray.placement.ledger import ResourcePool
from noodle_ray.placement.workload import Workload

WARN_EVERY_S = 60.0
"""The least time between two warnings that somebody waits although much is free."""


class Watch:
    """Counts `differences` of the ledger to Ray, `corrections` of GPUs and allocations `lost`, measures the ledger."""

    def __init__(self, pool: ResourcePool, workload: Workload) -> None:
        self._pool, self._workload = pool, workload
        self.differences = 0
        self.corrections = 0
        self.lost = 0
        self._failovers, self._failover_s = 0, 0.0
        self._measured_at, self._fragmented = -1, 0.0
        self._warned_at = float("-inf")

    def figures(self) -> dict[str, float]:
        """What is worth watching, as plain numbers."""
        return {
            "allocation_ratio": allocation_ratio(self._pool),
            "fragmented_gpus": self._fragmented_gpus(),
            "ledger_differences": self.differences,
            "gpu_corrections": self.corrections,
            "allocations_lost": self.lost,
            "failovers": self._failovers,
            "failover_seconds": self._failover_s,
        }

    def failed_over(self, seconds: float) -> None:
        """An allocation whose node died is held anew, after so long."""
        self._failovers += 1
        self._failover_s = seconds

    def _fragmented_gpus(self) -> float:
        position = self._pool.columns.changes.position
        if position != self._measured_at:  # a fleet that stood still is as fragmented as before
            self._measured_at = position
            self._fragmented = fragmentation(self._pool, self._workload)
        return self._fragmented

    def warning(self, waiting: int, now: float) -> Notice | None:
        """Somebody waits although much is free: the cluster is badly packed, or badly chosen."""
        if not waiting or now - self._warned_at < WARN_EVERY_S:
            return None
        ratio = allocation_ratio(self._pool)
        if ratio >= EFFICIENT:
            return None
        self._warned_at = now
        message = f"{waiting} wait while {ratio:.0%} of the scarcest resource is held"
        return Notice("efficiency_warning", message, {"allocation_ratio": round(ratio, 4)}, warns=True)
