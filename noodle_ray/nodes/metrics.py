"""What a NodeAgent measures of its machine."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from noodle_ray.base_model import Model

Size = Annotated[int, Field(ge=0)]
Ratio = Annotated[float, Field(ge=0, le=1)]


class GpuMetrics(Model):
    """One GPU: memory in bytes, use as a ratio."""

    index: Size
    name: str
    used_ratio: Ratio
    memory_total_bytes: Size
    memory_used_bytes: Size


class ResourceMetrics(Model):
    """One measurement: sizes in bytes, ratios 0 to 1, network counters since boot, `taken_at` in seconds since 1970."""

    cpu_count: Annotated[int, Field(ge=1)]
    cpu_used_ratio: Ratio
    memory_total_bytes: Size
    memory_used_bytes: Size
    disk_total_bytes: Size
    disk_used_bytes: Size
    network_sent_bytes: Size
    network_received_bytes: Size
    gpus: tuple[GpuMetrics, ...] = ()
    taken_at: float

    @model_validator(mode="after")
    def _used_is_within_total(self) -> Self:
        for what in ("memory", "disk"):
            used, total = getattr(self, f"{what}_used_bytes"), getattr(self, f"{what}_total_bytes")
            if used > total:
                raise ValueError(f"{what}_used_bytes is {used}, more than the total of {total}")
        return self

    @property
    def memory_used_ratio(self) -> float:
        return self.memory_used_bytes / self.memory_total_bytes if self.memory_total_bytes else 0.0

    @property
    def disk_used_ratio(self) -> float:
        return self.disk_used_bytes / self.disk_total_bytes if self.disk_total_bytes else 0.0
