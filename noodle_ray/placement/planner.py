"""The planner: a request in, a decision with its reasons out."""

from __future__ import annotations

from dataclasses import dataclass, replace

from noodle_ray.errors import DoesNotFit
from noodle_ray.placement import gang
from noodle_ray.placement.allocation import Bundle
from noodle_ray.placement.chooser import Chooser, Limits
from noodle_ray.placement.explanation import Explanation
from noodle_ray.placement.ledger import ResourcePool
from noodle_ray.placement.policies import DEFAULT_POLICY
from noodle_ray.placement.prices import PriceInputs, Prices
from noodle_ray.placement.request import Request
from noodle_ray.placement.workload import Workload


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a request goes: a bundle for each of its demands, in their order."""

    bundles: tuple[Bundle, ...]
    explanation: Explanation


class Planner:
    """Decides where requests go on a pool, under named policies. Reads the pool; whoever asks allocates.

    Policies by valuation go by the prices of the workload that was noted: `price_inputs` says when new ones are worth
    computing for the default policy, which takes some 50 ms and is left to the caller (`prices.compute`, then `use`).
    """

    def __init__(self, pool: ResourcePool, workload: Workload | None = None, seed: int = 0) -> None:
        self.pool = pool
        self.chooser = Chooser(pool, workload, seed)

    def note(self, request: Request) -> None:
        """The workload learns from a request: once for each."""
        for demand in request.bundles:
            self.chooser.workload.note(demand)

    def price_inputs(self) -> PriceInputs | None:
        """What to compute prices from, when new ones are due: the workload has grown, or the fleet has a new type."""
        return self.chooser.price_inputs()

    def use(self, prices: Prices) -> None:
        """From now on decides by these prices under the default policy."""
        self.chooser.use(prices)

    def plan(
        self,
        request: Request,
        policy: str = DEFAULT_POLICY,
        excluded: frozenset[str] = frozenset(),
        for_id: str = "",
    ) -> Decision:
        """Homes for all bundles. `for_id`: who asks, for nodes earmarked for it.

        Raises DoesNotFit with the reason per dimension, NotFound for an unknown policy.
        """
        limits = Limits(excluded, anti_affinity=request.anti_affinity, for_id=for_id)
        try:
            return self._decide(request, policy, limits)
        except DoesNotFit:
            if request.anti_affinity is None or not request.anti_affinity_soft:
                raise
        return self._decide(request, policy, replace(limits, anti_affinity=None))

    def _decide(self, request: Request, policy: str, limits: Limits) -> Decision:
        if len(request.bundles) > 1:
            return Decision(*gang.place(self.chooser, request, policy, limits))
        demand = request.bundles[0]
        explanation = self.chooser.explain(demand, policy, limits)
        node_id = explanation.chosen
        bundle = Bundle(demand=demand, node_id=node_id, gpu_indices=self.pool.choose_gpus(node_id, demand))
        return Decision((bundle,), explanation)
