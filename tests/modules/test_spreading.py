"""Which host goes to another node: the youngest of the fullest, until no node has two more than another."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from noodle_ray.modules.spreading import crowded


def test_two_on_one_node_while_another_is_empty() -> None:
    assert crowded({4: "a", 7: "a"}, {"a", "b"}) == 7


def test_on_nodes_of_their_own_they_stay() -> None:
    assert crowded({4: "a", 7: "b"}, {"a", "b", "c"}) is None


def test_three_on_two_nodes_are_as_far_apart_as_can_be() -> None:
    assert crowded({1: "a", 2: "a", 3: "b"}, {"a", "b"}) is None
    assert crowded({1: "a", 2: "a", 3: "b"}, {"a", "b", "c"}) == 2


def test_a_node_that_takes_no_work_is_no_way_out() -> None:
    assert crowded({4: "a", 7: "a"}, {"a"}) is None
    assert crowded({4: "a", 7: "a"}, ()) is None


def test_they_leave_a_node_that_is_not_open_itself() -> None:
    assert crowded({4: "a", 7: "a"}, {"b"}) == 7


def test_without_hosts_nobody_moves() -> None:
    assert crowded({}, {"a", "b"}) is None


@given(st.dictionaries(st.integers(1, 50), st.sampled_from("abcd"), max_size=8), st.sets(st.sampled_from("abcde")))
def test_move_by_move_it_comes_to_an_end(hosts: dict[int, str], open_nodes: set[str]) -> None:
    for _ in range(len(hosts) + 1):
        epoch = crowded(hosts, open_nodes)
        if epoch is None:
            break
        emptiest = min(sorted(open_nodes), key=lambda node: list(hosts.values()).count(node))
        hosts = {**{each: node for each, node in hosts.items() if each != epoch}, max(hosts) + 1: emptiest}
    assert crowded(hosts, open_nodes) is None
    counts = [list(hosts.values()).count(node) for node in open_nodes]
    assert not hosts or not counts or max(counts) - min(counts) <= 1
