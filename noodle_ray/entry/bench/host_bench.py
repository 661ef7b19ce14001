"""The benchmark of clusters over hosts: how fast they are up, what a head's outage costs, who is found silent."""

from __future__ import annotations

import time

from noodle_ray.entry.bench import host_outages, host_silence, host_storage
from noodle_ray.entry.bench.chaos.run import PLAN as SERVING
from noodle_ray.entry.bench.host_cluster import Plan, host_cluster
from noodle_ray.entry.bench.report import Row
from noodle_ray.entry.cli.output import say

SMALL = Plan(hosts=4, cpus=1)


def measure(trials: int, loss_seconds: float, storages: tuple[str, ...]) -> list[Row]:
    """All rows. Raises Unavailable where there can be no hosts."""
    rows = [row for storage in storages for row in _outages(storage)]
    return [*rows, *(_silence(trials, loss_seconds) if trials or loss_seconds else [])]


def _outages(storage: str) -> list[Row]:
    if reason := host_storage.why_not(storage):
        say(f"{storage} storage is left out: {reason}")
        context: dict[str, str | int | float] = {"storage": storage}
        return [Row(metric="head_outage_requests_lost", value=None, unit="", goal=0, context=context)]
    began = time.monotonic()
    with host_cluster(SERVING, say, host_storage.STORAGES[storage]) as cluster:
        return [_up(began, storage, SERVING), *host_outages.measure(cluster, storage, say)]


def _silence(trials: int, loss_seconds: float) -> list[Row]:
    began = time.monotonic()
    with host_cluster(SMALL, say) as cluster:
        up = _up(began, "embedded", SMALL)
        silences = host_silence.silences(cluster, trials, say) if trials else []
        losses = host_silence.losses(cluster, loss_seconds, say) if loss_seconds else []
        return [up, *silences, *losses]


def _up(began: float, storage: str, plan: Plan) -> Row:
    """From nothing on the hosts until each of them is watched."""
    seconds = time.monotonic() - began
    context: dict[str, str | int | float] = {
        "storage": storage,
        "hosts": plan.hosts,
        "fusion": str(plan.fusion).lower(),
    }
    return Row(metric="hosts_up_s", value=seconds, unit="s", context=context)
