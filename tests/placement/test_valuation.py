"""Values and scores: machine code says what numpy says, and a score that was kept what a fresh one would be."""

from collections.abc import Iterator

import numpy as np
import pytest
from fleets import TYPES, demands, nodes, pool_of, shares
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from noodle_ray.placement import kernels, valuation
from noodle_ray.placement.ledger import ResourcePool
from noodle_ray.placement.policies import FGD_WEIGHTS
from noodle_ray.placement.prices import PriceInputs, Prices, Weights, compute
from noodle_ray.placement.scoreboard import Scoreboard
from noodle_ray.placement.valuation import NEVER, Ask, Rooms
from noodle_ray.placement.workload import Workload
from noodle_ray.resources import UNITS, Demand, NodeResources

WORKLOAD = (
    [Demand(gpu_share=share, cpus=cpus) for share in (0.25, 0.3, 0.5, 0.9) for cpus in (0, 0.5, 2)]
    + [Demand(gpus=count, cpus=2 * count, memory="2GiB") for count in (1, 1, 1, 2, 4)]
    + [Demand(gpus=1, accelerator_type=TYPES[0], cpus=1)] * 3
    + [Demand(cpus=3, memory="1GiB")] * 4
)


def prices_of(pool: ResourcePool, weights: Weights = Weights(), times: int = 2) -> Prices:  # noqa: B008
    return compute(PriceInputs.of(pool.columns, Workload.of(WORKLOAD * times), weights))


@pytest.fixture
def machine_code() -> Iterator[None]:
    kernels.warm()
    yield
    kernels.cool()


filled_pools = st.lists(st.tuples(nodes, st.lists(demands, max_size=4)), min_size=1, max_size=6)


def build(plan: list[tuple[NodeResources, list[Demand]]]) -> ResourcePool:
    pool = ResourcePool()
    for number, (resources, wanted) in enumerate(plan):
        pool.add_node(f"n{number}", resources)
        for index, demand in enumerate(wanted):
            if pool.can_allocate(f"n{number}", demand):
                pool.allocate(f"a{number}.{index}", [(f"n{number}", demand)])
    return pool


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
@given(
    plan=filled_pools,
    demand=demands,
    own_choice=st.booleans(),
    weights=st.sampled_from([Weights(), FGD_WEIGHTS]),
    times=st.sampled_from([0, 2]),
    count=st.integers(1, 5),
    data=st.data(),
)
def test_machine_code_decides_what_numpy_decides(
    machine_code: None,
    plan: list[tuple[NodeResources, list[Demand]]],
    demand: Demand,
    own_choice: bool,
    weights: Weights,
    times: int,
    count: int,
    data: st.DataObject,
) -> None:
    pool = build(plan)
    prices, ask, rows = prices_of(pool, weights, times), Ask.of(demand, own_choice), np.arange(len(plan))
    extra = np.array(data.draw(st.lists(st.integers(0, 10**6), min_size=4, max_size=4)), np.int64)
    allowed, blocked = pool.kind_matches(demand), data.draw(st.sampled_from([None, rows % 2 == 0]))
    pool.cordon("n0", data.draw(st.booleans()))

    def decide() -> tuple[object, ...]:
        scores = np.zeros(len(rows), np.int64)
        kernels.score_into(scores, rows, prices, pool.columns, ask)
        best = kernels.best_rows(scores, pool.columns, extra, 3, allowed, blocked, count)
        parts, index = kernels.cost_parts(rows[scores != NEVER], prices, pool.columns, ask)
        return scores.tolist(), best.tolist(), {name: part.tolist() for name, part in parts.items()}, index.tolist()

    kernels.warm()
    compiled = decide()
    kernels.cool()
    assert compiled == decide()


def test_a_score_is_what_the_node_is_worth_less() -> None:
    pool = build([(NodeResources.of(cpus=8, memory="16GiB", gpus=2, accelerator_type="L4"), [Demand(gpu_share=0.5)])])
    prices, rows = prices_of(pool), np.array([0])
    before = sum(int(part[0]) for part in valuation.values(prices, Rooms.of(pool.columns, rows)).values())
    demand = Demand(gpu_share=0.25, cpus=1)
    score = int(valuation.scores(prices, pool.columns, rows, Ask.of(demand))[0])
    pool.allocate("x", [("n0", demand)])
    rooms = Rooms.of(pool.columns, rows)
    after = sum(int(part[0]) for part in valuation.values(prices, rooms).values())
    left = rooms.gpus.sum() * prices.gpu_left + rooms.cpu_units[0] * prices.cpu_left
    left += (rooms.memory[0] >> 20) * prices.mib_left
    assert score == after - before - left


