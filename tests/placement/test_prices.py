"""Prices: what room is worth to a workload, and what a type costs that some demands cannot do without."""

import numpy as np
import pytest

from noodle_ray.placement import gpu_rule
from noodle_ray.placement.columns import Columns
from noodle_ray.placement.market import HIGHEST_PRICE, Market
from noodle_ray.placement.prices import PriceInputs, Prices, Weights, compute, hole_worths
from noodle_ray.placement.workload import CLASSES_AT_MOST, DemandClass, Workload
from noodle_ray.resources import UNITS, Demand, NodeResources


def worths(*demands: Demand) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return hole_worths([(DemandClass.of(demand), 1 / len(demands)) for demand in demands])


def worth_of(amount: float, *demands: Demand) -> float:
    return float(worths(*demands)[round(amount * UNITS)])


def test_a_hole_that_nothing_fits_is_worth_nothing() -> None:
    assert worth_of(0.4, Demand(gpu_share=0.5)) == 0
    assert worth_of(0.5, Demand(gpu_share=0.5)) == pytest.approx(0.5)
    assert worth_of(1, Demand(gpu_share=0.5)) == 1


def test_a_hole_is_worth_more_where_two_fit() -> None:
    third = Demand(gpu_share=0.3333)
    assert worth_of(0.34, third) == pytest.approx(1 / 3, abs=0.01)
    assert worth_of(0.67, third) == pytest.approx(2 / 3, abs=0.01)


def test_the_hole_beside_a_large_share_is_worth_little_to_a_small_one() -> None:
    """.19 is left beside each .81; the .16 that would fit there is best put nowhere else."""
    workload = [Demand(gpu_share=0.81)] * 8 + [Demand(gpu_share=0.16)]
    assert worth_of(0.19, *workload) < worth_of(0.81, *workload) / 4


def test_where_only_whole_gpus_are_asked_for_an_amount_is_worth_itself() -> None:
    assert worth_of(0.3, Demand(gpus=1)) == pytest.approx(0.3)


def test_worths_never_fall() -> None:
    assert (np.diff(worths(*[Demand(gpu_share=s) for s in (0.05, 0.22, 0.47, 0.65, 0.81)], Demand(gpus=2))) >= 0).all()


def prices_of(*demands: Demand, kinds: tuple[str, ...] = ("", "A100", "L4")) -> Prices:
    return compute(PriceInputs(Workload.of(list(demands) * 20).classes(), kinds, 10**6, 10**9, 10, Weights()))


def test_room_without_cpus_is_usable_for_nobody() -> None:
    prices = prices_of(Demand(gpu_share=0.5, cpus=4), Demand(gpu_share=0.25, cpus=1))
    assert prices.cpu_levels.tolist() == [10_000, 40_000]
    usable = prices.usable[0]
    assert usable[0].max() == 0
    assert usable[1].max() < usable[2].max()
    assert prices.size_index[[2_499, 2_500, 4_999, 5_000]].tolist() == [0, 1, 1, 2]


def test_a_type_that_a_demand_may_not_use_is_not_usable_for_it() -> None:
    prices = prices_of(Demand(gpus=1, accelerator_type="A100"), Demand(gpu_share=0.5))
    none, a100, l4 = (int(prices.whole[kind, -1, 1]) for kind in range(3))
    assert (none, l4) == (0, 0)
    assert a100 > 0


def market_of(*demands: Demand, free: tuple[float, ...] = (0, 10, 30)) -> list[float]:
    return [float(price) for price in Market(prices_of(*demands)).type_prices(np.array(free, np.float64))]


def test_nothing_is_dearer_where_no_demand_is_particular() -> None:
    assert market_of(Demand(gpus=1), Demand(gpu_share=0.5)) == [1, 1, 1]


def test_a_type_is_dear_that_much_demand_cannot_do_without() -> None:
    _, a100, l4 = market_of(*[Demand(gpus=1, accelerator_type="A100")] * 5, *[Demand(gpus=1)] * 5)
    assert a100 == pytest.approx(2.0, rel=0.01)  # half of all demand for a quarter of all that is free
    assert l4 == pytest.approx(2 / 3, rel=0.01)


def test_particular_demand_that_is_modest_costs_nothing() -> None:
    """A tenth of the demand wants a quarter of the supply: the others fill the rest, and all cost the same."""
    _, a100, l4 = market_of(Demand(gpus=1, accelerator_type="A100"), *[Demand(gpus=1)] * 9)
    assert a100 == pytest.approx(l4, rel=0.02)


def test_what_is_gone_costs_the_most_there_is() -> None:
    _, a100, _ = market_of(Demand(gpus=1, accelerator_type="A100"), Demand(gpus=1), free=(0, 0, 30))
    assert a100 == HIGHEST_PRICE


def test_the_market_follows_what_is_free() -> None:
    market = Market(prices_of(*[Demand(gpus=1, accelerator_type="A100")] * 5, *[Demand(gpus=1)] * 5))
    for free in range(30, 5, -1):
        followed = market.type_prices(np.array([0, free, 30], np.float64))
    fresh = market_of(*[Demand(gpus=1, accelerator_type="A100")] * 5, *[Demand(gpus=1)] * 5, free=(0, 6, 30))
    assert followed.tolist() == pytest.approx(fresh, rel=0.02)


def test_types_that_came_later_cost_the_usual() -> None:
    market = Market(prices_of(Demand(gpus=1, accelerator_type="A100"), Demand(gpus=1)))
    assert market.type_prices(np.ones(5))[3:].tolist() == [1, 1]
    assert market.surcharges(np.ones(5)).dtype == np.int64


def test_a_workload_weighs_what_is_new_more() -> None:
    workload = Workload(memory=10)
    for share in [0.5] * 30 + [0.25] * 30:
        workload.note(Demand(gpu_share=share))
    (first, heavy), (_, light) = workload.classes()
    assert first.gpu_units == 2_500
    assert heavy > 0.9
    assert heavy + light == pytest.approx(1)
    for _ in range(30_000):
        workload.note(Demand(gpu_share=0.75))
    assert workload.classes()[0][1] == pytest.approx(1)


def test_a_workload_keeps_the_heaviest_classes_only() -> None:
    workload = Workload.of([Demand(cpus=number / 100) for number in range(1, 2 * CLASSES_AT_MOST + 50)])
    assert len(workload.classes()) == CLASSES_AT_MOST


@pytest.mark.parametrize(
    ("free", "demand", "picked"),
    [
        ([10_000, 5_000, 5_000], Demand(gpu_share=0.5), (1,)),
        ([10_000, 4_000], Demand(gpu_share=0.5), (0,)),
        ([4_000, 4_000], Demand(gpu_share=0.5), ()),
        ([5_000, 10_000, 0, 10_000], Demand(gpus=2), (1, 3)),
        ([5_000, 10_000], Demand(gpus=2), ()),
        ([10_000], Demand(cpus=1), ()),
    ],
)
def test_rays_rule_for_gpu_indices(free: list[int], demand: Demand, picked: tuple[int, ...]) -> None:
    assert gpu_rule.pick(np.array(free, np.int64), demand) == picked


def test_the_log_of_changes_tells_each_row_once() -> None:
    columns = Columns()
    columns.add("a", NodeResources.of(cpus=1))
    position = columns.changes.position
    columns.add("b", NodeResources.of(cpus=1))
    columns.refresh(1)
    assert columns.changes.since(position, 2).tolist() == [1]
    assert columns.changes.since(columns.changes.position, 2).tolist() == []
