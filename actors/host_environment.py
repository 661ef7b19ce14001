"""The environment of a host: the Python packages that a module needs, installed on its node before the host starts."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
import venv
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO, Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from noodle_ray.actors import ray_state
from noodle_ray.actors.ray_errors import await_ref
from noodle_ray.errors import DeadlineExceeded, ModuleFailed, NoodleError, Unavailable
from noodle_ray.resources import Demand

_NOT_REACHED = ("NewConnectionError", "NameResolutionError", "ConnectTimeoutError", "ReadTimeoutError", "ProxyError")
_SHOWN_LINES = 3
_WHOLE = "whole"
"""The file that says that an environment was made to its end."""


async def place_options(demand: Demand | None, node_id: str, group: str | None) -> dict[str, Any]:
    """Ray's options for a host that starts for one module: within its group where it has one, else on the node."""
    if demand is None or group is None:
        return _on_node(node_id)
    found = await asyncio.to_thread(ray_state.find_group, group)
    return {
        "num_cpus": demand.cpus,
        "num_gpus": demand.gpu_share or demand.gpus,
        "memory": demand.memory or None,
        "resources": dict(demand.custom) or None,
        "scheduling_strategy": PlacementGroupSchedulingStrategy(found, placement_group_bundle_index=0),
    }


async def prepare(
    cache_dir: str, module: str, packages: Sequence[str], node_id: str, timeout_ms: int
) -> dict[str, Any]:
    """Installs packages on a node, where they are not yet, and gives the runtime environment of a host that has them.

    Ray's own "pip" and "uv" copy the whole virtual environment that Ray runs in for each set of packages; ours only
    adds to it. Raises ModuleFailed with what pip said, Unavailable (no index can be reached), DeadlineExceeded.
    """
    task = _install.options(max_retries=0, **_on_node(node_id)).remote(cache_dir, module, tuple(packages))
    try:
        async with asyncio.timeout(timeout_ms / 1000):
            return {"py_executable": await await_ref(task)}
    except BaseException as error:
        ray.cancel(task)
        if isinstance(error, TimeoutError):
            raise DeadlineExceeded(f"the installation of {module}'s packages", timeout_ms) from None
        raise


def _on_node(node_id: str) -> dict[str, Any]:
    return {"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False)}


def install(cache_dir: str, module: str, packages: Sequence[str]) -> str:
    """The Python of this machine's environment with these packages; made where there is none. Blocks, for minutes even.

    It has all that this interpreter has, and the packages before that. Raises ModuleFailed or Unavailable.
    """
    folder = Path(cache_dir) / "packages" / _key(packages)
    python = folder / "bin" / "python"
    with _locked(folder.with_suffix(".lock")) as lock:
        if not (folder / _WHOLE).exists():
            shutil.rmtree(folder, ignore_errors=True)
            venv.create(folder, symlinks=True)
            _inherit(folder)
            _run_pip(python, module, packages, lock)
            (folder / _WHOLE).touch()
    return str(python)


_install = ray.remote(install)


def _key(packages: Sequence[str]) -> str:
    parts = [sys.version, sys.prefix, ray.__version__, *packages]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


@contextmanager
def _locked(path: Path) -> Iterator[IO[str]]:
    """One process of this machine at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _inherit(folder: Path) -> None:
    """Lets an environment import what this interpreter can, after its own packages."""
    [site_packages] = folder.glob("lib/python*/site-packages")
    given = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    # addsitedir and not the bare path: this one reads the .pth files there too, by which editable installs work.
    lines = [f"import site; site.addsitedir({path!r})" for path in given]
    (site_packages / "inherited.pth").write_text("\n".join(lines) + "\n")


def _run_pip(python: Path, module: str, packages: Sequence[str], lock: IO[str]) -> None:
    constraints = python.parent / "constraints.txt"
    constraints.write_text(f"ray=={ray.__version__}\n")  # with another one the host could not speak to its cluster
    options = ["--no-input", "--disable-pip-version-check", "--constraint", str(constraints)]
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", *options, "--", *packages]
    # pip holds the lock too: should this process be killed, nobody else begins before pip has ended.
    ended = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, pass_fds=[lock.fileno()]
    )
    if ended.returncode:
        raise _refused(module, ended.stdout)


def _refused(module: str, output: str) -> NoodleError:
    """What an installation that failed means.

    ModuleFailed, not InvalidInput: what is wrong is in the module that was published, not in the request to load it.
    Unavailable only where pip says that it reached nobody, for then another try may do.
    """
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    told = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")] or lines
    problem = f"its packages cannot be installed: {' '.join(told[-_SHOWN_LINES:])}"
    if any(sign in output for sign in _NOT_REACHED):
        return Unavailable(f"module {module}: {problem} (the package index cannot be reached)")
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
