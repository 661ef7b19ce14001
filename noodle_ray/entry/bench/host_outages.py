"""What is lost over HTTP while a head is away: its GCS for half a minute, and all of it until it is started again."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from noodle_ray.entry.bench.chaos.outcome import answered_percent, longest_gap_s
from noodle_ray.entry.bench.chaos.prober import Probing, probes_of, probing
from noodle_ray.entry.bench.chaos.records import Probe
from noodle_ray.entry.bench.chaos.wholeness import until_apart, until_whole
from noodle_ray.entry.bench.host_cluster import HostCluster
from noodle_ray.entry.bench.module_versions import ECHO, echo_module
from noodle_ray.entry.bench.report import Row

OUTAGE_S = 30.0
BEFORE_S, AFTER_S = 5.0, 25.0
RATE, DEADLINE_S, FIRST_S, MOST = 20.0, 60.0, 5.0, 5000
"""Requests a second; how long each may take in all, and until the other gateway is asked; how many are under way."""

RETRIES = 5
"""An outage is longer than one retry is good for, and each request has a minute. A second later each."""

READY_S = 180.0
SHOWN = 8
"""Kinds of losses that are told."""


def measure(cluster: HostCluster, storage: str, say: Callable[[str], None]) -> list[Row]:
    """Rows of both outages, on a cluster with gateways on its first two hosts."""
    cluster.post_bytes("/api/modules", echo_module(ECHO, idempotent=True))
    cluster.post(f"/api/modules/{ECHO}/load", {})
    rows: list[Row] = []
    for what, outage in {"gcs": _without_gcs, "whole head": _without_head}.items():
        asyncio.run(until_whole(cluster, READY_S))
        until_apart(cluster, READY_S)
        say(f"{storage} storage: an outage of the {what}")
        rows += _rows(cluster, storage, what, outage, say)
    return rows


def _rows(
    cluster: HostCluster, storage: str, what: str, outage: Callable[[HostCluster], None], say: Callable[[str], None]
) -> Iterator[Row]:
    addresses = tuple(cluster.url(host) for host in cluster.gateway_hosts)
    seconds = BEFORE_S + OUTAGE_S + AFTER_S
    asked = Probing(
        addresses=addresses,
        token=cluster.token,
        seconds=seconds,
        rate=RATE,
        module=ECHO,
        deadline_s=DEADLINE_S,
        first_s=FIRST_S,
        retries=RETRIES,
        most=MOST,
    )
    with probing(asked) as prober:
        time.sleep(BEFORE_S)
        began = time.monotonic()
        outage(cluster)
        away_s = time.monotonic() - began
        probes = probes_of(prober)
    context: dict[str, str | int | float] = {"storage": storage, "outage": what, "away_s": round(away_s, 1)}
    lost = [probe for probe in probes if not probe.answered]
    for problem, times in Counter(f"{probe.route}: {probe.problem}" for probe in lost).most_common(SHOWN):
        say(f"lost {times} times: {problem}")
    yield Row(
        metric="head_outage_requests_lost",
        value=len(lost),
        unit="",
        goal=0,
        context={**context, "asked": len(probes), **_counted(lost)},
    )
    yield Row(metric="head_outage_answered_percent", value=answered_percent(probes), unit="%", context=context)
    for route in sorted({probe.route for probe in probes}):
        gap = longest_gap_s([probe for probe in probes if probe.route == route], seconds)
        yield Row(metric="head_outage_longest_gap_s", value=gap, unit="s", context={**context, "route": route})


def _counted(lost: list[Probe]) -> dict[str, int]:
    return {f"lost_{route}": sum(probe.route == route for probe in lost) for route in {probe.route for probe in lost}}


def _without_gcs(cluster: HostCluster) -> None:
    """Whoever would start it again stands still meanwhile."""
    with _held_up(cluster, "supervisor"):
        cluster.strike(cluster.head, "gcs", signal.SIGKILL)
        time.sleep(OUTAGE_S)


@contextmanager
def _held_up(cluster: HostCluster, kind: str) -> Iterator[None]:
    cluster.strike(cluster.head, kind, signal.SIGSTOP)
    try:
        yield
    finally:
        cluster.strike(cluster.head, kind, signal.SIGCONT)


def _without_head(cluster: HostCluster) -> None:
    """Every process of the host ends at once; then `noodle up` is called there again."""
    cluster.kill_all(cluster.head)
    cluster.up()
