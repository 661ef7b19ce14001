"""Placement on a real cluster: what the ledger promises is what Ray does."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import ray
from conftest import processes_named

from noodle_ray import Cluster, Demand, Request
from noodle_ray.actors import ray_state
from noodle_ray.entry.cluster.local_cluster import LocalCluster
from noodle_ray.errors import Conflict, DoesNotFit, InvalidInput, NotFound, Unavailable
from noodle_ray.nodes.instructions import PinnedBundle

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


def groups(cluster: Cluster) -> set[str]:
    """Ray's groups of ours, but for those that hold the encoders and other modules."""
    modules = {allocation.group for allocation in cluster.allocations() if allocation.owner.startswith("module:")}
    return set(ray_state.groups()) - modules


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
    assert groups(cluster) == set()


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
            cluster.hold(Demand(gpus=4), wait_s=0)
    finally:
        ray.kill(hog)
    assert eventually(lambda: cluster.resources()["gpus"]["others"] == 0)
    cluster.release(cluster.hold(Demand(gpus=4)).id)


def test_a_cordoned_node_gets_nothing_new(cluster: Cluster) -> None:
    node = next(node for node in cluster.nodes() if node.name == "gpu-a")
    cluster.cordon(node.id)
    try:
        with pytest.raises(DoesNotFit, match="cordoned"):
            cluster.hold(Demand(gpu_share=0.5, accelerator_type="A100"), wait_s=0)
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
    assert groups(cluster) == set()


def test_a_killed_manager_comes_back_with_everything(cluster: Cluster) -> None:
    allocation = cluster.hold(HALF_GPU)
    kill_manager()

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


ALL_OF_A = Demand(gpus=2, accelerator_type="A100")
WAIT_S = 60.0
"""Longer than anything here takes: a test that fails is not to wait for ever."""


def waiting(cluster: Cluster) -> list[str]:
    return [allocation.id for allocation in cluster.allocations() if allocation.state == "waiting"]


def test_a_gang_has_all_its_bundles_on_their_nodes(cluster: Cluster) -> None:
    gang = Request(bundles=(Demand(cpus=1, gpus=1), Demand(cpus=1, gpus=1)), strategy="strict-spread")
    with cluster.allocate(gang) as allocation:
        for index, bundle in enumerate(allocation.allocation.bundles):
            node, gpus = ray.get(where_am_i.options(**allocation.options(index)).remote())
            assert (node, tuple(gpus)) == (bundle.node_id, bundle.gpu_indices)
        assert len(set(allocation.allocation.node_ids)) == 2
    assert cluster.resources()["gpus"]["held"] == 0
    assert groups(cluster) == set()


def test_who_waits_is_served_when_room_comes_back(cluster: Cluster) -> None:
    first = cluster.hold(ALL_OF_A)
    with ThreadPoolExecutor(2) as pool:
        low = pool.submit(cluster.hold, ALL_OF_A, wait_s=WAIT_S)
        assert eventually(lambda: len(waiting(cluster)) == 1)
        urgent = pool.submit(cluster.hold, ALL_OF_A, priority=5, wait_s=WAIT_S)
        assert eventually(lambda: len(waiting(cluster)) == 2)
        assert "gpus fails on " in cluster.allocation(waiting(cluster)[0]).waits_for
        cluster.release(first.id)
        second = urgent.result(20)
        assert not low.done()
        cluster.release(second.id, second.allocation.group)
        cluster.release(low.result(20).id)


def test_waiting_ends_with_its_deadline_or_when_it_is_called_off(cluster: Cluster) -> None:
    with cluster.allocate(ALL_OF_A):
        with pytest.raises(DoesNotFit, match="gpus fails on"):
            cluster.hold(ALL_OF_A, wait_s=0.2)
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(cluster.hold, ALL_OF_A, wait_s=WAIT_S)
            assert eventually(lambda: len(waiting(cluster)) == 1)
            cluster.release(waiting(cluster)[0])
            with pytest.raises(Conflict, match="released before it was held"):
                asked.result(20)


