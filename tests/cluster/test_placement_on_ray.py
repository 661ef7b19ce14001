"""Placement on a real cluster: what the ledger promises is what Ray does."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
import ray
from conftest import processes_named

from noodle_ray import Cluster, Demand
from noodle_ray.actors import ray_state
from noodle_ray.entry.local_cluster import LocalCluster
from noodle_ray.errors import DoesNotFit, InvalidInput, NotFound, Unavailable

pytestmark = pytest.mark.ray

HALF_GPU = Demand(cpus=1, gpu_share=0.5, memory="1GiB")


@ray.remote
def where_am_i() -> tuple[str, list[int]]:
    return ray.get_runtime_context().get_node_id(), ray.get_gpu_ids()


def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return condition()


@pytest.fixture(autouse=True)
def leaves_nothing_held(cluster: Cluster) -> Iterator[None]:
    yield
    for allocation_id in held(cluster):
        cluster.release(allocation_id)


def held(cluster: Cluster) -> list[str]:
    return [allocation.id for allocation in cluster.allocations() if not allocation.owner.startswith("module:")]


def test_every_node_is_there_with_measurements(cluster: Cluster) -> None:
    nodes = {node.name: node for node in cluster.nodes()}
    assert set(nodes) == {"head", "gpu-a", "gpu-b"}
    assert nodes["gpu-a"].pretended
    assert not nodes["head"].pretended
    assert eventually(lambda: all(node.metrics is not None for node in cluster.nodes()))
    metrics = cluster.nodes()[0].metrics
    assert metrics is not None
    assert 0 < metrics.memory_used_ratio < 1


def test_a_task_runs_on_the_planned_node_and_gpu(cluster: Cluster) -> None:
    with cluster.allocate(HALF_GPU) as first, cluster.allocate(HALF_GPU) as second:
        assert first.node_id == second.node_id
        for allocation in (first, second):
            node, gpus = ray.get(where_am_i.options(**allocation.options()).remote())
            assert node == allocation.node_id
            assert tuple(gpus) == allocation.allocation.gpu_indices == (0,)
        assert cluster.explain(first.id).chosen == first.node_id
        assert cluster.resources()["gpus"]["held"] >= 1
    assert held(cluster) == []
    assert ray_state.groups() == {}


def test_gpu_indices_are_those_that_ray_picks(cluster: Cluster) -> None:
    shares = [0.5, 0.25, 0.5, 0.75]
    names = {node.name: node.id for node in cluster.nodes()}
    allocations = [cluster.hold(Demand(gpu_share=share, accelerator_type="L4")) for share in shares]
    try:
        assert {allocation.node_id for allocation in allocations} == {names["gpu-b"]}
        refs = [where_am_i.options(**allocation.options()).remote() for allocation in allocations]
        picked = [tuple(gpus) for _, gpus in ray.get(refs)]
        assert picked == [allocation.allocation.gpu_indices for allocation in allocations]
    finally:
        for allocation in allocations:
            cluster.release(allocation.id)


def test_a_demand_that_cannot_fit_says_why(cluster: Cluster) -> None:
    with pytest.raises(DoesNotFit, match="gpus fails on 3 of 3") as caught:
        cluster.hold(Demand(cpus=1, gpus=8))
    assert caught.value.refusal.never
    with pytest.raises(NotFound, match="known: best-fit"):
        cluster.hold(Demand(cpus=1), policy="wurst")
    with pytest.raises(InvalidInput, match="cpus"):
        cluster.hold(Demand(cpus=-1))
    with pytest.raises(NotFound, match="no allocation"):
        cluster.release("nobody")
    assert held(cluster) == []


def test_what_others_use_is_not_given_out(cluster: Cluster) -> None:
    @ray.remote(num_cpus=0, num_gpus=2, accelerator_type="L4")
    class Hog:
        def ping(self) -> None: ...

    hog = Hog.remote()
    try:
        ray.get(hog.ping.remote())
        assert eventually(lambda: cluster.resources()["gpus"]["others"] == 2)
        with pytest.raises(DoesNotFit):
            cluster.hold(Demand(gpus=4))
    finally:
        ray.kill(hog)
    assert eventually(lambda: cluster.resources()["gpus"]["others"] == 0)
    cluster.release(cluster.hold(Demand(gpus=4)).id)


def test_a_cordoned_node_gets_nothing_new(cluster: Cluster) -> None:
    node = next(node for node in cluster.nodes() if node.name == "gpu-a")
    cluster.cordon(node.id)
    try:
        with pytest.raises(DoesNotFit, match="cordoned"):
            cluster.hold(Demand(gpu_share=0.5, accelerator_type="A100"))
    finally:
        cluster.cordon(node.id, False)
    cluster.release(cluster.hold(Demand(gpu_share=0.5, accelerator_type="A100")).id)


def test_what_a_killed_driver_held_is_freed(cluster: Cluster, running: LocalCluster) -> None:
    program = """
import os, signal, time
import noodle_ray
cluster = noodle_ray.connect()
cluster.hold(noodle_ray.Demand(cpus=2, gpus=1))
print("held", flush=True)
time.sleep(60)
"""
    driver = subprocess.Popen([sys.executable, "-c", program], env=running.environment(), stdout=subprocess.PIPE)
    assert driver.stdout is not None
    try:
        with driver.stdout as out:
            assert out.readline() == b"held\n"
        assert len(held(cluster)) == 1
    finally:
        driver.kill()
        driver.wait(10)
    assert eventually(lambda: held(cluster) == [], 30)
    assert ray_state.groups() == {}


def test_a_killed_manager_comes_back_with_everything(cluster: Cluster) -> None:
    allocation = cluster.hold(HALF_GPU)
    (manager,) = processes_named("ray::NodeManager")
    os.kill(manager.pid, signal.SIGKILL)

    def answers() -> bool:
        try:
            return held(cluster) == [allocation.id]
        except Unavailable:
            return False

    assert eventually(answers, 30)
    node, _ = ray.get(where_am_i.options(**allocation.options()).remote())
    assert node == allocation.node_id
    assert eventually(lambda: cluster.resources()["gpus"]["held"] == 0.5)
    cluster.release(allocation.id)
    assert cluster.resources()["gpus"]["free"] == 6


def test_plain_asyncio_works_too(cluster: Cluster) -> None:
    async def use() -> str:
        async with cluster.aio.allocate(Demand(cpus=1)) as allocation:
            return (await cluster.aio.explain(allocation.id)).chosen

    import asyncio

    assert asyncio.run(use()) in {node.id for node in cluster.nodes()}
