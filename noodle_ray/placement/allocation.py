"""An allocation: a request that has a home, or waits for one, and what was promised about it."""

from __future__ import annotations

from typing import Literal

from noodle_ray.base_model import Model
from noodle_ray.placement.explanation import Explanation
from noodle_ray.placement.request import Request
from noodle_ray.resources import Demand

State = Literal["waiting", "reserving", "held", "releasing", "lost"]
UNSETTLED: tuple[State, ...] = ("waiting", "reserving")
"""The states in which it is not known yet whether it will be held."""

OnLoss = Literal["fail", "restart", "standby"]
"""What becomes of an allocation whose node dies: it is lost and its holder told; it is held anew elsewhere; or it goes
on in a second home, held ready all the time in another failure domain."""


class Bundle(Model):
    """One demand on its node, with the GPUs it has there."""

    demand: Demand
    node_id: str
    gpu_indices: tuple[int, ...] = ()


class Spare(Model):
    """A second home, held beside the present one: to fall back on, or to move to. `epoch` is what it will have then."""

    epoch: int
    bundles: tuple[Bundle, ...]
    ready: bool = False


class Allocation(Model):
    """One allocation. Times are seconds since 1970.

    `epoch` counts the homes it has had, so that late news of an old one is told apart, and `last_epoch` those that
    were ever asked for; `bundles` is empty while it waits. `domain` is the node label whose values are failure domains
    ("": each node is one). `wait_until` is when a waiting one gives up (None: never), `waits_for` why it did not fit
    when it was last tried, and `position` its place in the queue, 1 for the next.
    """

    id: str
    epoch: int
    state: State
    request: Request
    bundles: tuple[Bundle, ...] = ()
    policy: str
    priority: int = 0
    owner: str = ""
    lease_s: float | None = None
    expires_at: float | None = None
    wait_until: float | None = None
    waits_for: str = ""
    position: int | None = None
    on_loss: OnLoss = "fail"
    domain: str = ""
    last_epoch: int = 0
    spare: Spare | None = None
    created_at: float
    explanation: Explanation | None = None

    @property
    def group(self) -> str:
        """The name of its Ray placement group, and its fencing token: another home has another."""
        return f"{self.id}.{self.epoch}"

    @property
    def spare_group(self) -> str:
        """The name of the second home's group; "" where there is none."""
        return f"{self.id}.{self.spare.epoch}" if self.spare else ""

    @property
    def mark(self) -> str:
        """Another one after each change that matters to its holder."""
        return f"{self.group} {self.state} {self.spare_group} {self.spare is not None and self.spare.ready}"

    @property
    def node_ids(self) -> tuple[str, ...]:
        """The nodes that it is on, each once."""
        return tuple(dict.fromkeys(bundle.node_id for bundle in self.bundles))

    @property
    def node_id(self) -> str:
        """The node of its first bundle; "" while it waits."""
        return self.bundles[0].node_id if self.bundles else ""

    @property
    def gpu_indices(self) -> tuple[int, ...]:
        """The GPUs of its first bundle."""
        return self.bundles[0].gpu_indices if self.bundles else ()
