"""Three minutes of random requests on seven real raylets, with managers and a node killed: nothing is lost or leaks."""

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import psutil
import pytest
from conftest import processes_named

from noodle_ray import Cluster, Demand, connect
from noodle_ray.actors import ray_state
from noodle_ray.entry.cluster import local_nodes, process_session
from noodle_ray.entry.cluster.components import start_actors
from noodle_ray.entry.cluster.launch import UpOptions, head_options
from noodle_ray.entry.cluster.local_cluster import LocalCluster, bare_ray
from noodle_ray.entry.cluster.ray_connection import connection
from noodle_ray.entry.cluster.ray_process import NodeOptions
from noodle_ray.errors import Conflict, DoesNotFit, NotFound, Unavailable
from noodle_ray.placement.request import Request
from noodle_ray.resources import NodeResources

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SECONDS = int(os.environ.get("SOAK_SECONDS", "180"))
THREADS = 6


def worker(number: int, cpus: int, memory: str, gpus: int) -> NodeOptions:
    kind = ("A100", "L4")[number % 2] if gpus else None
    resources = NodeResources.of(cpus=cpus, memory=memory, gpus=gpus, accelerator_type=kind)
    return NodeOptions(f"127.0.0.{number + 10}", f"w{number}", resources, True, 80 * 2**20)


WORKERS = (
    worker(1, 2, "2GiB", 0),
    worker(2, 4, "4GiB", 1),
    worker(3, 4, "8GiB", 2),
    worker(4, 6, "8GiB", 4),
    worker(5, 8, "16GiB", 8),
    worker(6, 3, "6GiB", 2),
)

WANTED: tuple[Demand | Request, ...] = (
    Demand(cpus=0.5),
    Demand(cpus=1, memory="1GiB"),
    Demand(gpu_share=0.3),
    Demand(gpu_share=0.7, cpus=0.5),
    Demand(gpus=1, cpus=1),
    Demand(gpus=2, accelerator_type="A100"),
    Demand(gpus=4, cpus=2),
    Request(bundles=(Demand(gpu_share=0.5),) * 3, strategy="strict-spread"),
    Request(bundles=(Demand(cpus=1, gpus=1),) * 2, strategy="strict-pack"),
    Request(bundles=(Demand(cpus=0.5),) * 4, strategy="spread"),
    Request(bundles=(Demand(cpus=1),), anti_affinity="alone"),
)


@pytest.fixture(scope="module")
def seven() -> Iterator[LocalCluster]:
    """Seven raylets and our control actors: no Serve."""
    options = UpOptions(head=head_options(2), workers=WORKERS)
    with bare_ray(lambda what: None, options) as cluster, connection(cluster.file.address):
        start_actors(cluster.settings)
        yield cluster


@dataclass
class Diary:
    """What happened, by outcome."""

    outcomes: Counter[str] = field(default_factory=Counter)
    unexpected: list[BaseException] = field(default_factory=list)


def live(cluster: Cluster, seed: int, end: float, diary: Diary) -> None:
    """One user: asks, holds for a while, releases; some of it is lost with the node that is killed."""
    chance = random.Random(seed)
    while time.monotonic() < end:
        try:
            held = cluster.hold(chance.choice(WANTED), priority=chance.randrange(3), wait_s=chance.choice([0, 1, 3]))
            time.sleep(chance.random() / 5)
            cluster.release(held.id, held.allocation.group)
            diary.outcomes["held and released"] += 1
        except DoesNotFit:
            diary.outcomes["did not fit in time"] += 1
        except (Unavailable, NotFound, Conflict) as error:
            diary.outcomes[type(error).__name__] += 1
            time.sleep(0.1)
        except BaseException as error:  # a thread's failure is this test's
            diary.unexpected.append(error)
            return


def kill_manager() -> None:
    for manager in processes_named("ray::NodeManager"):
        os.kill(manager.pid, signal.SIGKILL)


def kill_node(cluster: LocalCluster, address: str) -> None:
    """As when its machine loses power: every process of it at once."""
    (node,) = [process for process in cluster.file.processes if process.node_address == address]
    for member in process_session.members(node.pid):
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue


def eventually_settled(cluster: Cluster, seconds: float) -> None:
    """Frees what is still held, until nothing is."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        left = cluster.allocations()
        if not left:
            return
        for allocation in left:
            try:
                cluster.release(allocation.id)
            except NotFound:
                continue
    pytest.fail(f"still there: {[(a.id, a.state) for a in cluster.allocations()]}")


def unfree(cluster: Cluster, names: tuple[str, ...] = ("CPU", "GPU", "memory")) -> dict[str, dict[str, float]]:
    """What Ray still holds of each live node, in Ray's own units; empty where it holds nothing."""
    there = ray_state.available()
    held = {}
    for node in cluster.nodes():
        total = {
            "CPU": node.resources.cpu_units / 10_000,
            "GPU": node.resources.gpus,
            "memory": node.resources.memory_bytes,
        }
        missing = {name: total[name] - there[node.id].get(name, 0) for name in names}
        if any(abs(amount) > 1e-6 for amount in missing.values()):
            held[node.name] = missing
    return held


def test_nothing_is_lost_and_nothing_leaks(seven: LocalCluster) -> None:
    with connect(seven.file.address) as cluster:
        end, diary = time.monotonic() + SECONDS, Diary()
        users = [threading.Thread(target=live, args=(cluster, seed, end, diary)) for seed in range(THREADS)]
        for user in users:
            user.start()
        time.sleep(SECONDS / 4)
        kill_manager()
        time.sleep(SECONDS / 4)
        kill_node(seven, WORKERS[3].address)
        time.sleep(SECONDS / 4)
        kill_manager()
        for user in users:
            user.join()
        print(dict(diary.outcomes))  # shown where the test fails
        assert diary.unexpected == []
        assert diary.outcomes["held and released"] > 5 * SECONDS
        eventually_settled(cluster, 30)

        assert len(cluster.nodes()) == len(WORKERS)  # the head and all workers but one
        assert ray_state.groups() == {}
        deadline = time.monotonic() + 20
        while unfree(cluster) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert unfree(cluster) == {}
        totals = cluster.resources()
        for resource in ("cpus", "gpus", "memory_bytes"):
            amounts = totals[resource]
            assert (amounts["held"], amounts["others"]) == (0, 0), resource
            assert amounts["free"] == amounts["total"]


def test_the_fleet_still_works_and_grows(seven: LocalCluster) -> None:
    with connect(seven.file.address) as cluster:
        local_nodes.add_node(
            seven.settings, "late", NodeResources.of(cpus=4, memory="4GiB", gpus=4), True, lambda what: None
        )
        held = cluster.hold(Demand(gpus=8), wait_s=30)
        also = cluster.hold(Demand(gpus=4, cpus=4), wait_s=30)
        cluster.release(held.id)
        cluster.release(also.id)
        assert cluster.allocations() == []
