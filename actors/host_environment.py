"""The environment of a host: the Python packages that a module needs, installed by Ray before the host starts."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from ray.exceptions import RuntimeEnvSetupError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from noodle_ray.actors import ray_state
from noodle_ray.actors.warm_hosts import Host, start_host
from noodle_ray.errors import DeadlineExceeded, ModuleFailed, NoodleError, Unavailable
from noodle_ray.resources import Demand

_OUTPUT = "lines of stdout:"
"""After this Ray's message has what the installer wrote."""

_NOT_REACHED = ("NewConnectionError", "NameResolutionError", "ConnectTimeoutError", "ReadTimeoutError", "ProxyError")
_SHOWN_LINES = 3


def runtime_env(packages: Sequence[str], timeout_ms: int) -> dict[str, Any]:
    """What Ray must set up for a host.

    With pip, for it reads the machine's own configuration (indexes, certificates, folders of wheels), and uv does not.
    """
    return {"pip": list(packages), "config": {"setup_timeout_seconds": math.ceil(timeout_ms / 1000)}}


async def place_options(demand: Demand | None, node_id: str, group: str | None) -> dict[str, Any]:
    """Ray's options for a host that starts for one module: within its group where it has one, else on the node."""
    if demand is None or group is None:
        return {"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False)}
    found = await asyncio.to_thread(ray_state.find_group, group)
    return {
        "num_cpus": demand.cpus,
        "num_gpus": demand.gpu_share or demand.gpus,
        "memory": demand.memory or None,
        "resources": dict(demand.custom) or None,
        "scheduling_strategy": PlacementGroupSchedulingStrategy(found, placement_group_bundle_index=0),
    }


async def start_with_packages(
    cache_dir: str, module: str, packages: Sequence[str], timeout_ms: int, options: dict[str, Any]
) -> Host:
    """Starts a host for one module, once its packages are installed: that takes up to minutes where they are not yet.

    Raises ModuleFailed with what the installer said, DeadlineExceeded, Unavailable (the index cannot be reached).
    """
    environment = runtime_env(packages, timeout_ms)
    try:
        async with asyncio.timeout(timeout_ms / 1000):
            return await start_host(cache_dir, False, {**options, "runtime_env": environment})
    except RuntimeEnvSetupError as error:
        raise setup_failed(module, error) from None
    except TimeoutError:
        raise DeadlineExceeded(f"the installation of {module}'s packages", timeout_ms) from None


def setup_failed(module: str, error: RuntimeEnvSetupError) -> NoodleError:
    """What a set-up that failed means.

    ModuleFailed, not InvalidInput: what is wrong is in the module that was published, not in the request to load it.
    Unavailable only where the installer says that it reached nobody, for then another try may do.
    """
    message = str(error)
    output = message.rpartition(_OUTPUT)[2] if _OUTPUT in message else message
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    told = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")] or lines
    problem = f"its packages cannot be installed: {' '.join(told[-_SHOWN_LINES:])}"
    if any(sign in output for sign in _NOT_REACHED):
        return Unavailable(f"{problem} (the package index cannot be reached)")
    return ModuleFailed(module, problem, "\n".join(lines))


@asynccontextmanager
async def not_counted(limit: asyncio.Timeout | None) -> AsyncIterator[None]:
    """What is done within takes no time of the limit: it has a limit of its own."""
    until = limit.when() if limit is not None else None
    if limit is None or until is None:
        yield
        return
    loop = asyncio.get_running_loop()
    start = loop.time()
    limit.reschedule(None)
    try:
        yield
    finally:
        limit.reschedule(until + loop.time() - start)
