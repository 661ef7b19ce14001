"""A minute of random allocating and freeing from several threads, with the manager killed in the middle."""

import os
import random
import signal
import threading
import time

import pytest
from conftest import processes_named

from noodle_ray import Cluster, Demand
from noodle_ray.actors import ray_state
from noodle_ray.errors import DoesNotFit, Unavailable

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SECONDS = 60
THREADS = 4
DEMANDS = (
    Demand(cpus=0.5),
    Demand(cpus=1, memory="1GiB"),
    Demand(gpu_share=0.3),
    Demand(gpu_share=0.7, cpus=0.5),
    Demand(gpus=1),
)


def allocate_and_free(cluster: Cluster, seed: int, end: float, done: list[int]) -> None:
    choice = random.Random(seed)
    while time.monotonic() < end:
        try:
            held = cluster.hold(choice.choice(DEMANDS))
            time.sleep(choice.random() / 10)
            cluster.release(held.id)
            done.append(1)
        except (DoesNotFit, Unavailable):
            time.sleep(0.1)  # full, or the manager is restarting: what was asked then is freed below


def test_nothing_is_left_held(cluster: Cluster) -> None:
    end, done = time.monotonic() + SECONDS, list[int]()
    threads = [threading.Thread(target=allocate_and_free, args=(cluster, seed, end, done)) for seed in range(THREADS)]
    for thread in threads:
        thread.start()
    time.sleep(SECONDS / 2)
    (manager,) = processes_named("ray::NodeManager")
    os.kill(manager.pid, signal.SIGKILL)
    for thread in threads:
        thread.join()
    assert len(done) > SECONDS
    for allocation in cluster.allocations():  # those whose answer died with the manager
        cluster.release(allocation.id)
    assert ray_state.groups() == {}
    totals = cluster.resources()
    assert (totals["cpus"]["held"], totals["gpus"]["held"]) == (0, 0)