def test_the_own_choice_of_a_gpu_can_differ_from_rays() -> None:
    """.25 fits the hole of .3 and the hole of .5: the hole of .3 is nobody else's, so it is worth less."""
    pool = build([(NodeResources.of(cpus=8, memory="16GiB", gpus=2), [])])
    pool.allocate("x", [("n0", Demand(gpu_share=0.7))])
    pool.allocate("y", [("n0", Demand(gpu_share=0.5))])
    workload = Workload.of([Demand(gpu_share=0.3)] * 30 + [Demand(gpu_share=0.25)])
    prices = compute(PriceInputs.of(pool.columns, workload, Weights()))
    room = np.array([0])
    _, ray = valuation.costs(prices, Rooms.of(pool.columns, room), Ask.of(Demand(gpu_share=0.25)))
    _, own = valuation.costs(prices, Rooms.of(pool.columns, room), Ask.of(Demand(gpu_share=0.25), own_choice=True))
    assert (ray[0], own[0]) == (0, 1)


class KeptScores(RuleBasedStateMachine):
    """Whatever happens to the fleet, kept scores are what all scores computed anew would be."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = pool_of(n0=NodeResources.of(cpus=4, memory="8GiB", gpus=2, accelerator_type="L4"))
        for kind in TYPES:
            self.pool.add_node(f"first-{kind}", NodeResources.of(cpus=2, memory="4GiB", gpus=1, accelerator_type=kind))
        self.board = Scoreboard(self.pool.columns, prices_of(self.pool))
        self.asks = [Ask.of(Demand(gpu_share=0.5, cpus=0.5)), Ask.of(Demand(gpus=1)), Ask.of(Demand(cpus=1))]
        self.count = 0

    @rule(resources=nodes)
    def add_node(self, resources: NodeResources) -> None:
        self.count += 1
        self.pool.add_node(f"m{self.count}", resources)

    @rule(data=st.data())
    def remove_node(self, data: st.DataObject) -> None:
        if len(self.pool.node_ids) > 1:
            self.pool.remove_node(data.draw(st.sampled_from(self.pool.node_ids)))

    @rule(data=st.data(), demand=demands)
    def allocate(self, data: st.DataObject, demand: Demand) -> None:
        node = data.draw(st.sampled_from(self.pool.node_ids))
        if self.pool.can_allocate(node, demand):
            self.count += 1
            self.pool.allocate(f"a{self.count}", [(node, demand)])

    @rule(data=st.data(), share=shares)
    def others_use_some(self, data: st.DataObject, share: float) -> None:
        self.pool.set_foreign(data.draw(st.sampled_from(self.pool.node_ids)), {"cpus": 5_000}, round(share * UNITS))

    @rule(index=st.integers(0, 2))
    def ask(self, index: int) -> None:
        self.board.scores(self.asks[index])

    @invariant()
    def kept_is_fresh(self) -> None:
        rows = np.arange(len(self.pool.node_ids))
        for ask in self.asks[:2]:
            fresh = valuation.scores(self.board.prices, self.pool.columns, rows, ask)
            assert self.board.scores(ask).tolist() == fresh.tolist()


TestKeptScores = KeptScores.TestCase
TestKeptScores.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_scores_that_are_too_many_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noodle_ray.placement.scoreboard.BYTES_AT_MOST", 100)
    pool = build([(NodeResources.of(cpus=4), [])] * 6)
    board = Scoreboard(pool.columns, prices_of(pool))
    for cpus in (1, 2, 3):
        board.scores(Ask.of(Demand(cpus=cpus)))
    assert len(board._kept) == 2


def test_a_log_that_was_cut_is_read_anew() -> None:
    pool = build([(NodeResources.of(cpus=4, gpus=1), [])] * 3)
    board = Scoreboard(pool.columns, prices_of(pool))
    ask = Ask.of(Demand(cpus=1))
    board.scores(ask)
    for _ in range(2 * pool.columns.changes.KEPT + 2):
        pool.columns.changes.append(0)
    pool.allocate("x", [("n2", Demand(cpus=4))])
    assert board.scores(ask)[2] == NEVER
