"""The project's promises beside what is measured just now, on a cluster started for it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil

from noodle_ray.entry.bench.report import Row
from noodle_ray.entry.bench.timing import milliseconds, percentile
from noodle_ray.entry.cli.output import say
from noodle_ray.entry.client import Cluster, connect
from noodle_ray.entry.cluster import launch, process_session
from noodle_ray.entry.cluster.cluster_file import StartedProcess, read_token
from noodle_ray.entry.cluster.components import start_actors
from noodle_ray.entry.cluster.local_cluster import LocalCluster, bare_ray, local_cluster
from noodle_ray.entry.cluster.ray_connection import connection
from noodle_ray.entry.demonstration import demonstration_request, recorded_sentence
from noodle_ray.errors import DeadlineExceeded
from noodle_ray.resources import Demand

CALLS = 300
LOADS = 10
REQUESTS = 30
SETTLING_S = 5.0

LATER = (
    Row(metric="allocation_efficiency_percent", value=None, unit="%", goal=90, better="higher"),
    Row(metric="uptime_percent", value=None, unit="%", goal=99.9, better="higher"),
    Row(metric="selective_accuracy_percent", value=None, unit="%", goal=95, better="higher"),
)
"""Promises that take a benchmark of their own; until there is one they have no figure."""


def measure(seconds: float) -> list[Row]:
    """Every row of the table. `seconds`: how long CPU use is watched, with and without us."""
    rows = []
    with local_cluster(launch.UpOptions(), say) as cluster:
        say("measuring calls, fusion, allocations and loads")
        with connect() as client:
            time.sleep(2 * SETTLING_S)  # a cluster that was just started still is busy with itself
            rows += list(_calls(client))
            rows += list(_http_calls(cluster))
            rows += list(_fusion(client))
            rows += list(_allocations(client))
            rows += list(_loads(client))  # last, for each load has a process started in the background
    rows += _monitoring(seconds)
    return [*rows, *LATER]


def _calls(client: Cluster) -> Iterator[Row]:
    taken = milliseconds(client.nodes, CALLS)
    for percent in (50, 99):
        context: dict[str, str | int | float] = {"from": "driver", "to": "node manager", "calls": CALLS}
        yield Row(
            metric=f"service_call_ms_p{percent}", value=percentile(taken, percent), unit="ms", goal=100, context=context
        )


def _http_calls(cluster: LocalCluster) -> Iterator[Row]:
    header = {"Authorization": f"Bearer {read_token(cluster.settings.state_dir)}"}
    with httpx.Client(base_url=cluster.file.gateway_url, headers=header, timeout=30) as http:
        taken = milliseconds(lambda: http.get("/api/distributed/nodes").raise_for_status(), CALLS)
    for percent in (50, 99):
        context: dict[str, str | int | float] = {"from": "HTTP client", "to": "node manager", "calls": CALLS}
        yield Row(
            metric=f"service_call_ms_p{percent}", value=percentile(taken, percent), unit="ms", goal=100, context=context
        )


def _allocations(client: Cluster) -> Iterator[Row]:
    demand = Demand(cpus=0.5, memory="64MiB")

    def allocate_and_release() -> None:
        client.release(client.hold(demand).id)

    taken = milliseconds(allocate_and_release, 50)
    for percent in (50, 99):
        yield Row(metric=f"allocate_and_release_ms_p{percent}", value=percentile(taken, percent), unit="ms")


def _loads(client: Cluster) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as directory:
        client.modules.publish(_write_module(Path(directory)))
    taken = []
    for _ in range(LOADS):
        start = time.perf_counter()
        client.modules.load("bench-module")
        taken.append((time.perf_counter() - start) * 1000)
        client.modules.unload("bench-module")
        time.sleep(2)  # lets the warm host that was taken be replaced, as between two loads of a real day
    for percent in (50, 90):
        yield Row(
            metric=f"module_load_ms_p{percent}",
            value=percentile(taken, percent),
            unit="ms",
            goal=100,
            context={"host": "warm"},
        )


def _write_module(directory: Path) -> Path:
    """A module of one class, as small as they come: what is timed is the registry, not the module's imports."""
    (directory / "pyproject.toml").write_text(
        '[tool.noodle.module]\nname = "bench-module"\nversion = "1.0.0"\nentry_point = "bench_module:Echo"\n'
    )
    (directory / "bench_module.py").write_text("class Echo:\n    def echo(self, value):\n        return value\n")
    return directory


def _fusion(client: Cluster) -> Iterator[Row]:
    request = demonstration_request(recorded_sentence())
    used: list[int] = []

    def ask() -> None:
        try:
            used.append(len(client.fusion.process_multimodal_input(request).modalities_used))
        except DeadlineExceeded:  # on a machine that is too slow for it: the time it took counts all the same
            used.append(0)

    taken = milliseconds(ask, REQUESTS)
    for percent in (50, 95):
        yield Row(
            metric=f"fusion_ms_p{percent}",
            value=percentile(taken, percent),
            unit="ms",
            goal=200,
            context={
                "modalities used": f"{min(used)}-{max(used)}",
                "candidates": len(request.candidates),
                "requests": REQUESTS,
            },
        )


def _monitoring(seconds: float) -> list[Row]:
    """CPU that the control actors and agents take, as the difference between two watches of one idle Ray."""
    say(f"watching bare Ray, then Ray with noodle-ray's actors, {seconds:g} s each")
    with bare_ray(say) as ray_alone:
        head = ray_alone.file.processes[0]
        time.sleep(SETTLING_S)
        bare = _cpu_percent(head, seconds)
        with connection(ray_alone.file.address):
            start_actors(ray_alone.settings)
            time.sleep(SETTLING_S)
            ours = _cpu_percent(head, seconds)
    context: dict[str, str | int | float] = {"idle_ray_percent": round(bare, 2), "with_noodle_percent": round(ours, 2)}
    return [Row(metric="monitoring_overhead_percent", value=max(ours - bare, 0.0), unit="%", goal=5, context=context)]


def _cpu_percent(head: StartedProcess, seconds: float) -> float:
    """Share of this machine's CPU that the node's processes took over the time."""
    before, start = _cpu_seconds(head), time.monotonic()
    time.sleep(seconds)
    return (_cpu_seconds(head) - before) / (time.monotonic() - start) / (psutil.cpu_count() or 1) * 100


def _cpu_seconds(head: StartedProcess) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in process_session.members(head.pid))
