"""One real cluster for all tests of this folder: Ray, actors, encoders, gateway, and two more nodes to choose from."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from noodle_ray import Cluster, connect, read_token
from noodle_ray.entry.cluster import process_session, ray_process
from noodle_ray.entry.cluster.launch import UpOptions
from noodle_ray.entry.cluster.local_cluster import LocalCluster, local_cluster
from noodle_ray.entry.cluster.ray_process import NodeOptions
from noodle_ray.fusion_models.packs import pack_directory
from noodle_ray.resources import NodeResources
from noodle_ray.settings import read_settings

WORKERS = (
    NodeOptions("127.0.0.3", "gpu-a", NodeResources.of(cpus=4, memory="8GiB", gpus=2, accelerator_type="A100"), True),
    NodeOptions("127.0.0.4", "gpu-b", NodeResources.of(cpus=4, memory="16GiB", gpus=4, accelerator_type="L4"), True),
)


@pytest.fixture(scope="session")
def running() -> Iterator[LocalCluster]:
    """The cluster. When it has ended, nothing of it is left."""
    # What is tested here is what comes back, not how fast: the machine may be busy.
    os.environ["NOODLE_FUSION_MAX_PROCESSING_TIME"] = "20000"
    settings = read_settings()
    if not pack_directory(settings.pack, settings.cache_dir).exists():
        pytest.skip("the encoders' weights are missing: `noodle models fetch` brings them")
    with local_cluster(UpOptions(workers=WORKERS), lambda what: None) as cluster:
        yield cluster
    del os.environ["NOODLE_FUSION_MAX_PROCESSING_TIME"]
    assert not [process for process in cluster.file.processes if process_session.members(process.pid)]
    assert not cluster.settings.state_dir.exists()
    assert not ray_process.runtime_dir_for(cluster.settings.state_dir).exists()
    assert not ray_process.haproxy_dir_for(cluster.settings.state_dir).exists()


@pytest.fixture(scope="session")
def cluster(running: LocalCluster) -> Iterator[Cluster]:
    """A driver's connection to it."""
    with connect() as connected:
        yield connected


@pytest.fixture
def http(running: LocalCluster) -> Iterator[httpx.Client]:
    """An HTTP client with the token."""
    headers = {"Authorization": f"Bearer {read_token()}"}
    with httpx.Client(base_url=running.file.gateway_url, headers=headers, timeout=60) as client:
        yield client


@pytest.fixture
def noodle(running: LocalCluster) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line, as a person calls it."""

    def call(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("noodle")), *arguments]
        environment = {**running.environment(), "COLUMNS": "160"}
        return subprocess.run(command, env=environment, input=stdin, capture_output=True, text=True, check=False)

    return call


@pytest.fixture
def noodle_json(noodle: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[..., Any]:
    """The command line with --json, read."""

    def call(*arguments: str) -> Any:
        run = noodle(*arguments, "--json")
        assert run.returncode == 0, run.stderr
        return json.loads(run.stdout)

    return call


def processes_named(title: str) -> list[psutil.Process]:
    """This cluster's worker processes with this title, such as "ray::NodeManager"; others may run beside it."""
    return [
        process
        for process in psutil.process_iter(["cmdline", "environ"])
        if process.info["cmdline"] and process.info["cmdline"][0].startswith(title) and process.pid != os.getpid()
        if (process.info["environ"] or {}).get("RAY_TMPDIR") == os.environ["RAY_TMPDIR"]
    ]
