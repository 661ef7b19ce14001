"""The NodeAgent: one actor on each Ray node, which measures its machine and reports to the node manager."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import ray
import structlog

from noodle_ray.actors import probes, ray_state
from noodle_ray.actors.gpu_metrics import measure_gpus
from noodle_ray.logs import configure_logs
from noodle_ray.nodes.metrics import ResourceMetrics
from noodle_ray.nodes.peers import Observation, Peer
from noodle_ray.nodes.picked_gpus import PickedGpus, read_picked_gpus
from noodle_ray.precedence import go_ahead
from noodle_ray.settings import Settings

log = structlog.get_logger()


CPU_WINDOW_S = 0.5
"""How long CPU use is watched for one figure; a shorter look says 0 % or 100 %."""

GPU_LOOK_S = 1.0
"""How often the agent looks for GPUs that Ray has given out: as often as Ray writes it down in clusters of ours."""


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
        gpus=measure_gpus(),
        taken_at=time.time(),
    )


class GpuWatch:
    """What the raylet of this node writes down of the GPUs it gave out; read again only when it was written anew."""

    def __init__(self, node_id: str, path: Path) -> None:
        self._node_id, self._path = node_id, path
        self._read_at = 0.0
        self._told: frozenset[PickedGpus] = frozenset()
        self._seen: frozenset[PickedGpus] = frozenset()

    def look(self) -> frozenset[PickedGpus]:
        """What was not told yet."""
        if self._path.exists() and (written_at := self._path.stat().st_mtime) != self._read_at:
            seen = read_picked_gpus(self._path.read_text(errors="replace"), self._node_id)
            if seen is not None:
                self._read_at, self._seen = written_at, seen
        return self._seen - self._told

    def told(self) -> None:
        self._told = self._seen

    def forget(self) -> None:
        """Everything is worth telling again: a manager that was restarted may not have kept it."""
        self._told = frozenset()


class NodeAgent:
    """Reports every heartbeat interval, watches the nodes that the manager names, and answers those that watch it.

    It measures anew when the monitoring interval has passed.
    """

    async def __init__(  # type: ignore[misc]  # Ray awaits it
        self, node_id: str, manager: Any, settings: Settings, has_gpus: bool
    ) -> None:
        configure_logs(settings.log_level)
        self._node_id, self._manager, self._settings = node_id, manager, settings
        self._keys: list[bytes] = []
        self._address, self._raylet = ray_state.own_address(), probes.Raylet()
        self._answering, self._port = await probes.Answering.start(
            node_id, probes.host_of(self._address), lambda: self._keys, self._raylet.pulse
        )
        self._watching = probes.Watching(
            settings.node_probe_interval_ms / 1000, settings.node_suspect_after_ms / 1000, self._tell
        )
        self._gpus = GpuWatch(node_id, ray_state.log_directory() / "debug_state.txt")
        self._metrics = await asyncio.to_thread(measure)
        work = [self._report_for_ever(), self._watching.run(), *([self._watch_gpus_for_ever()] if has_gpus else [])]
        self._tasks = {asyncio.get_running_loop().create_task(loop) for loop in work}
        go_ahead()

    # -- watching other nodes

    async def endpoint(self) -> tuple[str, int]:
        """Where it answers probes."""
        return self._address, self._port

    async def watch(self, peers: Sequence[Peer], key: bytes) -> None:
        """Watches these from now on; probes are signed with the key. The one before is good for answers still."""
        if key not in self._keys:
            self._keys = [*self._keys[-1:], key]
        await self._watching.watch(peers, key)

    async def probe(self, peer: Peer, key: bytes) -> bool:
        """Whether a suspected node answers now."""
        return await probes.probe(peer, key, self._settings.node_confirm_ms / 1000)

    async def leave(self) -> None:
        """Has this node's raylet end in good order, as `ray stop` does; this agent ends with it."""
        self._raylet.end()

    def _tell(self, seen: tuple[Observation, ...]) -> None:
        task = asyncio.get_running_loop().create_task(self._deliver_news(seen))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver_news(self, seen: tuple[Observation, ...]) -> None:
        await self._deliver(self._manager.peers_observed.remote(self._node_id, seen))

    # -- reporting

    async def _report_for_ever(self) -> None:
        await self._deliver(self._manager.agent_started.remote(self._node_id, self._address, self._port))
        while True:
            await self._report_once()
            await asyncio.sleep(self._settings.node_heartbeat_interval_ms / 1000)

    async def _report_once(self) -> None:
        if time.time() - self._metrics.taken_at >= self._settings.resource_monitoring_interval_ms / 1000:
            self._metrics = await asyncio.to_thread(measure)
        self._gpus.forget()
        await self._deliver(self._manager.report.remote(self._node_id, self._metrics, self._address, self._port))

    async def _watch_gpus_for_ever(self) -> None:
        while True:
            picked = self._gpus.look()
            if picked and await self._deliver(self._manager.report_gpus.remote(sorted(picked))):
                self._gpus.told()
            await asyncio.sleep(GPU_LOOK_S)

    async def _deliver(self, report: Any) -> bool:
        try:
            await report
        except ray.exceptions.RayActorError as error:
            # The manager restarts by itself; the next report reaches it, and until then there is nobody to tell.
            log.warning("report_not_delivered", node=self._node_id, error=str(error))
            return False
        return True

    async def metrics(self) -> ResourceMetrics:
        """Measures now, without waiting for the next report."""
        self._metrics = await asyncio.to_thread(measure)
        return self._metrics

    async def ping(self) -> str:
        return self._node_id
