"""A head whose tables are in Redis and PostgreSQL: it dies, and they do, and nothing is forgotten."""

import time
from collections.abc import Iterator

import pytest
from one_of_everything import BACK_S, call, everything, fill, kill_part

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
    with host_cluster(Plan(hosts=2, gateways=2), lambda what: None, host_storage.served) as started:
        yield started


def test_what_dies_of_the_head_has_forgotten_nothing(cluster: HostCluster) -> None:
    fill(cluster)
    full = everything(cluster)
    for part in ("gcs", "manager"):
        kill_part(cluster, part)
        cluster.wait_for("the same to be known", lambda: everything(cluster) == full, BACK_S)
    cluster.kill_all(cluster.head)
    time.sleep(5)
    cluster.up()
    cluster.wait_for("all nodes to be watched", lambda: len(cluster.watched()) == 2, BACK_S)
    cluster.wait_for("the same to be known", lambda: everything(cluster) == full, BACK_S)
    cluster.wait_for("the module to answer", lambda: call(cluster) == ["a", "b"], BACK_S)
    on_its_disk = cluster.head.run("ls", "/root/.noodle-ray").split()
    assert not {"gcs", "noodle.sqlite"} & set(on_its_disk)
