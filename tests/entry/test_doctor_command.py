"""noodle doctor as a stranger calls it: in a process of its own, over state directories that are well or are not."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from noodle_ray.entry.cluster.cluster_file import ClusterFile, StartedProcess
from noodle_ray.entry.doctor import examination
from noodle_ray.entry.doctor.finding import Finding
from noodle_ray.settings import read_settings

ROOT = Path(__file__).parents[2]
SECRET = "this-is-the-secret-of-the-cluster"
RUN = "from noodle_ray.entry.cli.main import run; run()"


def doctor(state_dir: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NOODLE_", "RAY_"))}
    environment = {**kept, "NOODLE_STATE_DIR": str(state_dir), **variables}
    command = [sys.executable, "-c", RUN, "doctor", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)


def states(said: subprocess.CompletedProcess[str]) -> dict[str, str]:
    return {one["name"]: one["state"] for one in json.loads(said.stdout)["findings"]}


def test_an_empty_state_directory_is_looked_at_and_left_empty(tmp_path: Path) -> None:
    state = tmp_path / "state"
    said = doctor(state, "--json")
    found = states(said)
    assert found["cluster"] == found["redis"] == found["token"] == "skipped"
    assert {"python", "packages", "memory", "disk: state", "port 6379", "weights", "database", "leftovers"} <= set(
        found
    )
    assert said.returncode == (1 if "fail" in found.values() else 0), said.stdout
    assert not state.exists()


def test_what_is_wrong_is_told_with_what_to_do(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(SECRET)
    token.chmod(0o644)
    (tmp_path / "noodle.sqlite").write_text("no database" * 100)
    dead = StartedProcess(pid=os.getpid(), started_at=1.0, role="head", node_address="127.0.0.2")
    ClusterFile(address="127.0.0.2:6379", dashboard_url="", gateway_url="", processes=(dead,)).save(tmp_path)
    password = {"RAY_REDIS_ADDRESS": "127.0.0.1:1", "RAY_REDIS_PASSWORD": SECRET}
    said = doctor(tmp_path, **password, COLUMNS="1000")  # so that no line is broken, however long the path is
    assert said.returncode == 1
    for words in ("chmod 600", "is not a database", "head 127.0.0.2 ended", "does not answer", " fail, "):
        assert words in said.stdout, said.stdout
    assert SECRET not in said.stdout + said.stderr
    found = states(doctor(tmp_path, "--json", **password))
    assert [found[name] for name in ("token", "database", "cluster", "redis")] == ["fail"] * 4
    assert found["ray"] == "skipped"


def test_a_cluster_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_text("{")
    assert states(doctor(tmp_path, "--json"))["cluster file"] == "fail"


def test_a_check_that_fails_itself_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def trip(*arguments: Any) -> Finding:
        raise OSError("the disk is on fire")

    monkeypatch.setattr(examination, "check_weights", trip)
    settings = read_settings({"NOODLE_STATE_DIR": str(tmp_path)})
    found = {one.name: one for one in examination.examine(settings, {})}
    assert found["weights"].found == "could not be looked at: OSError: the disk is on fire"
    assert found["leftovers"].state == "ok"


def test_a_running_cluster_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens there, so what asks Ray and the gateway is seen to fail."""
    alive = StartedProcess.of(os.getpid(), "head", "127.0.0.2")
    url = "http://127.0.0.1:1"
    ClusterFile(address="127.0.0.1:1", dashboard_url="", gateway_url=url, processes=(alive,)).save(tmp_path)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    found = {one.name: one for one in examination.examine(read_settings({"NOODLE_STATE_DIR": str(tmp_path)}), {})}
    assert found["cluster"].state == "ok"
    assert {name: found[name].state for name in ("token", "ray", "gateway", "port 1")} == dict.fromkeys(
        ("token", "ray", "gateway", "port 1"), "fail"
    )
    assert found["clock"].state == found["clocks of nodes"].state == "skipped"
