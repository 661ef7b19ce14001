"""`ray up cluster.yaml` over ssh onto three hosts: the project's own file, but for what `adapted` changes."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from noodle_ray.entry.bench import host_ssh
from noodle_ray.entry.bench.hosts import Host, hosts, why_not
from noodle_ray.fusion_models.packs import pack_directory
from noodle_ray.settings import read_settings

ROOT = Path(__file__).parents[2]
UP_S, JOB_S, STATUS_S, DOWN_S, ENDED_S = 420, 240, 120, 120, 150
"""Far beyond what each takes: the machine may be busy."""

OTHER_PYTHON = """
mkdir -p /opt/other/bin
printf '#!/bin/sh\\necho the wrong one\\nexit 1\\n' | tee /opt/other/bin/python > /opt/other/bin/ray
chmod +x /opt/other/bin/*
echo 'export PATH=/opt/other/bin:$PATH' > ~/.bashrc
"""
"""The head's account has another Python and another Ray first on its PATH, as pyenv and conda do."""

IMPATIENT = "export RAY_gcs_rpc_server_reconnect_timeout_s=10"
"""Workers look for a head that is gone for so long, instead of for a minute."""

WHY_NOT = why_not() or host_ssh.why_not()
pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(bool(WHY_NOT), reason=f"there can be no hosts here: {WHY_NOT}"),
]


@dataclass(frozen=True, slots=True)
class Up:
    """A cluster that `ray up` started; hosts[0] is its head."""

    hosts: list[Host]
    file: Path
    environment: dict[str, str]
    said: str

    def ray(self, *words: str, timeout_s: float) -> str:
        return ray(self.environment, *words, timeout_s=timeout_s)

    def on_head(self, command: str, timeout_s: float) -> str:
        """By `ray exec`, which is how the operator gets there. Its terminal ends lines with a carriage return."""
        return self.ray("exec", str(self.file), command, timeout_s=timeout_s).replace("\r", "")


def ray(environment: dict[str, str], *words: str, timeout_s: float) -> str:
    done = subprocess.run(
        [f"{sys.prefix}/bin/ray", *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-6000:]
    return said


def adapted(config: dict[str, Any], name: str, made: list[Host], key: Path, token: Path) -> dict[str, Any]:
    """cluster.yaml for these hosts, which have this machine's virtual environment: installing it thrice takes long."""
    head, *workers = (host.address for host in made)
    *kept, make_setup, path = config["setup_commands"]
    *before, start = config["worker_start_ray_commands"]
    assert "make setup" in make_setup
    assert "bashrc" in path
    cache = read_settings().cache_dir
    installed = [
        f"ln -sfn {sys.prefix} ~/noodle-ray/.venv",
        f"mkdir -p ~/.cache && {{ [ ~/.cache/noodle-ray -ef {cache} ] || ln -sfn {cache} ~/.cache/noodle-ray; }}",
    ]
    return {
        **config,
        "cluster_name": name,
        "provider": {"type": "local", "head_ip": head, "worker_ips": workers},
        "auth": {"ssh_user": "root", "ssh_private_key": str(key)},
        "file_mounts": {"~/noodle-ray": str(ROOT), "~/.noodle-ray/token": str(token)},
        "rsync_exclude": [*config["rsync_exclude"], "**/.venv", "**/.hypothesis/**"],
        "setup_commands": [*kept, *installed, path],
        "worker_start_ray_commands": [*before, f"{IMPATIENT} && {start}"],
    }


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    settings = read_settings()
    if not pack_directory(settings.pack, settings.cache_dir).exists():
        pytest.skip("the encoders' weights are missing: `noodle models fetch` brings them")
    folder = tmp_path_factory.mktemp("up")
    token = folder / "token"
    token.write_text(secrets.token_urlsafe(32))
    token.chmod(0o600)
    environment = {
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "RAY_TMPDIR": str(folder),
        "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}",
    }
    in_tmp = [path for path in (ROOT, Path(sys.prefix), settings.cache_dir) if path.is_relative_to("/tmp")]
    with hosts(3, keep=in_tmp) as made:
        for host in made:
            host.run("/bin/bash", "-c", "rm -rf ~/.noodle-ray ~/.bashrc")  # a host where nobody has been yet
        made[0].run("/bin/bash", "-c", OTHER_PYTHON)
        key = host_ssh.serve_ssh(made, folder)
        config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
        file = folder / "cluster.yaml"
        file.write_text(yaml.safe_dump(adapted(config, f"noodle-{secrets.token_hex(4)}", made, key, token)))
        said = ray(environment, "up", "--yes", "--no-config-cache", str(file), timeout_s=UP_S)
        yield Up(made, file, environment, said)


def alive(up: Up) -> set[str]:
    """Addresses of the nodes that the head's status has as alive."""
    return set(re.findall(r"^(\S+) +\w+ +alive\b", up.on_head("noodle status", STATUS_S), re.MULTILINE))


def test_the_workers_join(up: Up) -> None:
    deadline = time.monotonic() + STATUS_S
    wanted = {host.address for host in up.hosts}
    while (seen := alive(up)) != wanted and time.monotonic() < deadline:
        time.sleep(2)
    assert seen == wanted, up.on_head("tail -n 80 /tmp/ray/session_latest/logs/monitor.*", STATUS_S)


def test_the_token_is_nobody_elses(up: Up) -> None:
    for host in up.hosts:
        assert host.run("/bin/bash", "-c", "stat -c %a ~/.noodle-ray/token").strip() == "600"


def test_a_driver_script_runs_there_as_a_job(up: Up) -> None:
    submit = "ray job submit --address http://127.0.0.1:8265 --working-dir ~/noodle-ray"
    said = up.on_head(f'eval "$(noodle environment)"; {submit} -- python examples/first_light.py', JOB_S)
    assert "GET /api/distributed/nodes → 3 nodes" in said, said[-3000:]
    assert "POST /api/ai/fusion → 'waiting with a cup of coffee'" in said, said[-3000:]
    assert "succeeded" in said


def test_down_leaves_nothing_behind(up: Up) -> None:
    up.ray("down", "--yes", str(up.file), timeout_s=DOWN_S)
    assert processes_of_ray(up.hosts[:1]) == []
    # Ray's `local` provider stops the head only. Workers end by themselves when they have looked for it long enough.
    deadline = time.monotonic() + ENDED_S
    while (left := processes_of_ray(up.hosts)) and time.monotonic() < deadline:
        time.sleep(1)
    assert left == []


def processes_of_ray(made: list[Host]) -> list[str]:
    """Ray's processes on the hosts."""
    found = []
    for host in made:
        for pid in host.processes():
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:  # it has just ended
                continue
            if "/raylet" in words or "gcs_server" in words or words.startswith("ray::") or "noodle_ray" in words:
                found.append(f"{host.name}: {words[:80]}")
    return found
