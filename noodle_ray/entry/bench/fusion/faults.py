"""What is done to an encoder while requests arrive: its replica is stopped for a while or killed, or it is swapped."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from noodle_ray.actors.names import MODULE_APPS
from noodle_ray.entry.client import connect
from noodle_ray.entry.cluster.local_cluster import LocalCluster
from noodle_ray.errors import NotFound
from noodle_ray.fusion_models.encoder_modules import module_name, write_module
from noodle_ray.fusion_models.packs import load_pack
from noodle_ray.fusion_models.processors import EncoderConfig
from noodle_ray.modules.versions import parse_version


@dataclass(frozen=True, slots=True)
class Faults:
    """Acts on the encoders of one cluster that was started here, and on no other process of this machine.

    This process must be connected to the cluster.
    """

    cluster: LocalCluster

    def stall(self, modality: str, seconds: float) -> None:
        """The encoder's process stands still for so long, and then goes on where it was. Raises NotFound."""
        process = self._process(modality)
        process.send_signal(signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            process.send_signal(signal.SIGCONT)

    def kill(self, modality: str) -> None:
        """The encoder's process ends without a word. Raises NotFound."""
        self._process(modality).send_signal(signal.SIGKILL)

    def swap(self, modality: str) -> None:
        """The next version of the encoder, which differs in its number alone, takes over. Raises ModuleFailed."""
        settings = self.cluster.settings
        with connect() as client, tempfile.TemporaryDirectory() as folder:
            running = parse_version(client.modules.describe(module_name(modality))["loaded"])
            version = f"{running.major}.{running.minor}.{running.micro + 1}"
            weights = load_pack(settings.pack, settings.cache_dir).version(modality)
            config = EncoderConfig(modality, settings.pack, weights, settings.fusion_precision, settings.fusion_device)
            write_module(Path(folder), config, version, settings.fusion_replicas, settings.fusion_gpu_share)
            client.modules.publish(Path(folder))
            client.modules.swap(module_name(modality), f"=={version}")

    def _process(self, modality: str) -> psutil.Process:
        """The first replica's process. Raises NotFound where none runs that belongs to this cluster."""
        sessions = {process.pid for process in self.cluster.file.processes}
        for pid in replica_pids(modality):
            if psutil.pid_exists(pid) and os.getsid(pid) in sessions:
                return psutil.Process(pid)
        raise NotFound("encoder's process", modality, [])


def replica_pids(modality: str) -> list[int]:
    """The processes of the modality's replicas, as Ray's state API tells them."""
    from ray.util.state import list_actors  # Ray reads its settings when it is imported

    beginning = f"ServeReplica:{MODULE_APPS}{module_name(modality)}-"
    actors = list_actors(filters=[("state", "=", "ALIVE")], limit=1000)
    return sorted(actor.pid or 0 for actor in actors if actor.class_name.startswith(beginning))
