"""What the core costs as the fleet grows: reports at the default interval, and what agents send each other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from noodle_ray.entry.bench.report import Row
from noodle_ray.nodes import events
from noodle_ray.nodes.detector import WATCHERS
from noodle_ray.nodes.manager import Manager
from noodle_ray.nodes.peers import Endpoint
from noodle_ray.nodes.probe_messages import LENGTH
from noodle_ray.resources import NodeResources
from noodle_ray.settings import Settings
from noodle_ray.simulation.agents import METRICS

SIZES = (10, 100, 1_000, 10_000)
SECONDS = 30
TICKS_PER_S = 2
BUSY_GOAL_PERCENT = 20.0
HEADERS = 28
"""Bytes of IP and UDP around each probe."""


def measure(progress: Callable[[str], None]) -> list[Row]:
    """Each size for half a minute of the manager's time, as fast as it goes: CPU as a share of one core."""
    settings = Settings()
    rows: list[Row] = []
    for size in SIZES:
        progress(f"{size:,} nodes")
        rows += _rows(size, settings, _busy_percent(size, settings))
    return rows


def _busy_percent(size: int, settings: Settings) -> float:
    manager = Manager(settings)
    for number in range(size):
        _join(manager, number)
    manager.handle(events.Tick(1.0))
    start = time.process_time()
    for tick in range(SECONDS * TICKS_PER_S):
        now = 1.0 + tick / TICKS_PER_S
        for number in _reporting(tick, size, settings):
            manager.handle(events.NodeReported(f"n{number}", METRICS, now, _endpoint(number)))
        manager.handle(events.Tick(now))
        manager.figures(now)
    return (time.process_time() - start) / SECONDS * 100


def _join(manager: Manager, number: int) -> None:
    resources = NodeResources.of(cpus=8, memory="16GiB", gpus=number % 3)
    manager.handle(events.NodeJoined(f"n{number}", f"n{number}", "10.0.0.1", resources, False, 0.0))
    manager.handle(events.AgentStarted(f"n{number}", _endpoint(number), 0.0))


def _endpoint(number: int) -> Endpoint:
    return Endpoint("10.0.0.1", number, 6000)


def _reporting(tick: int, size: int, settings: Settings) -> range:
    """The agents whose heartbeat falls into this tick, evenly spread."""
    ticks = max(settings.node_heartbeat_interval_ms * TICKS_PER_S // 1000, 1)
    return range(tick % ticks, size, ticks)


def _rows(size: int, settings: Settings, busy_percent: float) -> Iterator[Row]:
    watched = min(WATCHERS, size - 1)
    probes = 2 * watched * 1000 / settings.node_probe_interval_ms
    reports = size * 1000 / settings.node_heartbeat_interval_ms
    yield Row(
        metric="core_busy_percent",
        value=busy_percent,
        unit="% of a core",
        goal=BUSY_GOAL_PERCENT if size == SIZES[-1] else None,
        context={"nodes": size, "reports a second": round(reports, 1), "looks a second": TICKS_PER_S},
    )
    yield Row(
        metric="probe_bytes_per_s",
        value=probes * (LENGTH + HEADERS),
        unit="B/s an agent",
        context={"nodes": size, "messages a second": probes, "to and from": watched},
    )
