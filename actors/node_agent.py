"""The NodeAgent: one actor on each Ray node, which measures its machine and reports to the node manager."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import psutil
import ray
import structlog

from noodle_ray.nodes.metrics import ResourceMetrics
from noodle_ray.settings import Settings

log = structlog.get_logger()


CPU_WINDOW_S = 0.5
"""How long CPU use is watched for one figure; a shorter look says 0 % or 100 %."""


def measure(disk_path: str = "/") -> ResourceMetrics:
    """Measures this machine: CPU use over half a second, memory, disk, and network counters since boot. Blocks."""
    memory, disk, network = psutil.virtual_memory(), psutil.disk_usage(disk_path), psutil.net_io_counters()
    return ResourceMetrics(
        cpu_count=psutil.cpu_count() or 1,
        cpu_used_ratio=min(psutil.cpu_percent(interval=CPU_WINDOW_S) / 100, 1.0),
        memory_total_bytes=memory.total,
        memory_used_bytes=memory.total - memory.available,
        disk_total_bytes=disk.total,
        disk_used_bytes=disk.used,
        network_sent_bytes=network.bytes_sent,
        network_received_bytes=network.bytes_recv,
        gpus=(),
        taken_at=time.time(),
    )


class NodeAgent:
    """Reports every heartbeat interval; measures anew when the monitoring interval has passed."""

    async def __init__(self, node_id: str, manager: Any, settings: Settings) -> None:  # type: ignore[misc]  # Ray awaits it
        self._node_id, self._manager, self._settings = node_id, manager, settings
        self._metrics = await asyncio.to_thread(measure)
        self._loop = asyncio.get_running_loop().create_task(self._report_for_ever())

    async def _report_for_ever(self) -> None:
        while True:
            await self._report_once()
            await asyncio.sleep(self._settings.node_heartbeat_interval_ms / 1000)

    async def _report_once(self) -> None:
        if time.time() - self._metrics.taken_at >= self._settings.resource_monitoring_interval_ms / 1000:
            self._metrics = await asyncio.to_thread(measure)
        try:
            await self._manager.report.remote(self._node_id, self._metrics)
        except ray.exceptions.RayActorError as error:
            # The manager restarts by itself; the next report reaches it, and until then there is nobody to tell.
            log.warning("report_not_delivered", node=self._node_id, error=str(error))

    async def metrics(self) -> ResourceMetrics:
        """Measures now, without waiting for the next report."""
        self._metrics = await asyncio.to_thread(measure)
        return self._metrics

    async def ping(self) -> str:
        return self._node_id
