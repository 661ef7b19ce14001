"""The workload: which demands arrive, and how often; what placement prepares for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from noodle_ray.resources import ACCELERATOR_LABEL, Demand, LabelSelector

CLASSES_AT_MOST = 1000


class DemandClass(NamedTuple):
    """Demands that placement treats alike. Amounts in units (1/10,000) and bytes; `gpu_units` are on each GPU."""

    cpu_units: int
    memory: int
    gpu_units: int
    gpu_count: int
    accelerator_type: str | None
    accelerator_selector: str | None

    @classmethod
    def of(cls, demand: Demand) -> DemandClass:
        return cls(
            demand.cpu_units,
            demand.memory,
            demand.gpu_units,
            demand.gpu_count,
            demand.accelerator_type,
            demand.labels.get(ACCELERATOR_LABEL),
        )

    @property
    def gpu_total(self) -> int:
        """Units of GPU in all."""
        return self.gpu_units * self.gpu_count

    def runs_on(self, accelerator_type: str) -> bool:
        """Whether a node with these accelerators ("": with none, or of no known type) may take it."""
        if self.accelerator_type is not None and self.accelerator_type != accelerator_type:
            return False
        selector = self.accelerator_selector
        return selector is None or LabelSelector.read(selector).matches(accelerator_type or None)


class Workload:
    """Weights of the classes of demands that were seen; one of `memory` demands ago weighs 1/e of one of just now."""

    def __init__(self, memory: int = 10_000) -> None:
        self._growth = 1.0 + 1.0 / memory
        self._next = 1.0
        self._weights: dict[DemandClass, float] = {}
        self.seen = 0

    def note(self, demand: Demand) -> None:
        """One more demand has arrived."""
        kind = DemandClass.of(demand)
        self._weights[kind] = self._weights.get(kind, 0.0) + self._next
        self._next *= self._growth  # newer ones weigh more, which is the same as older ones weighing less
        self.seen += 1
        if self._next > 1e100:
            self._scale(1.0 / self._next)
        if len(self._weights) > 2 * CLASSES_AT_MOST:
            self._weights = dict(self._heaviest())

    def _scale(self, factor: float) -> None:
        self._weights = {kind: weight * factor for kind, weight in self._weights.items()}
        self._next *= factor

    def _heaviest(self) -> list[tuple[DemandClass, float]]:
        by_weight = sorted(self._weights.items(), key=lambda item: (-item[1], repr(item[0])))
        return by_weight[:CLASSES_AT_MOST]

    def classes(self) -> tuple[tuple[DemandClass, float], ...]:
        """The heaviest classes with their share of all, heaviest first."""
        heaviest = self._heaviest()
        total = sum(weight for _, weight in heaviest)
        return tuple((kind, weight / total) for kind, weight in heaviest)

    @classmethod
    def of(cls, demands: Iterable[Demand]) -> Workload:
        """A workload in which all of these weigh the same."""
        workload = cls(memory=10**12)
        for demand in demands:
            workload.note(demand)
        return workload
