"""One Ray and one module registry for all of these tests, with an allocator that needs no node manager."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from modules_on_ray import EXAMPLES, LOADING_TIMEOUT_MS, allocator

from noodle_ray.actors import names
from noodle_ray.actors.module_calls import ModuleCaller
from noodle_ray.actors.module_registry import ModuleRegistry
from noodle_ray.actors.ray_errors import get
from noodle_ray.modules.artefact import pack_module
from noodle_ray.settings import Settings


@pytest.fixture(scope="session")
def settings() -> Iterator[Settings]:
    before = {name: os.environ.get(name) for name in ("RAY_TMPDIR", "RAY_AUTH_MODE")}
    with tempfile.TemporaryDirectory(prefix="nr", ignore_cleanup_errors=True) as folder:
        (Path(folder) / "ray").mkdir()
        os.environ |= {"RAY_TMPDIR": str(Path(folder) / "ray"), "RAY_AUTH_MODE": "disabled"}
        ray.init(
            num_cpus=2,
            num_gpus=1,
            object_store_memory=80 * 2**20,
            include_dashboard=False,
            log_to_driver=False,
            namespace="somebody-else",
        )
        yield Settings(
            state_dir=Path(folder) / "state",
            cache_dir=Path(folder) / "cache",
            module_loading_timeout_ms=LOADING_TIMEOUT_MS,
        )
        ray.shutdown()
    for name, value in before.items():
        os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)


@pytest.fixture(scope="session")
def registry(settings: Settings) -> Any:
    actor = ray.remote(ModuleRegistry).options(**names.on_the_head(names.MODULE_REGISTRY)).remote(settings, allocator())
    get(actor.ping.remote(), timeout_s=60)
    for manifest in sorted(EXAMPLES.glob("*/*/pyproject.toml")):
        get(actor.publish.remote(pack_module(manifest.parent)), timeout_s=30)
    return actor


@pytest.fixture
def caller(registry: Any) -> ModuleCaller:
    return ModuleCaller(registry)
