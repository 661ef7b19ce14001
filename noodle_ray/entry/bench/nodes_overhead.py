"""What watching costs: CPU and plain Ray's throughput, as the difference to Ray at its default settings."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import ray

from noodle_ray.entry import launch, ray_process
from noodle_ray.entry.bench.report import Row
from noodle_ray.entry.cluster_file import ClusterFile
from noodle_ray.entry.components import start_actors
from noodle_ray.entry.local_cluster import LocalCluster, bare_ray
from noodle_ray.entry.ray_connection import connection
from noodle_ray.entry.ray_process import NodeOptions
from noodle_ray.resources import NodeResources

WORKERS = 7
"""Beside the head: eight nodes in all."""

SETTLING_S, WATCHED_S, ROUNDS = 15.0, 30.0, 3
TASKS = 2_000
PROMISED_CORE_PERCENT, PROMISED_AGENT_PERCENT, PROMISED_LOSS_PERCENT = 5.0, 1.0, 2.0


@dataclass(frozen=True, slots=True)
class Load:
    """CPU in percent of one core on the head and of one agent, idle; and plain tasks a second."""

    head_percent: float
    agent_percent: float
    tasks_per_s: float


def measure(progress: Callable[[str], None]) -> list[Row]:
    """Ray as it comes, then Ray with our settings and actors, each with eight nodes on this machine."""
    with _default_settings(), _cluster(progress) as cluster:
        plain = _look(cluster, progress)
    with _cluster(progress) as cluster:
        start_actors(cluster.settings)
        ours = _look(cluster, progress)
    return _rows(plain, ours)


@contextmanager
def _cluster(progress: Callable[[str], None]) -> Iterator[LocalCluster]:
    workers = tuple(_worker(number) for number in range(WORKERS))
    options = launch.UpOptions(head=launch.head_options(2), workers=workers)
    with bare_ray(progress, options) as cluster, connection(cluster.file.address):
        yield cluster


def _worker(number: int) -> NodeOptions:
    resources = NodeResources.of(cpus=1, memory="1GiB")
    return NodeOptions(f"127.0.0.{number + 10}", f"w{number}", resources, True, 80 * 2**20)


@contextmanager
def _default_settings() -> Iterator[None]:
    """Ray as it comes: without what we set for speed and for finding dead nodes."""
    ours = dict(ray_process.RAY_SETTINGS)
    kept = {name: ours[name] for name in ("RAY_AUTH_MODE", "RAY_USAGE_STATS_ENABLED")}
    ray_process.RAY_SETTINGS.clear()
    ray_process.RAY_SETTINGS.update(kept)
    for name in ours.keys() - kept.keys():
        os.environ.pop(name, None)
    try:
        yield
    finally:
        ray_process.RAY_SETTINGS.update(ours)


def _look(cluster: LocalCluster, progress: Callable[[str], None]) -> Load:
    time.sleep(SETTLING_S)
    progress(f"watching for {WATCHED_S:g} s, then running {TASKS} tasks {ROUNDS} times")
    before, agents_before, start = _head_seconds(cluster.file), _agent_seconds(cluster.file), time.monotonic()
    time.sleep(WATCHED_S)
    passed = time.monotonic() - start
    head = (_head_seconds(cluster.file) - before) / passed * 100
    agents = [(now - agents_before.get(pid, 0.0)) / passed * 100 for pid, now in _agent_seconds(cluster.file).items()]
    return Load(head, max(agents, default=0.0), max(_tasks_per_s() for _ in range(ROUNDS)))


def _head_seconds(file: ClusterFile) -> float:
    return sum(_seconds(process) for process in ray_process.session_members(file.processes[0].pid))


def _agent_seconds(file: ClusterFile) -> Mapping[int, float]:
    members = [one for process in file.processes for one in ray_process.session_members(process.pid)]
    return {one.pid: _seconds(one) for one in members if "NodeAgent" in _title(one)}


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()[:1])
    except psutil.NoSuchProcess:
        return ""


def _seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def _tasks_per_s() -> float:
    @ray.remote(num_cpus=0.5)
    def nothing() -> None:
        return None

    ray.get([nothing.remote() for _ in range(50)])
    start = time.perf_counter()
    ray.get([nothing.remote() for _ in range(TASKS)])
    return TASKS / (time.perf_counter() - start)


def _rows(plain: Load, ours: Load) -> list[Row]:
    loss = (1 - ours.tasks_per_s / plain.tasks_per_s) * 100
    return [
        Row(
            metric="overhead_core_percent",
            value=ours.head_percent - plain.head_percent,
            unit="%",
            goal=PROMISED_CORE_PERCENT,
            context={
                "nodes": WORKERS + 1,
                "of one core, default Ray": round(plain.head_percent, 2),
                "with noodle-ray": round(ours.head_percent, 2),
            },
        ),
        Row(metric="agent_core_percent", value=ours.agent_percent, unit="%", goal=PROMISED_AGENT_PERCENT),
        Row(
            metric="overhead_throughput_percent",
            value=loss,
            unit="%",
            goal=PROMISED_LOSS_PERCENT,
            context={
                "tasks a second, default Ray": round(plain.tasks_per_s),
                "with noodle-ray": round(ours.tasks_per_s),
            },
        ),
    ]
