"""Modules that need Python packages, on a real Ray: installed for their hosts alone, and told where they cannot be."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.metadata import version
from typing import Any

import iniconfig
import pytest
import ray
from modules_on_ray import allocator, loaded_version, publish

from noodle_ray.actors import ray_state
from noodle_ray.actors.module_calls import ModuleCaller
from noodle_ray.actors.module_registry import ModuleRegistry
from noodle_ray.actors.ray_errors import await_ref
from noodle_ray.errors import DeadlineExceeded, ModuleFailed
from noodle_ray.modules.call_route import CallTarget
from noodle_ray.settings import Settings

pytestmark = pytest.mark.ray

PINNED = "iniconfig==2.0.0"  # small, and not the version that pytest brought along
OTHER = "iniconfig==2.1.0"


@pytest.fixture(scope="module", autouse=True)
def index() -> None:
    """Skips all where no package index can be reached."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, PINNED]
        fetched = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if fetched.returncode:
        pytest.skip(f"no package index can be reached: {fetched.stderr.strip()[-200:]}")


CODE = """
from importlib.metadata import version
import iniconfig
def installed(): return version("iniconfig"), iniconfig.__file__
"""


async def test_they_are_there_for_the_module_and_for_those_that_need_it(registry: Any) -> None:
    await publish(registry, "configured", "1.0", CODE, f'packages = ["{PINNED}"]')
    loaded = await await_ref(registry.load.remote("configured"))
    assert not loaded["warm"] and "install" in loaded["milliseconds"]
    caller = ModuleCaller(registry)
    found, file = await caller.call(CallTarget("configured", "installed"), [], {})
    assert found == "2.0.0" != version("iniconfig") and file != iniconfig.__file__

    code = "import configured\ndef installed(): return configured.installed()"
    more = "requires = {configured = '==1.0'}\nresources = {cpus = 0.5}"
    await publish(registry, "needing", "1.0", code, more)
    again = await await_ref(registry.load.remote("needing"))
    assert not again["warm"] and "install" in again["milliseconds"]
    assert await caller.call(CallTarget("needing", "installed"), [], {}) == (found, file)
    assert len(ray_state.groups()) == 1
    await await_ref(registry.unload.remote("needing"))
    assert ray_state.groups() == {}
    await await_ref(registry.unload.remote("configured"))


async def test_one_that_does_not_exist_is_told_with_what_the_installer_said(registry: Any) -> None:
    await publish(registry, "lost", "1.0", "x = 1", 'packages = ["noodle-ray-no-such-package==1.0"]')
    with pytest.raises(
        ModuleFailed, match=r"lost failed: its packages cannot be installed.*No matching distribution found for noodle"
    ) as caught:
        await await_ref(registry.load.remote("lost"))
    assert "noodle-ray-no-such-package==1.0" in caught.value.trace
    assert await loaded_version(registry, "lost") is None


async def test_an_installation_that_takes_too_long_is_given_up(settings: Settings) -> None:
    """With a registry of its own, whose patience is short."""
    short = settings.model_copy(update={"module_install_timeout_ms": 500, "state_dir": settings.state_dir / "short"})
    alone = {"name": "impatient-registry", "lifetime": "detached", "num_cpus": 0}
    actor = ray.remote(ModuleRegistry).options(**alone).remote(short, allocator())
    await publish(actor, "slow", "1.0", "x = 1", f'packages = ["{OTHER}"]')
    with pytest.raises(DeadlineExceeded, match="the installation of slow's packages did not finish within 500 ms"):
        await await_ref(actor.load.remote("slow"))
    ray.kill(actor)
