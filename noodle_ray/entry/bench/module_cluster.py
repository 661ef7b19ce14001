"""A cluster for the benchmarks of modules: one node with a pretended GPU, our actors, and nothing cached beforehand."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from noodle_ray.entry.bench.report import Row
from noodle_ray.entry.bench.timing import percentile
from noodle_ray.entry.cli.output import say
from noodle_ray.entry.client import Cluster, connect
from noodle_ray.entry.cluster import ray_process
from noodle_ray.entry.cluster.launch import HEAD_ADDRESS, UpOptions
from noodle_ray.entry.cluster.local_cluster import bare_ray
from noodle_ray.entry.cluster.ray_connection import connection
from noodle_ray.entry.cluster.ray_process import NodeOptions
from noodle_ray.resources import NodeResources

SETTLING_S = 8.0
CPUS = 8
"""Declared, not there: what is started beside each other must not wait for room."""

HANDLES_ONLY = {"RAY_SERVE_ENABLE_HA_PROXY": "0", "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0"}
"""Serve, the rival, is called by handles: with HTTP of this kind each replica that ends would stay 30 s longer."""

Context = dict[str, str | int | float]


@contextmanager
def module_cluster() -> Iterator[tuple[Cluster, Path]]:
    """A connected client, and an empty folder for as long."""
    resources = NodeResources.of(cpus=CPUS, memory="4GiB", gpus=1)
    options = UpOptions(head=NodeOptions(HEAD_ADDRESS, "head", resources, pretended=True))
    with (
        tempfile.TemporaryDirectory(prefix="noodle-bench-") as scratch,
        _cache_in(Path(scratch) / "cache"),
        _serve_for_handles(),
        bare_ray(say, options) as cluster,
        connection(cluster.file.address),
    ):
        # Serve reads its variables when it is imported: not before they are set.
        from noodle_ray.entry.cluster.components import start_actors

        start_actors(cluster.settings)
        with connect(cluster.file.address) as client:
            time.sleep(SETTLING_S)  # a cluster that was just started still is busy with itself
            yield client, Path(scratch)


@contextmanager
def _cache_in(folder: Path) -> Iterator[None]:
    """Modules are unpacked there: new ones are new indeed, and nothing of them stays."""
    before = os.environ.get("NOODLE_CACHE_DIR")
    os.environ["NOODLE_CACHE_DIR"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["NOODLE_CACHE_DIR"]
        else:
            os.environ["NOODLE_CACHE_DIR"] = before


@contextmanager
def _serve_for_handles() -> Iterator[None]:
    before = dict(ray_process.RAY_SETTINGS)
    ray_process.RAY_SETTINGS.update(HANDLES_ONLY)
    try:
        yield
    finally:
        ray_process.RAY_SETTINGS.clear()
        ray_process.RAY_SETTINGS.update(before)


def time_rows(metric: str, taken: list[float], context: Context, goals: dict[int, float | None]) -> Iterator[Row]:
    """A row in ms for each percentile that `goals` names, with its goal; without a value where nothing was timed."""
    for percent, goal in goals.items():
        value = percentile(taken, percent) if taken else None
        yield Row(metric=f"{metric}_ms_p{percent}", value=value, unit="ms", goal=goal, context=context)


def ratio_row(metric: str, ours: float | None, rivals: float | None, context: Context) -> Row:
    """How many times our figure goes into the rival's, both of the kind that is better when lower."""
    value = rivals / ours if ours and rivals is not None else None
    return Row(metric=f"{metric}_times_better", value=value, unit="x", better="higher", context=context)


def median(taken: list[float]) -> float | None:
    return percentile(taken, 50) if taken else None
