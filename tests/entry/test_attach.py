"""noodle attach: onto a Ray that somebody else started, and off it again, which goes on running."""

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import ray
from ray.util.placement_group import placement_group_table

from noodle_ray.entry.cluster.local_cluster import bare_ray
from noodle_ray.entry.cluster.ray_connection import connection
from noodle_ray.fusion_models.packs import pack_directory
from noodle_ray.settings import read_settings

pytestmark = pytest.mark.ray


def test_on_and_off_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nobody asks any more when it is taken off: Serve need not wait half a minute for those who might.
    monkeypatch.setenv("RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S", "1")
    settings = read_settings()
    if not pack_directory(settings.pack, settings.cache_dir).exists():
        pytest.skip("the encoders' weights are missing: `noodle models fetch` brings them")
    with bare_ray(lambda what: None) as theirs:
        token = theirs.settings.state_dir / "token"
        environment = {**os.environ, "NOODLE_STATE_DIR": str(tmp_path), "RAY_AUTH_TOKEN_PATH": str(token)}

        def noodle(*arguments: str) -> str:
            command = [str(Path(sys.executable).with_name("noodle")), *arguments]
            run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            assert run.returncode == 0, run.stderr
            return run.stdout

        attached = json.loads(noodle("attach", theirs.file.address, "--json"))
        assert "RAY_gcs_storage=rocksdb" in attached["left_to_ray"]
        url = attached["cluster"]["gateway_url"]
        headers = {"Authorization": f"Bearer {token.read_text()}"}
        assert (
            len(httpx.get(f"{url}/api/distributed/nodes", headers=headers, timeout=30).raise_for_status().json()) == 1
        )
        assert json.loads(noodle("status", "--json"))["nodes"][0]["state"] == "alive"
        allocations = f"{url}/api/distributed/resources/allocations"
        httpx.post(allocations, headers=headers, json={"demand": {"cpus": 0.1}}, timeout=30).raise_for_status()
        noodle("down")
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/healthz")
        assert theirs.file.processes[0].is_running()
        with connection(theirs.file.address):
            named = {actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)}
            reserved = [group["name"] for group in placement_group_table().values() if group["state"] != "REMOVED"]
        assert not {name for name in named if name.startswith(("node-", "module-", "service-"))}
        assert not reserved
