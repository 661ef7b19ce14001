"""The rivals of the latency benchmark answer what our engine answers, with the same encoders."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from noodle_ray.entry.bench.fusion.faults import Faults
from noodle_ray.entry.bench.fusion.rivals import RIVALS
from noodle_ray.entry.bench.fusion.rivals_encoders import Encoders, Question
from noodle_ray.entry.bench.fusion.rivals_fastapi import application
from noodle_ray.entry.cluster.cluster_file import ClusterFile, StartedProcess
from noodle_ray.entry.cluster.local_cluster import LocalCluster
from noodle_ray.entry.training.datasets import Photograph, SpeechSet
from noodle_ray.errors import NotFound
from noodle_ray.fusion import limits
from noodle_ray.fusion.calibration import load_calibration
from noodle_ray.fusion.decoding import decode
from noodle_ray.fusion.engine import Engine
from noodle_ray.fusion.inputs import MultimodalInput
from noodle_ray.fusion.items import Item
from noodle_ray.fusion.ports import Placed
from noodle_ray.fusion.reading import Reading
from noodle_ray.fusion_models.encoders import ModalityEncoder
from noodle_ray.fusion_models.packs import Pack
from noodle_ray.settings import Settings

CANDIDATES = ("waiting with a cup of coffee", "riding a motorcycle to work", "a cat asleep on a chair")


class Here:
    """The engine's ports over encoders in this process; what it remembers is not asked for."""

    def __init__(self, encoders: Mapping[str, Any]) -> None:
        self._encoders = encoders

    async def versions(self, modalities: Sequence[str]) -> dict[str, str]:
        return dict.fromkeys(modalities, "1")

    async def read(
        self, modality: str, version: str, items: Sequence[Any], texts: tuple[str, ...], within_s: float
    ) -> Sequence[Reading]:
        return [self._encoders[modality].encode(item, texts) for item in items]

    async def place(self, version: str, texts: tuple[str, ...], within_s: float) -> Placed:
        return Placed("", self._encoders["text"].embed(texts))

    async def decode(self, modality: str, item: Item) -> Any:
        return decode(modality, item, limits.DEFAULT)


def test_they_answer_what_our_engine_answers(
    base: Pack,
    cache_dir: Path,
    encoders: dict[str, ModalityEncoder],
    speech: SpeechSet,
    photographs: dict[str, Photograph],
) -> None:
    image, audio = photographs["coffee"].path.read_bytes(), speech["one-moment-please"].path.read_bytes()
    fields = {"text": "A short break.", "code": "def wait(self):\n    pass", "candidates": CANDIDATES}
    media = {"image": base64.b64encode(image).decode(), "audio": base64.b64encode(audio).decode()}
    rival = Encoders(cache_dir, "base").answer({**fields, **media})
    here: Any = Here(encoders)
    engine = Engine(here, here, load_calibration("base"), here, here, here, limit_ms=60_000, threshold=0.7)
    ours = asyncio.run(engine.process(MultimodalInput(image=image, audio=audio, **fields), "id"))
    assert set(rival["modalities_used"]) == set(ours.modalities_used)
    for theirs, own in zip(rival["candidates"], ours.candidates, strict=True):
        assert theirs["candidate"] == own.candidate
        assert theirs["probability"] == pytest.approx(own.probability, abs=1e-4)


def test_fastapi_takes_the_benchmarks_body() -> None:
    class Fake:
        def answer(self, question: Question) -> dict[str, Any]:
            return {"modalities_used": [name for name in ("text", "code") if question[name]]}

    with TestClient(application(Fake())) as client:  # type: ignore[arg-type]
        response = client.post("/fusion", json={"text": "a", "candidates": ["b", "c"]})
    assert response.json() == {"modalities_used": ["text"]}


def test_an_unknown_rival_is_refused_with_the_known_ones() -> None:
    command = [sys.executable, "-m", "noodle_ray.entry.bench.fusion.rivals", "torchserve", "1", "/", "base"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode != 0
    assert all(name in run.stderr for name in RIVALS)


# -- faults


def cluster_of(pid: int, tmp_path: Path) -> LocalCluster:
    process = StartedProcess.of(pid, "head", "127.0.0.2")
    file = ClusterFile(address="127.0.0.2:1", dashboard_url="", gateway_url="", processes=(process,))
    return LocalCluster(file, Settings(state_dir=tmp_path))


@pytest.fixture
def other() -> Any:
    """A process in a session of its own."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True) as process:
        yield process
        process.kill()


def test_faults_touch_the_clusters_own_processes_only(
    other: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []
    monkeypatch.setattr("noodle_ray.entry.bench.fusion.faults.replica_pids", lambda modality: found)
    faults = Faults(cluster_of(other.pid, tmp_path))
    found[:] = [os.getpid()]
    with pytest.raises(NotFound, match="vision"):
        faults.kill("vision")
    found[:] = [other.pid]
    start = time.monotonic()
    faults.stall("vision", 0.05)
    assert time.monotonic() - start >= 0.05
    assert other.poll() is None
    faults.kill("vision")
    assert other.wait(10) == -signal.SIGKILL
