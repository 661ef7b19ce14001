"""A request: bundles that are held together or not at all."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal

from pydantic import Field, field_validator

from noodle_ray.base_model import Model
from noodle_ray.resources import Demand

Strategy = Literal["pack", "spread", "strict-pack", "strict-spread"]
BUNDLES_AT_MOST = 1000


class Request(Model):
    """What somebody wants held, all or nothing.

    `bundles` are demands, each of which sits on one node. `strategy` says how they lie to each other: "pack" on as few
    nodes as it goes, "strict-pack" on one; "spread" on as many as it goes, "strict-spread" each on its own.
    `anti_affinity` is a key: no two allocations that were asked for with the same key share a node; with
    `anti_affinity_soft` they do where no other node has room. `movable` work may be moved to another node by
    defragmentation. Raises InvalidInput.
    """

    bundles: tuple[Demand, ...]
    strategy: Strategy = "pack"
    anti_affinity: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    anti_affinity_soft: bool = False
    movable: bool = False

    @field_validator("bundles")
    @classmethod
    def _are_some(cls, bundles: tuple[Demand, ...]) -> tuple[Demand, ...]:
        # Not a length on the field: that would be found at fault too whenever one of the bundles is.
        if not 1 <= len(bundles) <= BUNDLES_AT_MOST:
            raise ValueError(f"must be 1 to {BUNDLES_AT_MOST} demands")
        return bundles

    @classmethod
    def of(cls, wanted: Demand | Request) -> Request:
        """A lone demand as a request of one bundle; a request as it is."""
        return cls(bundles=(wanted,)) if isinstance(wanted, Demand) else wanted

    def __str__(self) -> str:
        """For people: "2 CPU", or "4 x (1 CPU, 1 GPU) strict-spread" for a gang."""
        if len(self.bundles) == 1:
            lone = str(self.bundles[0])
            return f"{lone}, apart from {self.anti_affinity}" if self.anti_affinity else lone
        parts = [f"{count} x ({text})" for text, count in Counter(map(str, self.bundles)).items()]
        apart = f", apart from {self.anti_affinity}" if self.anti_affinity else ""
        return f"{' + '.join(parts)} {self.strategy}{apart}"
