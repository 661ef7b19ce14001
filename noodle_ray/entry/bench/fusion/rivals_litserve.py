"""The rival that is made for serving models: LitServe, with a worker process for each core."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from noodle_ray.entry.bench.fusion.rivals import Ready, when_input_ends
from noodle_ray.entry.bench.fusion.rivals_encoders import Encoders
from noodle_ray.errors import Unavailable

try:
    import litserve
except ModuleNotFoundError:
    raise Unavailable("LitServe is not installed: pip install 'noodle-ray[bench]'") from None


class FusionApi(litserve.LitAPI):  # type: ignore[misc]  # litserve has no types
    """Answers one request at a time in each worker process, its encoders in threads."""

    def __init__(self, cache_dir: Path, pack: str) -> None:
        super().__init__(api_path="/fusion")
        self._cache_dir, self._pack = cache_dir, pack

    def setup(self, device: str) -> None:
        self._encoders = Encoders(self._cache_dir, self._pack)

    def predict(self, x: dict[str, Any]) -> dict[str, Any]:
        return self._encoders.answer(x)


def run(port: int, cache_dir: Path, pack: str, ready: Ready) -> None:
    api = FusionApi(cache_dir, pack)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=os.cpu_count() or 1)
    # All of its processes, for the first one does not end the others when it is told to end.
    when_input_ends(lambda: os.killpg(os.getpgrp(), signal.SIGTERM))
    ready([])
    server.run(host="127.0.0.1", port=port, log_level="warning", generate_client_file=False)
