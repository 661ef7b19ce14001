"""The fusion service with its real encoders, which are modules: found, swapped and lost while requests come."""

from __future__ import annotations

import io
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import structlog
from PIL import Image
from ray.util.state import list_actors

from noodle_ray import Cluster, MultimodalInput
from noodle_ray.entry.cluster.local_cluster import LocalCluster
from noodle_ray.entry.training.datasets import fetch_speech, photographs
from noodle_ray.errors import CorruptData, InvalidInput, Unavailable
from noodle_ray.fusion.modality import MODALITIES
from noodle_ray.fusion_models.encoder_modules import module_name, write_module
from noodle_ray.fusion_models.packs import load_pack
from noodle_ray.fusion_models.processors import EncoderConfig

pytestmark = pytest.mark.ray

CANDIDATES = ("waiting with a cup of coffee", "riding a motorcycle to work", "a cat asleep on a chair")


def picture(name: str) -> bytes:
    return next(one.path for one in photographs() if one.name == name).read_bytes()


@pytest.fixture(scope="module")
def request_(running: LocalCluster) -> MultimodalInput:
    try:
        speech = fetch_speech(running.settings.cache_dir)
    except (Unavailable, CorruptData) as error:
        pytest.skip(f"{error} (`noodle data fetch speech`)")
    return MultimodalInput(
        text="A short break until the next meeting starts.",
        code="def wait(self, timeout=None):\n    with self._cond:\n        self._cond.wait(timeout)",
        image=picture("coffee"),
        audio=speech["one-moment-please"].path.read_bytes(),
        candidates=CANDIDATES,
    )


def test_a_picture_of_many_megabytes_goes_all_the_way(cluster: Cluster) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    assert len(file.getvalue()) > 6_000_000
    result = cluster.fusion.process_multimodal_input(
        MultimodalInput(text="noise", image=file.getvalue(), candidates=("noise", "a cat"))
    )
    assert "vision" in (*result.modalities_used, *result.late), result.failed


def test_four_modalities_and_one_answer(cluster: Cluster, request_: MultimodalInput) -> None:
    result = cluster.fusion.process_multimodal_input(request_)
    assert result.modalities_used == MODALITIES, (result.late, result.failed)
    assert result.candidates[0].candidate == CANDIDATES[0]
    assert result.confident
    assert len(result.embedding) == 384
    assert "moment" in result.readings["audio"].lower()
    assert set(result.contributions) == set(MODALITIES)
    again = cluster.fusion.process_multimodal_input(request_)
    assert again.cached == MODALITIES
    assert (again.candidates, again.embedding) == (result.candidates, result.embedding)


def test_no_process_of_ours_logs_what_it_was_given(cluster: Cluster) -> None:
    """Unless it is told otherwise, structlog prints a traceback's local variables: tokens, and what users sent."""
    ours = ("NodeManager", "NodeAgent", "ModuleRegistry", "ServiceDirectory", "ModuleHost", "ServeReplica:")
    actors = [
        actor
        for actor in list_actors(ray.get_runtime_context().gcs_address, [("state", "=", "ALIVE")], limit=1000)
        if actor.class_name.startswith(ours) and actor.name
    ]
    names = {actor.class_name for actor in actors}
    assert all(any(name.startswith(kind) for name in names) for kind in ours if kind != "ModuleHost"), names
    for actor in actors:
        handle: Any = ray.get_actor(actor.name, actor.ray_namespace)
        # A lambda travels by value: no worker could import this file.
        assert ray.get(handle.__ray_call__.remote(lambda _: structlog.is_configured()), timeout=30), actor.class_name


def test_bad_media_are_a_typed_error(cluster: Cluster) -> None:
    with pytest.raises(InvalidInput, match="image"):
        cluster.fusion.process_multimodal_input(MultimodalInput(image=b"no picture"))


def test_encoders_are_modules_that_hold_what_they_need(cluster: Cluster) -> None:
    modules = {module["name"]: module for module in cluster.modules.list()}
    owners = {allocation.owner for allocation in cluster.allocations()}
    for modality in MODALITIES:
        assert modules[module_name(modality)]["loaded"]
        assert f"module:{module_name(modality)}" in owners


def asking(cluster: Cluster, number: int) -> MultimodalInput:
    """A request that nobody has asked before."""
    return MultimodalInput(
        text=f"a cat, number {number}", code=f"def cat_{number}(): ...", candidates=("a cat", "a dog", "a motorcycle")
    )


@pytest.fixture
def ask_on(cluster: Cluster) -> Iterator[Callable[[], list[Any]]]:
    """Asks without pause in another thread; calling it ends that, and gives what came."""
    is_over: list[bool] = []
    base = time.monotonic_ns()

    def ask() -> list[Any]:
        came: list[Any] = []
        while not is_over and len(came) < 5000:
            try:
                came.append(cluster.fusion.process_multimodal_input(asking(cluster, base + len(came))))
            except Exception as error:
                came.append(error)
        return came

    with ThreadPoolExecutor(1) as pool:
        task = pool.submit(ask)

        def end() -> list[Any]:
            is_over.append(True)
            return task.result()

        yield end
        is_over.append(True)


def test_an_encoder_is_swapped_while_requests_come(
    cluster: Cluster, running: LocalCluster, tmp_path: Path, ask_on: Callable[[], list[Any]]
) -> None:
    before = cluster.modules.describe("text-encoder")["loaded"]
    weights = load_pack("base", running.settings.cache_dir).version("text")
    config = EncoderConfig("text", "base", weights, "fp32", "cpu")
    write_module(tmp_path, config, "7.0.0", (1, 1), 0.2)
    cluster.modules.publish(tmp_path)
    cluster.modules.swap("text-encoder", "==7.0.0")
    time.sleep(1)
    came = ask_on()
    assert cluster.modules.describe("text-encoder")["loaded"] == "7.0.0"
    assert [answer for answer in came if isinstance(answer, Exception)] == []
    assert {answer.candidates[0].candidate for answer in came} == {"a cat"}
    assert [answer for answer in came if answer.modalities_used != ("text", "code")] == []
    cluster.modules.swap("text-encoder", f"=={before}")


def test_an_encoder_that_dies_is_left_out_and_comes_back(cluster: Cluster, ask_on: Callable[[], list[Any]]) -> None:
    killed = kill_replica("code-encoder")
    assert killed
    end = time.monotonic() + 60
    number = 0
    while time.monotonic() < end:
        number -= 1
        answer = cluster.fusion.process_multimodal_input(asking(cluster, number))
        if answer.modalities_used == ("text", "code"):
            break
        assert answer.modalities_used == ("text",)
        assert "code" in (*answer.failed, *answer.late)
        time.sleep(0.2)
    else:
        pytest.fail("the encoder did not come back")
    came = ask_on()
    assert [answer for answer in came if isinstance(answer, Exception)] == []


def kill_replica(module: str) -> int:
    """Kills the process of a module's replica; Ray knows which one it is."""
    from ray.util.state import list_actors

    address = ray.get_runtime_context().gcs_address
    for actor in list_actors(address, [("state", "=", "ALIVE")], limit=1000, detail=True):
        if actor.class_name.startswith("ServeReplica:") and module in actor.class_name:
            os.kill(actor.pid, signal.SIGKILL)
            return int(actor.pid)
    return 0
