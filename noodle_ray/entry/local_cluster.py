"""A cluster for a while: started in a state directory of its own, ended and cleared away at the end of the block."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from noodle_ray.entry import launch
from noodle_ray.entry.cluster_file import ClusterFile
from noodle_ray.entry.launch import Progress, UpOptions
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
def local_cluster(options: UpOptions, progress: Progress, settings: Settings | None = None) -> Iterator[LocalCluster]:
    """Starts a cluster beside any other on this machine; the process's environment is as before afterwards."""
    before = dict(os.environ)
    state_dir = Path(tempfile.mkdtemp(prefix="noodle-"))
    own = (settings or read_settings()).model_copy(update={"state_dir": state_dir})
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN_PATH"):
        os.environ.pop(name, None)
    try:
        os.environ.update(own.environment())
        file = launch.up(own, options, progress)
        try:
            yield LocalCluster(file, own)
        finally:
            launch.down(own, progress)
    finally:
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(state_dir)
