"""The cluster file and the token: what was started is found again, and nobody else reads the token."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from noodle_ray.entry.cluster.cluster_file import (
    ClusterFile,
    StartedProcess,
    cluster_path,
    ensure_token,
    read_cluster,
    read_token,
)
from noodle_ray.errors import CorruptData, NotFound


@pytest.fixture(autouse=True)
def no_token_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)


def test_saved_and_read_again(tmp_path: Path) -> None:
    mine = StartedProcess.of(os.getpid(), "head", "127.0.0.2")
    cluster = ClusterFile(address="127.0.0.2:6379", dashboard_url="", gateway_url="", processes=(mine,))
    cluster.save(tmp_path / "new")
    assert read_cluster(tmp_path / "new") == cluster


def test_no_cluster_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=f"no running cluster '{tmp_path}'"):
        read_cluster(tmp_path)


def test_a_broken_file_says_what_mends_it(tmp_path: Path) -> None:
    cluster_path(tmp_path).write_text('{"address": 3}')
    with pytest.raises(CorruptData, match="remove it, and `noodle up` anew"):
        read_cluster(tmp_path)


def test_a_process_is_known_by_its_start_time() -> None:
    mine = StartedProcess.of(os.getpid(), "head", "x")
    assert mine.is_running()
    assert not mine.model_copy(update={"started_at": mine.started_at - 1}).is_running()
    child = subprocess.Popen([sys.executable, "-c", ""])
    ended = StartedProcess.of(child.pid, "worker", "x")
    child.wait()
    assert not ended.is_running()


def test_the_token_is_made_once_and_private(tmp_path: Path) -> None:
    path = ensure_token(tmp_path / "state")
    token = read_token(tmp_path / "state")
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(token) >= 32
    path.chmod(0o644)
    assert ensure_token(tmp_path / "state").read_text() == token
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_missing_token_says_where(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="cluster token"):
        read_token(tmp_path)
