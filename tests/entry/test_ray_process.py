"""Ending processes: all of a session of ours, and nothing else; and where Ray's files and ports go."""

import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from noodle_ray.entry.cluster import process_session, ray_process
from noodle_ray.entry.cluster.cluster_file import StartedProcess
from noodle_ray.entry.cluster.ray_process import NodeOptions
from noodle_ray.errors import Conflict, Unavailable
from noodle_ray.resources import NodeResources
from noodle_ray.settings import read_settings

# A leader with a child in a process group of its own, as Ray's workers are; both ignore SIGTERM if asked to.
FAMILY = """
import os, signal, sys, time
if sys.argv[1] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setpgid(0, 0)
print("ready", flush=True)
time.sleep(60)
"""


def family(kind: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", FAMILY, kind], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.readline()
    return process


def test_ends_the_whole_session_and_nobody_else() -> None:
    ours, others = family("polite"), family("polite")
    try:
        assert ray_process.stop(StartedProcess.of(ours.pid, "head", "x")) == 2
        ours.wait(5)
        assert process_session.members(ours.pid) == []
        assert len(process_session.members(others.pid)) == 2
    finally:
        process_session.stop(others.pid)
        for process in (ours, others):
            process.wait(5)
            assert process.stdout is not None
            process.stdout.close()


def test_makes_those_end_that_will_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_session, "STOP_TIMEOUT_S", 0.3)
    ours = family("stubborn")
    ray_process.stop(StartedProcess.of(ours.pid, "head", "x"))
    ours.wait(5)
    assert process_session.members(ours.pid) == []
    assert ours.stdout is not None
    ours.stdout.close()


def test_ends_what_a_dead_leader_left_behind() -> None:
    ours = family("polite")
    started = StartedProcess.of(ours.pid, "head", "x")
    ours.kill()
    ours.wait(5)
    assert ray_process.stop(started) == 1
    assert ours.stdout is not None
    ours.stdout.close()


def test_leaves_a_later_process_with_the_same_number_alone() -> None:
    others = family("polite")
    try:
        ours = StartedProcess.of(others.pid, "head", "x").model_copy(update={"started_at": 1.0})
        assert ray_process.stop(ours) == 0
        assert psutil.pid_exists(others.pid)
    finally:
        process_session.stop(others.pid)
        others.wait(5)
        assert others.stdout is not None
        others.stdout.close()


def test_a_taken_port_is_refused_and_a_free_one_is_found() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Conflict, match=f"port {port} is taken on 127.0.0.1"):
            ray_process.require_port(port, "127.0.0.1")
        assert ray_process.free_port(port, "127.0.0.1") != port
    assert ray_process.require_port(port, "127.0.0.1") == port


def test_a_quiet_port_is_one_that_linux_gives_nobody() -> None:
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert not first <= ray_process.quiet_port() <= last
    ports = ray_process.quiet_ports(5)
    assert len(set(ports)) == 5
    assert not any(first <= port <= last for port in ports)


def test_a_long_path_gets_a_short_place_for_sockets(tmp_path: Path) -> None:
    assert ray_process.runtime_dir_for(Path("/home/u/.noodle-ray")) == Path("/home/u/.noodle-ray/ray")
    assert len(str(ray_process.haproxy_dir_for(Path("/home/u/.noodle-ray")))) < 28
    long = ray_process.runtime_dir_for(Path("/home/" + "x" * 60))
    assert len(str(long)) < 40
    assert long != ray_process.runtime_dir_for(Path("/home/" + "y" * 60))


def test_the_environment_holds_what_was_measured_and_the_settings(tmp_path: Path) -> None:
    settings = read_settings({"NOODLE_STATE_DIR": str(tmp_path), "NOODLE_NODE_TIMEOUT": "5000"})
    environment = ray_process.ray_environment(settings, tmp_path / "token")
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["RAY_gcs_storage_path"] == str(tmp_path / "gcs")
    assert environment["NOODLE_NODE_TIMEOUT"] == "5000"
    assert all(isinstance(value, str) for value in environment.values())


def test_what_ray_says_when_it_does_not_start_reaches_the_user(tmp_path: Path) -> None:
    settings = read_settings({"NOODLE_STATE_DIR": str(tmp_path)})
    environment = ray_process.ray_environment(settings, tmp_path / "token")
    (tmp_path / "token").write_text("x" * 32)
    node = NodeOptions("127.0.0.9", "bad", NodeResources.of(cpus=1, custom_units={"CPU": 1}))
    with pytest.raises(Unavailable, match=r"the head node did not start: .*CPU"):
        ray_process.start_head(node, 0, 0, environment, tmp_path / "logs")
    assert not [p for p in psutil.process_iter(["cmdline"]) if "127.0.0.9" in " ".join(p.info["cmdline"] or ())]
    ray_process.remove_runtime(tmp_path)
    assert [log.name for log in (tmp_path / "logs").iterdir()] == ["head-127.0.0.9.log"]
