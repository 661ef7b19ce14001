"""The rival that we stand on: Ray Serve as it comes, an ingress that calls four encoder deployments."""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

from noodle_ray.entry.bench.fusion.rivals import Ready
from noodle_ray.entry.bench.fusion.rivals_encoders import CandidateRows, decoded, encoder_as_set, fused, given
from noodle_ray.entry.bench.nodes_overhead import default_settings
from noodle_ray.entry.cluster.local_cluster import bare_ray
from noodle_ray.entry.cluster.ray_connection import connection
from noodle_ray.fusion.calibration import load_calibration
from noodle_ray.fusion.modality import MODALITIES
from noodle_ray.fusion.reading import Matrix, Reading
from noodle_ray.fusion_models.encoders import ModalityEncoder
from noodle_ray.fusion_models.packs import load_pack
from noodle_ray.settings import read_settings

CPUS = 0.2
"""Serve's default is a whole CPU for each replica, and five do not fit on two cores; all else is as it comes."""


class Encoder:
    """One encoder. Serve runs its methods in threads; a tokenizer cannot be used by two at once."""

    def __init__(self, cache_dir: Path, pack: str, modality: str) -> None:
        import torch

        torch.set_num_threads(1)
        encoder: Any = encoder_as_set(load_pack(pack, cache_dir), modality)
        self._encoder: ModalityEncoder = encoder
        self._rows = CandidateRows(encoder) if modality == "text" else None
        self._lock = threading.Lock()

    def encode(self, content: Any, candidates: tuple[str, ...]) -> Reading:
        with self._lock:
            return self._encoder.encode(content, candidates)

    def rows(self, candidates: tuple[str, ...]) -> Matrix:
        assert self._rows is not None
        with self._lock:
            return self._rows(candidates)


class Ingress:
    """Decodes, asks the encoders side by side, and fuses."""

    def __init__(self, pack: str, encoders: dict[str, Any]) -> None:
        self._calibration, self._encoders = load_calibration(pack), encoders

    async def __call__(self, request: Request) -> dict[str, Any]:
        question = await request.json()
        candidates = tuple(question["candidates"])
        asked = [self._read(name, content, candidates) for name, content in given(question).items()]
        rows, *readings = await asyncio.gather(self._encoders["text"].rows.remote(candidates), *asked)
        return fused(dict(zip(given(question), readings, strict=True)), candidates, rows, self._calibration)

    async def _read(self, modality: str, content: str, candidates: tuple[str, ...]) -> Reading:
        ready = await asyncio.to_thread(decoded, modality, content)
        reading: Reading = await self._encoders[modality].encode.remote(ready, candidates)
        return reading


def run(port: int, cache_dir: Path, pack: str, ready: Ready) -> None:
    with default_settings(), bare_ray(lambda line: None) as cluster, connection(cluster.file.address):
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(_application(cache_dir, pack), name="fusion", route_prefix="/fusion")
        ready([process.pid for process in cluster.file.processes])
        sys.stdin.read()
        ray.shutdown()


def _application(cache_dir: Path, pack: str) -> serve.Application:
    settings = read_settings()
    gpus = 0.0 if settings.fusion_device == "cpu" else settings.fusion_gpu_share
    encoders = {modality: _deployed(Encoder, modality, gpus).bind(cache_dir, pack, modality) for modality in MODALITIES}
    return _deployed(Ingress, "ingress").bind(pack, encoders)


def _deployed(kind: type[Any], name: str, gpus: float = 0.0) -> serve.Deployment:
    return serve.deployment(name=name, ray_actor_options={"num_cpus": CPUS, "num_gpus": gpus})(kind)
