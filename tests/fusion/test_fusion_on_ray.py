"""The whole service on a Ray of its own: four modalities in, one answer out."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from noodle_ray.entry.datasets import Photograph, SpeechSet
from noodle_ray.errors import InvalidInput
from noodle_ray.fusion.inputs import MultimodalInput
from noodle_ray.fusion.result import FusionResult
from noodle_ray.fusion_models.packs import Pack
from noodle_ray.settings import Settings

pytestmark = pytest.mark.ray

ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "1",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
}


@pytest.fixture(scope="module")
def handle(base: Pack, cache_dir: Path) -> Iterator[Any]:
    with tempfile.TemporaryDirectory(prefix="nr-") as folder, pytest.MonkeyPatch.context() as environment:
        for name, value in {**ENVIRONMENT, "RAY_TMPDIR": folder}.items():
            environment.setenv(name, value)
        import ray
        from ray import serve

        from noodle_ray.fusion_models.deployments import build_application

        ray.init(
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=80 * 2**20,
            _temp_dir=folder,
            log_to_driver=False,
            namespace="fusion-test",
        )
        try:
            serve.start(proxy_location="Disabled")
            settings = Settings(cache_dir=cache_dir, fusion_max_processing_time_ms=20_000)
            serve.run(build_application(settings), name="fusion", route_prefix=None)
            yield serve.get_app_handle("fusion")
            serve.shutdown()
        finally:
            ray.shutdown()


def ask(handle: Any, request: MultimodalInput) -> FusionResult:
    async def answer() -> FusionResult:
        result: FusionResult = await handle.process.remote(request)
        return result

    return asyncio.run(answer())


def test_four_modalities_and_one_answer(handle: Any, speech: SpeechSet, photographs: dict[str, Photograph]) -> None:
    request = MultimodalInput(
        text="A short break until the next meeting starts.",
        code="def wait(self, timeout=None):\n    with self._cond:\n        self._cond.wait(timeout)",
        image=photographs["coffee"].path.read_bytes(),
        audio=speech["one-moment-please"].path.read_bytes(),
        candidates=("waiting with a cup of coffee", "riding a motorcycle to work", "a cat asleep on a chair"),
    )
    result = ask(handle, request)
    assert result.modalities_used == ("text", "audio", "vision", "code"), (result.late, result.failed)
    assert result.candidates[0].candidate == "waiting with a cup of coffee"
    assert result.confident
    assert len(result.embedding) == 384
    assert "espresso" in result.readings["vision"]
    assert "moment" in result.readings["audio"].lower()
    assert set(result.contributions) == set(result.modalities_used)


def test_bad_media_are_a_typed_error_and_late_encoders_are_named(
    handle: Any, photographs: dict[str, Photograph]
) -> None:
    with pytest.raises(InvalidInput, match="image"):
        ask(handle, MultimodalInput(image=b"no picture"))
    embedded = ask(handle, MultimodalInput(text="a cat", image=photographs["chelsea"].path.read_bytes()))
    assert embedded.candidates == ()
    assert embedded.readings["vision"].startswith("Egyptian cat")
