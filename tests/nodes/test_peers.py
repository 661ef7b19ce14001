"""Whom an agent probes when: calm peers once an interval, those that owe an answer twice as often."""

from noodle_ray.nodes.peers import Endpoint, Observation, Peer, PeerWatch

INTERVAL_S = 0.5


def watch_of(*names: str) -> PeerWatch:
    watch = PeerWatch(suspect_after_s=2.0)
    watch.watch([Peer(name, Endpoint("10.0.0.1", 1, 2)) for name in names], now=0.0)
    return watch


def test_who_answers_is_probed_once_in_an_interval() -> None:
    watch = watch_of("a", "b")
    probed = []
    for turn in range(8):
        now = turn * INTERVAL_S / 2
        probed.append(watch.due(now, INTERVAL_S))
        for node_id in probed[-1]:
            watch.answered(node_id, now + 0.01)
    assert probed == [("a", "b"), ()] * 4


def test_who_does_not_answer_is_probed_again_after_half_of_it() -> None:
    watch = watch_of("a", "b")
    for turn in range(6):
        now = turn * INTERVAL_S / 2
        due = watch.due(now, INTERVAL_S)
        assert "a" in due
        assert ("b" in due) == (turn % 2 == 0)
        watch.answered("b", now + 0.01)


def test_late_calls_skip_nobody() -> None:
    watch = watch_of("a")
    now = 0.0
    for _ in range(10):
        assert watch.due(now, INTERVAL_S) == ("a",)
        watch.answered("a", now + 0.01)
        now += 0.9 * INTERVAL_S


def test_after_a_stall_of_its_own_an_agent_tells_whom_it_hears() -> None:
    """Others may have held it for dead meanwhile."""
    watch = watch_of("a", "b")
    watch.look(0.0)
    assert watch.answered("a", 0.1) is None
    assert watch.look(4.0) == ()
    assert watch.answered("a", 4.1) == Observation("a", "heard")
    assert watch.answered("a", 4.6) is None
    assert watch.look(5.0) == ()
