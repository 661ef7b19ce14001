"""Claims that wait reach Ray's autoscaler, which launches a node for them and takes it back afterwards."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from noodle_ray.actors import autoscaler, names
from noodle_ray.actors.node_manager import NodeManager
from noodle_ray.actors.ray_errors import get
from noodle_ray.entry.client import Cluster
from noodle_ray.entry.cluster.ray_process import free_port
from noodle_ray.errors import DoesNotFit
from noodle_ray.resources import Demand
from noodle_ray.settings import Settings

pytestmark = pytest.mark.ray

HEAD = "127.0.0.30"
HEAD_ID = "f" * 51 + "00000"  # what the fake provider takes for the head's
GPU_NODE = Demand(cpus=1, gpus=1, labels={"zone": "a"})


def configuration(port: int) -> dict[str, Any]:
    """What `ray up` would hand to the autoscaler: one more kind of node, with two GPUs, at most two of it."""
    unused = ("auth", "docker", "file_mounts")
    lists = ("cluster_synced_files", "rsync_exclude", "rsync_filter", "initialization_commands", "setup_commands")
    commands = ("head_setup_commands", "worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands")
    return {
        **{name: {} for name in unused},
        **{name: [] for name in (*lists, *commands)},
        "cluster_name": "fake",
        "max_workers": 2,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 0.1,
        "file_mounts_sync_continuously": False,
        "provider": {
            "type": "external",
            "module": "fake_provider.LoopbackProvider",
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "gcs_address": f"{HEAD}:{port}",
            "head_node_id": HEAD_ID,
            "launch_multiple": True,
        },
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
            "gpu": {
                "resources": {"CPU": 2, "GPU": 2, "object_store_memory": 80 * 2**20},
                "labels": {"zone": "a"},
                "node_config": {},
                "min_workers": 0,
                "max_workers": 2,
            },
        },
    }


@pytest.fixture(params=["v2", "v1"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head with one CPU, the autoscaler of that version beside it, and our node manager on it."""
    port, runtime = free_port(0, HEAD), Path("/tmp") / f"nr-{os.getpid()}-{request.param}"
    config = tmp_path / "autoscaling.json"
    config.write_text(json.dumps(configuration(port)))
    for name, value in (("RAY_AUTH_MODE", "disabled"), ("RAY_TMPDIR", str(runtime))):
        monkeypatch.setenv(name, value)
    environment = {
        **os.environ,
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1" if request.param == "v2" else "0",
        "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
        "RAY_NODE_TYPE_NAME": "ray.head.default",
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": str(Path(__file__).parent),
    }
    runtime.mkdir()
    options = ["--head", "--block", "--num-cpus=1", "--num-gpus=0", "--include-dashboard=false"]
    place = [f"--node-ip-address={HEAD}", f"--port={port}", f"--object-store-memory={80 * 2**20}"]
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", *options, *place, f"--autoscaling-config={config}"]
    with (tmp_path / "head.log").open("wb") as log:
        head = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        yield from connected(f"{HEAD}:{port}", tmp_path)
    finally:
        end(head, runtime)


def connected(address: str, folder: Path) -> Iterator[Cluster]:
    host, _, port = address.partition(":")
    assert eventually(lambda: is_open(host, int(port)), 60)
    assert eventually(lambda: connects(address), 60)
    settings = Settings(state_dir=folder / "state", cache_dir=folder / "cache")
    actor = ray.remote(NodeManager).options(**names.on_the_head(names.NODE_MANAGER)).remote(settings)
    get(actor.ping.remote(), timeout_s=90)
    client = Cluster(owns_ray=True)
    try:
        yield client
    finally:
        client.close()


def is_open(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def connects(address: str) -> bool:
    try:
        ray.init(address=address, namespace=names.NAMESPACE, logging_level="ERROR", log_to_driver=False)
    except (ConnectionError, RuntimeError):
        return False
    return True


def end(head: subprocess.Popen[bytes], runtime: Path) -> None:
    """Ends the head and whatever carries its runtime directory: the monitor's raylets are no children of ours."""
    for process in psutil.process_iter(["environ"]):
        if (process.info["environ"] or {}).get("RAY_TMPDIR") == str(runtime) and process.pid != os.getpid():
            process.kill()
    head.wait(15)
    shutil.rmtree(runtime, ignore_errors=True)


def eventually(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.2)
    return condition()


def test_a_claim_that_waits_has_a_node_launched_and_it_goes_when_it_is_idle(cluster: Cluster) -> None:
    with pytest.raises(DoesNotFit, match="no node would fit it even when empty"):
        cluster.hold(Demand(gpus=3))
    assert not autoscaler.has_asked()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(cluster.hold, GPU_NODE, wait_s=90)
        assert eventually(lambda: [a.state for a in cluster.allocations()] == ["waiting"], 10)
        held = asked.result(90)
    assert len(cluster.nodes()) == 2
    assert [bundle.gpu_indices for bundle in held.allocation.bundles] == [(0,)]
    assert eventually(lambda: not autoscaler.has_asked(), 10)
    cluster.release(held.id)
    assert eventually(lambda: len(cluster.nodes()) == 1, 60)
