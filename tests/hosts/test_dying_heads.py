"""A head with its tables in Redis and PostgreSQL: it dies and forgets nothing; hosts find it, rejoin, leave with it."""

import time
from collections.abc import Iterator

import pytest
from one_of_everything import BACK_S, call, everything, fill, kill_and_start_again, kill_part

from noodle_ray.entry.bench import host_storage
from noodle_ray.entry.bench.host_cluster import HostCluster, Plan, host_cluster
from noodle_ray.entry.bench.hosts import why_not

WHY_NOT = why_not() or host_storage.why_not("served")
pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(bool(WHY_NOT), reason=f"there can be no hosts with such storage here: {WHY_NOT}"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[HostCluster]:
    plan = Plan(hosts=3, gateways=2, announce=True)
    with host_cluster(plan, lambda what: None, host_storage.served) as started:
        yield started


@pytest.fixture(scope="module")
def full(cluster: HostCluster) -> dict[str, object]:
    """All that a cluster can hold, made once."""
    fill(cluster)
    return everything(cluster)


def test_hosts_found_the_head_by_its_announcement(cluster: HostCluster) -> None:
    assert len(cluster.watched()) == 3
    assert "10.77." in cluster.noodle(cluster.hosts[2], "discover", "--json")


@pytest.mark.parametrize("part", ["gcs", "manager", "registry", "directory", "controller", "proxy", "gateway"])
def test_a_part_of_the_head_that_is_killed_is_back_and_has_forgotten_nothing(
    cluster: HostCluster, full: dict[str, object], part: str
) -> None:
    kill_part(cluster, part)
    cluster.wait_for("the same to be known", lambda: everything(cluster) == full, BACK_S)
    cluster.wait_for("the module to answer", lambda: call(cluster) == ["a", "b"], BACK_S)


def test_a_head_that_is_killed_as_a_whole_goes_on_where_it_was(cluster: HostCluster, full: dict[str, object]) -> None:
    kill_and_start_again(cluster, full)
    on_its_disk = cluster.head.run("ls", "/root/.noodle-ray").split()
    assert not {"gcs", "noodle.sqlite"} & set(on_its_disk)


def test_a_host_that_rejoins_is_upgraded_meanwhile_and_what_it_held_is_elsewhere(
    cluster: HostCluster, full: dict[str, object]
) -> None:
    for one in cluster.allocations():
        cluster.release(one.id)
    host = cluster.hosts[2]
    before = cluster.node_of(host).id
    held = cluster.hold(1.5)
    if held.node_id != before:  # the head has room for it, too
        cluster.post(f"/api/distributed/nodes/{held.node_id}/cordon", {})
        cluster.release(held.id)
        there = cluster.hold(1.5)
        assert there.node_id == before
        cluster.post(f"/api/distributed/nodes/{held.node_id}/uncordon", {})
        held = there
    said = cluster.noodle(host, "rejoin", "--deadline", "5s", "--run", "touch /root/upgraded")
    assert "this host is a node of" in said
    host.run("test", "-f", "/root/upgraded")
    cluster.wait_for("it to be watched again", lambda: host.address in cluster.watched(), BACK_S)
    assert cluster.node_of(host).id != before
    now = cluster.allocation(held.id)
    assert now.state == "held"
    assert now.node_id == cluster.node_of(cluster.head).id


def test_down_on_the_head_ends_it_everywhere(cluster: HostCluster) -> None:
    cluster.noodle(cluster.head, "down")
    end = time.monotonic() + 15
    while (left := [pid for host in cluster.hosts for pid in cluster.pids(host, "raylet")]) and time.monotonic() < end:
        time.sleep(0.2)
    assert left == []
    for host in cluster.hosts:
        assert not cluster.pids(host, "supervisor")