def test_a_claim_over_http_waits_and_is_found_again(cluster: Cluster, http: httpx.Client) -> None:
    path = "/api/distributed/resources/allocations"
    body = {"demand": {"gpus": 2, "accelerator_type": "A100"}, "wait_s": 60}
    with cluster.allocate(ALL_OF_A):
        made = http.post(path, json=body).raise_for_status()
        assert (made.status_code, made.json()["state"], made.json()["position"]) == (202, "waiting", 1)
        place = made.headers["Location"]
        assert http.get(f"{place}/explain").json()["filtered"]["gpus"] >= 1
        assert "noodle_queue_length 1.0" in http.get("/metrics").text
        assert http.get(place, params={"wait_s": 0.1}).json()["state"] == "waiting"
        soon = http.post(path, json={**body, "wait_s": 1}).raise_for_status().headers["Location"]
        refused = http.get(soon, params={"wait_s": 20})
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "does_not_fit")
    assert http.get(place, params={"wait_s": 20}).json()["state"] == "held"
    assert http.delete(place, params={"fence": f"{made.json()['id']}.0"}).status_code == 409
    assert http.delete(place, params={"fence": f"{made.json()['id']}.1"}).status_code == 204


def kill_manager() -> None:
    (manager,) = processes_named("ray::NodeManager")
    os.kill(manager.pid, signal.SIGKILL)


def test_who_waits_outlives_the_manager(cluster: Cluster) -> None:
    first = cluster.hold(ALL_OF_A)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(cluster.hold, ALL_OF_A, wait_s=WAIT_S)
        assert eventually(lambda: len(waiting(cluster)) == 1)
        (one,) = waiting(cluster)
        kill_manager()
        cluster.release(first.id, first.allocation.group)
        second = asked.result(60)
    assert second.id == one
    assert ray.get(where_am_i.options(**second.options()).remote())[0] == second.node_id
    cluster.release(second.id, second.allocation.group)
    assert held(cluster) == []


def test_holds_under_way_when_the_manager_dies_neither_fail_nor_leak(cluster: Cluster) -> None:
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(cluster.hold, Demand(cpus=0.1)) for _ in range(40)]
        kill_manager()
        held_now = {one.result(90).id for one in asked}
    assert len(held_now) == 40
    assert set(held(cluster)) == held_now
    assert {name.rpartition(".")[0] for name in groups(cluster)} == held_now
    for allocation_id in held_now:
        cluster.release(allocation_id)
    assert groups(cluster) == set()


def test_a_group_of_ours_that_nobody_knows_is_found_and_removed(cluster: Cluster) -> None:
    node = cluster.nodes()[0].id
    _, made = ray_state.create_group("noodle-nobodys.1", [PinnedBundle(node, {"CPU": 0.1})], 10)
    assert made
    assert eventually(lambda: ray_state.group_named("noodle-nobodys.1") is None, 40)
    assert cluster.resources()["ledger_differences"] >= 1


def test_a_group_that_somebody_removed_is_made_anew(cluster: Cluster) -> None:
    first = cluster.hold(HALF_GPU)
    group = ray_state.group_named(first.allocation.group)
    assert group is not None
    time.sleep(1)  # long enough for the nodes to have reported it
    ray_state.remove_group(group.id)
    assert eventually(lambda: cluster.allocation(first.id).epoch == 2, 40)
    assert eventually(lambda: cluster.allocation(first.id).state == "held")
    with pytest.raises(Conflict, match="not held any more"):
        cluster.release(first.id, first.allocation.group)
    cluster.release(first.id)


def test_the_ledger_follows_a_gpu_that_ray_picked_otherwise(cluster: Cluster) -> None:
    """Somebody's task sits on GPU 0 for a moment that the manager does not notice: Ray picks GPU 1."""
    hog = ray.remote(num_cpus=0, num_gpus=1, accelerator_type="A100")(type("Hog", (), {"ping": lambda self: None}))
    actor = hog.remote()
    ray.get(actor.ping.remote())
    first = cluster.hold(Demand(gpu_share=0.5, accelerator_type="A100"), wait_s=WAIT_S)
    ray.kill(actor)
    picked = ray.get(where_am_i.options(**first.options()).remote())[1]
    assert eventually(lambda: list(cluster.allocation(first.id).gpu_indices) == picked, 30)
    cluster.release(first.id)


def test_plain_asyncio_works_too(cluster: Cluster) -> None:
    async def use() -> str:
        async with cluster.aio.allocate(Demand(cpus=1)) as allocation:
            return (await cluster.aio.explain(allocation.id)).chosen

    import asyncio

    assert asyncio.run(use()) in {node.id for node in cluster.nodes()}
