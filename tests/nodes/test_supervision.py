"""Which processes of a Ray node are started again, and when."""

from hypothesis import given
from hypothesis import strategies as st

from noodle_ray.nodes.supervision import LONGEST_PAUSE_S, NODE, STEADY_S, Leave, Restart, Supervision

DAYS = st.floats(min_value=0, max_value=86_400)


def test_the_first_death_is_repaired_at_once() -> None:
    assert Supervision().ended({"gcs_server": "died"}, 5.0) == (Restart("gcs_server", 0.0),)


def test_a_node_whose_raylet_died_starts_anew_whatever_else_died_with_it() -> None:
    assert Supervision().ended({"raylet": "died", "dashboard": "died"}, 5.0) == (Restart(NODE, 0.0),)


def test_a_node_that_was_told_to_leave_leaves() -> None:
    assert Supervision().ended({"raylet": "asked", "log_monitor": "died"}, 5.0) == (Leave(),)


def test_anything_else_starts_again_even_if_it_ended_in_good_order() -> None:
    assert Supervision().ended({"dashboard": "asked"}, 5.0) == (Restart("dashboard", 0.0),)


def test_what_dies_again_and_again_is_started_ever_more_slowly() -> None:
    supervision, now, pauses = Supervision(), 0.0, []
    for _ in range(9):
        [restart] = supervision.ended({"dashboard": "died"}, now)
        assert isinstance(restart, Restart)
        pauses.append(restart.after_s)
        now += restart.after_s + 1.0
    assert pauses == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]


def test_what_has_run_for_a_while_is_repaired_at_once_again() -> None:
    supervision = Supervision()
    for at in (0.0, 1.0, 2.0):
        supervision.ended({"gcs_server": "died"}, at)
    assert supervision.ended({"gcs_server": "died"}, 2.0 + 1.0 + STEADY_S + 0.1) == (Restart("gcs_server", 0.0),)


def test_each_has_a_pause_of_its_own() -> None:
    supervision = Supervision()
    supervision.ended({"dashboard": "died"}, 0.0)
    assert supervision.ended({"gcs_server": "died", "dashboard": "died"}, 1.0) == (
        Restart("dashboard", 0.5),
        Restart("gcs_server", 0.0),
    )


def test_a_start_that_failed_is_tried_again_later() -> None:
    supervision = Supervision()
    assert supervision.ended({"raylet": "died"}, 0.0) == (Restart(NODE, 0.0),)
    assert supervision.failed(NODE, 1.0) == Restart(NODE, 0.5)
    assert supervision.failed(NODE, 2.0) == Restart(NODE, 1.0)


@given(st.lists(DAYS, min_size=1, max_size=30))
def test_no_pause_is_longer_than_the_longest(gaps: list[float]) -> None:
    supervision, now = Supervision(), 0.0
    for gap in gaps:
        now += gap
        [restart] = supervision.ended({"monitor": "died"}, now)
        assert isinstance(restart, Restart)
        assert 0.0 <= restart.after_s <= LONGEST_PAUSE_S
