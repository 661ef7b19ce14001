"""The protocol on traces so small that the outcome can be worked out by hand."""

import numpy as np
import pytest

from noodle_ray.errors import NotFound
from noodle_ray.placement.allocation import Bundle
from noodle_ray.replay.contenders import CONTENDERS, Contender, contender_named
from noodle_ray.replay.fleet import fleet_of
from noodle_ray.replay.player import Player
from noodle_ray.replay.replay import LEVELS, Tally, replay
from noodle_ray.replay.traces import Pod, TraceNode, arrivals
from noodle_ray.resources import Demand

TWO_NODES = [TraceNode("a", 8000, 8192, 2, "T4"), TraceNode("b", 8000, 8192, 2, "V100")]
WHOLE, HALF, PAIR = Pod(1000, 1024, 1, 1000), Pod(1000, 1024, 1, 500), Pod(1000, 1024, 2, 1000)
ON_V100 = Pod(1000, 1024, 1, 1000, frozenset({"V100"}))


def test_allocation_is_a_mean_over_the_arrivals_at_a_level() -> None:
    tally = Tally(1000)
    for requested, placed in ((500, True), (4, False), (490, True), (0, True), (300, False)):
        tally.note(requested, placed)
    curve = tally.curve()
    assert len(curve) == LEVELS
    assert curve[49] == 0  # before anything has arrived
    assert curve[50] == 50  # 500 and 504 of 1000
    assert curve[51] == curve[98] == 50  # nothing arrived there: as before
    assert curve[99] == pytest.approx(99)  # 994 rounds down, twice
    assert curve[129] == pytest.approx(99)


def test_a_level_rounds_half_up_as_the_cumulative_request_does() -> None:
    tally = Tally(1000)
    tally.note(495, True)
    assert tally.curve()[50] == pytest.approx(49.5)
    assert tally.curve()[49] == 0


def test_two_arrivals_at_one_level_are_averaged() -> None:
    tally = Tally(1000)
    tally.note(500, True)
    tally.note(3, True)
    assert tally.curve()[50] == pytest.approx((50 + 50.3) / 2)


@pytest.mark.parametrize("contender", sorted(CONTENDERS))
def test_what_fits_is_placed_and_the_rest_is_dropped(contender: str) -> None:
    pods = [PAIR, WHOLE, WHOLE, HALF, Pod(9000, 0)]
    run = replay(TWO_NODES, pods, [0, 1, 2, 3, 4], contender, seed=1)
    assert (run.arrived, run.dropped, run.moved) == (5, 2, 0)
    assert [run.allocated_percent[at] for at in (49, 50, 75, 100, 113, 130)] == [0, 50, 75, 100, 100, 100]


@pytest.mark.parametrize("contender", ["noodle", "noodle-on-ray", "fgd", "ray-hybrid", "ray-pack", "best-fit"])
def test_models_are_respected(contender: str) -> None:
    run = replay(TWO_NODES, [ON_V100] * 3, [0, 1, 2], contender, seed=0)
    assert run.dropped == 1


def test_a_share_sits_on_one_gpu() -> None:
    nodes = [TraceNode("a", 8000, 8192, 2, "")]
    pods = [Pod(0, 1, 1, 600), Pod(0, 1, 1, 600), Pod(0, 1, 1, 700), Pod(0, 1, 1, 400)]
    run = replay(nodes, pods, [0, 1, 2, 3], "ray-hybrid", seed=0)
    assert run.dropped == 1  # .8 are free in all, but .4 on each GPU
    assert run.allocated_percent[115] == pytest.approx(80)


def test_the_same_seed_gives_the_same_run_and_another_one_another() -> None:
    pods = [Pod(1000 * (1 + number % 3), 512, 1, 100 + 37 * number % 900) for number in range(60)]
    nodes = [TraceNode(f"n{number}", 8000, 8192, 1 + number % 3, "") for number in range(20)]

    def curve(contender: str, seed: int) -> list[float]:
        order = arrivals(pods, 1000 * sum(node.gpus for node in nodes), seed)
        return list(replay(nodes, pods, order, contender, seed).allocated_percent)

    for contender in ("noodle", "ray-hybrid", "random"):
        assert curve(contender, 3) == curve(contender, 3)
        assert curve(contender, 3) != curve(contender, 4)


def test_kept_names_make_the_order_of_nodes_the_same_for_every_seed() -> None:
    nodes = [TraceNode("small", 8000, 8192, 1, ""), TraceNode("large", 8000, 8192, 4, "")]
    kept = {replay(nodes, [PAIR, HALF], [1, 0], "ray-spread", seed, shuffled=False).dropped for seed in range(8)}
    mixed = {replay(nodes, [WHOLE] * 2 + [Pod(0, 1, 4, 1000)], [0, 2], "ray-spread", s).dropped for s in range(8)}
    assert kept == {0}
    assert mixed == {0, 1}


def test_no_more_is_moved_than_allowed() -> None:
    run = replay(TWO_NODES, [WHOLE, WHOLE, PAIR, PAIR], [0, 1, 2, 3], "noodle+moves", seed=0)
    assert run.moved == 0  # one move is more than .5 % of four pods
    assert contender_named("noodle+moves").moved_at_most == 0.005


@pytest.mark.parametrize(("allowed", "moved"), [(1.0, 1), (0.0, 0)])
def test_one_move_makes_room_where_moves_are_allowed(allowed: float, moved: int) -> None:
    pool = fleet_of(TWO_NODES, None)
    player = Player(pool, Contender("noodle", moved_at_most=allowed), [], seed=0)
    one, pair = Demand(cpus=1, gpus=1), Demand(cpus=1, gpus=2)
    for node_id in ("a", "b"):
        pool.restore(f"on-{node_id}", [Bundle(demand=one, node_id=node_id, gpu_indices=(1,))])
    player.note(pair)
    assert player.place("pair", pair) == bool(moved)
    assert player.moved == moved
    nodes = {pool.bundles(key)[0].node_id for key in ("on-a", "on-b")}
    assert len(nodes) == 2 - moved
    assert pool.gpu_held.sum() == 20_000 * (1 + moved)


def test_an_unknown_contender_is_refused_with_the_known_ones() -> None:
    with pytest.raises(NotFound, match=r"no policy 'fdg'; known: .*fgd.*noodle-on-ray.*ray-hybrid"):
        replay(TWO_NODES, [WHOLE], [0], "fdg", seed=0)


def test_every_level_is_a_number() -> None:
    assert not np.isnan(replay(TWO_NODES, [PAIR], [0], "noodle", 0).allocated_percent).any()
