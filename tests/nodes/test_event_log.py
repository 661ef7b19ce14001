"""The event log gives what came after a number, and everything to whoever knew another manager."""

from noodle_ray.nodes.event_log import KEPT, EventLog


def test_it_gives_what_came_after_a_number() -> None:
    log = EventLog()
    for number in range(3):
        log.add("node_joined", f"n{number} joined", {"node": f"n{number}"}, at=float(number))
    assert [event.message for event in log.since(1)] == ["n1 joined", "n2 joined"]
    assert log.since(3) == []
    assert [event.number for event in log.since(0)] == [1, 2, 3]


def test_a_number_of_another_manager_is_answered_with_all() -> None:
    log = EventLog()
    log.add("node_left", "n left", {}, at=0.0)
    assert len(log.since(99)) == 1


def test_it_forgets_what_is_long_ago() -> None:
    log = EventLog()
    for _ in range(KEPT + 5):
        log.add("tick", "", {}, at=0.0)
    assert len(log.since(0)) == KEPT
