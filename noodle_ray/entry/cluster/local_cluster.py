"""A cluster for a while: started in a state directory of its own, ended and cleared away at the end of the block."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from noodle_ray.entry.cluster import launch
from noodle_ray.entry.cluster.cluster_file import ClusterFile, ensure_token
from noodle_ray.entry.cluster.launch import UpOptions
from noodle_ray.entry.cluster.local_nodes import Progress
from noodle_ray.entry.cluster.ray_connection import use_token
from noodle_ray.settings import Settings, read_settings


@dataclass(frozen=True, slots=True)
class LocalCluster:
    """A running cluster and the settings it was started with."""

    file: ClusterFile
    settings: Settings

    def environment(self) -> dict[str, str]:
        """What another process needs to connect to it with `noodle_ray.connect()`."""
        return {**os.environ, **self.settings.environment()}


@contextmanager
def local_cluster(options: UpOptions, progress: Progress) -> Iterator[LocalCluster]:
    """Starts a cluster beside any other on this machine; the process's environment is as before afterwards."""
    with _own_state() as settings:
        file = launch.up(settings, options, progress)
        try:
            yield LocalCluster(file, settings)
        finally:
            launch.down(settings, progress)


@contextmanager
def bare_ray(progress: Progress, options: UpOptions | None = None) -> Iterator[LocalCluster]:
    """The same without anything of ours on it: Ray with our settings, for comparisons and for `attach`."""
    with _own_state() as settings:
        file = launch.start_ray(settings, options or UpOptions(), progress)
        try:
            use_token(ensure_token(settings.state_dir))
            yield LocalCluster(file, settings)
        finally:
            launch.down(settings, progress)


@contextmanager
def _own_state() -> Iterator[Settings]:
    before = dict(os.environ)
    state_dir = Path(tempfile.mkdtemp(prefix="noodle-"))
    settings = read_settings().model_copy(update={"state_dir": state_dir})
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN_PATH"):
        os.environ.pop(name, None)
    os.environ.update(settings.environment())
    try:
        yield settings
    finally:
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(state_dir)
