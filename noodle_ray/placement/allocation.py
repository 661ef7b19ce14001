"""An allocation: a demand that has a home, and what was promised about it."""

from __future__ import annotations

from typing import Literal

from noodle_ray.base_model import Model
from noodle_ray.placement.planner import Explanation
from noodle_ray.resources import Demand

State = Literal["reserving", "held", "releasing", "lost"]


class Allocation(Model):
    """One allocation. Times are seconds since 1970.

    `epoch` counts the homes it has had, so that late news of an old one is told apart.
    """

    id: str
    epoch: int
    state: State
    demand: Demand
    policy: str
    node_id: str
    gpu_indices: tuple[int, ...]
    owner: str = ""
    lease_s: float | None = None
    expires_at: float | None = None
    created_at: float
    explanation: Explanation

    @property
    def group(self) -> str:
        """The name of its Ray placement group."""
        return f"{self.id}.{self.epoch}"
