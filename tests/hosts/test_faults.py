"""Faults between hosts: what each does to nodes and to what they hold. After each the four hosts are whole again."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from one_of_everything import everything, fill, kill_and_start_again

from noodle_ray.entry.bench import host_links
from noodle_ray.entry.bench.host_cluster import HostCluster, Plan, host_cluster
from noodle_ray.entry.bench.host_links import cut, deaf, flapping, losing
from noodle_ray.entry.bench.host_relay import delaying
from noodle_ray.entry.bench.hosts import Host, why_not
from noodle_ray.entry.bench.module_versions import echo_module
from noodle_ray.placement.allocation import Allocation

WHY_NOT = why_not() or host_links.why_not()
pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(bool(WHY_NOT), reason=f"there can be no hosts here: {WHY_NOT}"),
]

OUT_S = 30.0
"""Far more than it takes until a node is given up: the machine may be busy."""

HEAL_S = 90.0
CALM_S = 10.0
"""How long a fault goes on that nobody is to die of; a node that is silent is dead after four seconds."""


FILL = """
for place in / /tmp; do
    fallocate --length $(df --output=avail --block-size=1 $place | tail -n 1) $place/fill || true
    cat /dev/zero > $place/rest || true
done 2> /dev/null
df --output=avail / /tmp
"""


@pytest.fixture(scope="module")
def running() -> Iterator[HostCluster]:
    with host_cluster(Plan(hosts=4, cpus=1), lambda what: None) as started:
        yield started


@pytest.fixture
def cluster(running: HostCluster) -> Iterator[HostCluster]:
    """Whole before and after: all nodes watched, nothing held, and the ledger and Ray of one mind."""
    yield running
    for allocation in running.allocations():
        running.release(allocation.id)
    running.wait_for("all nodes to be watched", lambda: len(running.watched()) == len(running.hosts), HEAL_S)
    running.wait_for("everything to be free", lambda: is_free(running), HEAL_S)


def is_free(cluster: HostCluster) -> bool:
    """CPUs of every node, none held: in the ledger, which is compared with Ray."""
    totals = cluster.get("/api/distributed/resources")
    cpus = totals["cpus"]
    return bool(cpus["total"] == len(cluster.hosts) and cpus["held"] == 0 and totals["ledger_differences"] == 0)


def held_by_a_worker(cluster: HostCluster) -> tuple[Allocation, Host]:
    """A whole CPU, which no head has that answers HTTP beside."""
    allocation = cluster.hold(1)
    host = cluster.host_of(allocation.node_id)
    assert host is not cluster.head
    return allocation, host


def held_anew(cluster: HostCluster, before: Allocation) -> bool:
    now = cluster.allocation(before.id)
    return now.state == "held" and now.epoch > before.epoch and now.node_id != before.node_id


@contextmanager
def nobody_dies(cluster: HostCluster) -> Iterator[None]:
    """Neither do nodes change, nor is one held for dead meanwhile, nor does anything move."""
    before, held = {node.id for node in cluster.nodes()}, cluster.allocations()
    deaths = len(cluster.events("node_dead", "node_left"))
    yield
    assert len(cluster.events("node_dead", "node_left")) == deaths
    assert {node.id for node in cluster.nodes()} == before
    assert [one.epoch for one in cluster.allocations()] == [one.epoch for one in held]


@contextmanager
def moves_away(cluster: HostCluster) -> Iterator[Host]:
    """What a worker holds is held once more, elsewhere, while the block lasts, and stays there when it is over."""
    allocation, host = held_by_a_worker(cluster)
    yield host
    now = cluster.allocation(allocation.id)
    assert held_anew(cluster, allocation)
    cluster.wait_for("all nodes to be watched", lambda: len(cluster.watched()) == len(cluster.hosts), HEAL_S)
    # What a host that is back had before counts as taken until Ray has let go of it.
    cluster.wait_for("it to be held once", lambda: held_cpus(cluster) == 1, HEAL_S)
    assert cluster.allocation(allocation.id).group == now.group


def wait_until_moved(cluster: HostCluster, host: Host) -> None:
    def moved(one: Allocation) -> bool:
        return one.state == "held" and cluster.host_of(one.node_id) is not host

    cluster.wait_for("it to be held anew", lambda: all(map(moved, cluster.allocations())), OUT_S)


def wait_until_given_up(cluster: HostCluster, host: Host, node_id: str) -> None:
    """Until Ray, too, holds it for dead: if it were heard again just before, it would be whole for a moment."""
    wait_until_moved(cluster, host)
    cluster.wait_for("Ray to give it up", lambda: node_id not in {node.id for node in cluster.nodes()}, OUT_S)


def held_cpus(cluster: HostCluster) -> float:
    return float(cluster.get("/api/distributed/resources")["cpus"]["held"])


def test_a_node_whose_raylet_is_killed_is_replaced(cluster: HostCluster) -> None:
    with moves_away(cluster) as host:
        before = cluster.node_of(host).id
        cluster.strike(host, "raylet", signal.SIGKILL)
        wait_until_moved(cluster, host)
    assert cluster.node_of(host).id != before


def test_a_host_that_freezes_is_suspected_and_given_up(cluster: HostCluster) -> None:
    with moves_away(cluster) as host:
        node = cluster.node_of(host).id
        host.freeze()
        try:
            wait_until_given_up(cluster, host, node)
        finally:
            host.thaw()
    kinds = [event.kind for event in cluster.events() if event.details.get("node") == node]
    assert kinds.index("node_suspect") < kinds.index("node_dead")


def test_a_host_whose_cable_is_pulled_is_given_up(cluster: HostCluster) -> None:
    with moves_away(cluster) as host:
        node = cluster.node_of(host).id
        host.unplug()
        try:
            wait_until_given_up(cluster, host, node)
        finally:
            host.plug_in()


def test_a_host_that_hears_nobody_is_given_up_whatever_it_tells(cluster: HostCluster) -> None:
    with moves_away(cluster) as host:
        node = cluster.node_of(host).id
        with deaf(host, [other for other in cluster.hosts if other is not host]):
            wait_until_given_up(cluster, host, node)


def test_a_host_that_nobody_hears_is_given_up(cluster: HostCluster) -> None:
    with moves_away(cluster) as host:
        node = cluster.node_of(host).id
        others = [other for other in cluster.hosts if other is not host]
        with cut_one_way(others, host):
            wait_until_given_up(cluster, host, node)


@contextmanager
def cut_one_way(listeners: list[Host], speaker: Host) -> Iterator[None]:
    [first, *others] = listeners
    with deaf(first, [speaker]):
        if others:
            with cut_one_way(others, speaker):
                yield
        else:
            yield


def test_nobody_dies_of_a_loose_cable(cluster: HostCluster) -> None:
    _, host = held_by_a_worker(cluster)
    with nobody_dies(cluster), flapping(host, in_s=1.5, out_s=0.4):
        time.sleep(CALM_S)


def test_nobody_dies_where_a_fifth_of_all_is_lost(cluster: HostCluster) -> None:
    _, host = held_by_a_worker(cluster)
    with nobody_dies(cluster), losing(host, 20):
        time.sleep(CALM_S)


def test_nobody_dies_where_all_comes_late_and_in_disorder(cluster: HostCluster) -> None:
    _, host = held_by_a_worker(cluster)
    others = [other for other in cluster.hosts if other is not host]
    with nobody_dies(cluster), delaying(host, others, 0.02, 0.2):
        time.sleep(CALM_S)


def test_a_node_outlives_its_agent(cluster: HostCluster) -> None:
    _, host = held_by_a_worker(cluster)
    with nobody_dies(cluster):
        [before] = cluster.pids(host, "agent")
        cluster.strike(host, "agent", signal.SIGKILL)
        cluster.wait_for("an agent to be there again", lambda: cluster.pids(host, "agent") not in ([], [before]))
        cluster.wait_for("it to be watched", lambda: cluster.node_of(host).state == "alive")


def test_a_node_works_on_with_a_full_disk(cluster: HostCluster) -> None:
    allocation, host = held_by_a_worker(cluster)
    cluster.release(allocation.id)
    with nobody_dies(cluster):
        assert host.run("/bin/bash", "-c", FILL, timeout_s=120).split()[1:] == ["0", "0"]
        try:
            time.sleep(CALM_S)
            held = [cluster.hold(1) for _ in range(3)]
            assert cluster.node_of(host).id in {one.node_id for one in held}
            for one in held:
                cluster.release(one.id)
        finally:
            host.run("rm", "-f", "/fill", "/tmp/fill", "/rest", "/tmp/rest")


def test_a_head_that_loses_half_of_the_nodes_gives_their_work_to_the_others(cluster: HostCluster) -> None:
    allocation, host = held_by_a_worker(cluster)
    lost = [host, next(other for other in cluster.hosts[1:] if other is not host)]
    with cut([cluster.head], lost):
        cluster.wait_for("it to be held anew", lambda: held_anew(cluster, allocation), OUT_S)
        assert cluster.host_of(cluster.allocation(allocation.id).node_id) not in lost
        cluster.wait_for("both to be given up", lambda: len(cluster.nodes()) == 2, OUT_S)
    cluster.wait_for("it to be held once", lambda: held_cpus(cluster) == 1, HEAL_S)


@pytest.mark.parametrize(("name", "resources"), [("two", {}), ("two-that-hold", {"cpus": 0.1})])
def test_hosts_of_a_module_go_to_nodes_of_their_own(
    cluster: HostCluster, name: str, resources: dict[str, float]
) -> None:
    """Two that found one node only, as encoders do that are started with their head."""
    workers = [cluster.node_of(host).id for host in cluster.hosts[1:]]
    cordon(cluster, workers, "cordon")
    cluster.post_bytes("/api/modules", echo_module(name, resources=resources, hosts=2))
    cluster.post(f"/api/modules/{name}/load", {})
    head, other = nodes_of(name, cluster)
    assert head == other and head not in workers
    cordon(cluster, workers, "uncordon")
    cluster.wait_for("one to be elsewhere, and none left over", lambda: are_apart(nodes_of(name, cluster)), OUT_S)
    cluster.delete(f"/api/modules/{name}")


def cordon(cluster: HostCluster, node_ids: list[str], how: str) -> None:
    for node_id in node_ids:
        cluster.post(f"/api/distributed/nodes/{node_id}/{how}", {})


def nodes_of(module: str, cluster: HostCluster) -> list[str]:
    """The node of each of its hosts."""
    return list(cluster.get(f"/api/modules/{module}")["nodes"])


def are_apart(two: list[str]) -> bool:
    return len(two) == len(set(two)) == 2


def test_a_head_that_dies_as_a_whole_forgets_nothing(cluster: HostCluster) -> None:
    """Its tables are on its disk."""
    fill(cluster)
    kill_and_start_again(cluster, everything(cluster))
    cluster.delete("/api/modules/tokenizer")
    cluster.post(f"/api/distributed/nodes/{cluster.node_of(cluster.hosts[1]).id}/uncordon", {})
