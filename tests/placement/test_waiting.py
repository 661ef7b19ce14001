"""The queue: its order, who may overtake whom, and rounds."""

from hypothesis import given
from hypothesis import strategies as st

from noodle_ray.placement.waiting import AGEING_S, WaitingQueue


def queue_of(*turns: tuple[str, int, float], shape: str = "") -> WaitingQueue:
    """Turns as (id, priority, since); each its own shape unless one is given."""
    queue = WaitingQueue()
    for key, priority, since in turns:
        queue.add(key, shape or key, priority, since)
    return queue


def order(queue: WaitingQueue) -> list[str]:
    return [turn.allocation_id for turn in queue]


def test_higher_priority_comes_first_then_who_waits_longer_then_who_came_first() -> None:
    queue = queue_of(("low", 0, 0.0), ("high", 1, 10.0), ("high too", 1, 10.0), ("higher", 2, 20.0))
    assert order(queue) == ["higher", "high", "high too", "low"]
    assert [queue.position(key) for key in order(queue)] == [1, 2, 3, 4]
    assert queue.position("nobody") is None
    assert queue.oldest_wait_s(30.0) == 30.0


def test_waiting_long_counts_as_much_as_a_level() -> None:
    assert order(queue_of(("old", 0, 0.0), ("urgent", 1, AGEING_S - 1))) == ["urgent", "old"]
    assert order(queue_of(("old", 0, 0.0), ("urgent", 1, AGEING_S + 1))) == ["old", "urgent"]


def test_nobody_overtakes_one_of_the_same_shape_that_matters_as_much() -> None:
    queue = queue_of(("a", 1, 0.0), shape="x")
    assert queue.ahead("x", 1, 0.0) == "a"
    assert queue.ahead("x", 0, 0.0) == "a"
    assert queue.ahead("x", 2, 0.0) is None
    assert queue.ahead("x", 2, 2 * AGEING_S) == "a"  # who waits long comes first in the end
    assert queue.ahead("y", 1, 0.0) is None
    queue.remove("a")
    assert queue.ahead("x", 1, 0.0) is None
    queue.remove("a")
    assert (len(queue), queue.first, queue.oldest_wait_s(9.0)) == (0, None, 0.0)


def test_a_round_asks_each_shape_until_it_fails_in_order() -> None:
    queue = WaitingQueue()
    for number, shape in enumerate("xyxzy"):
        queue.add(f"{shape}{number}", shape, 0, float(number))
    asked = []

    def place(key: str) -> bool:
        asked.append(key)
        return key in ("x0", "z3", "y1")

    queue.serve(place)
    assert asked == ["x0", "y1", "x2", "z3", "y4"]
    assert order(queue) == ["x2", "y4"]
    asked.clear()
    queue.serve(lambda key: asked.append(key) is not None)
    assert asked == ["x2", "y4"]


TURNS = st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 300).map(float)), min_size=1, max_size=30)


@given(TURNS, st.integers(0, 1000))
def test_the_order_is_that_of_priority_with_age_at_any_time(turns: list[tuple[int, float]], later: int) -> None:
    queue = queue_of(*((str(number), *turn) for number, turn in enumerate(turns)))
    now = 300.0 + later

    def aged(number: int) -> tuple[float, int]:
        priority, since = turns[number]
        return -round(priority + (now - since) / AGEING_S, 9), number

    assert order(queue) == [str(number) for number in sorted(range(len(turns)), key=aged)]


@given(TURNS, st.sets(st.integers(0, 29)))
def test_whoever_is_taken_out_is_out(turns: list[tuple[int, float]], gone: set[int]) -> None:
    queue = queue_of(*((str(number), *turn) for number, turn in enumerate(turns)), shape="all alike")
    for number in gone:
        queue.remove(str(number))
    left = [str(number) for number in range(len(turns)) if number not in gone]
    assert sorted(order(queue)) == sorted(left)
    assert all((key in queue) == (key in left) for key in map(str, range(len(turns))))
