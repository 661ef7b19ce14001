"""Hosts made of namespaces: each by itself, joined by a network, and gone afterwards."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from noodle_ray.entry.bench.hosts import Host, hosts, one_order_of_niceness, why_not
from noodle_ray.errors import InvalidInput, Unavailable

PYTHON = str(Path(sys.executable).resolve())  # the one below a virtual environment, which may lie in /tmp
WHY_NOT = why_not()
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=f"there can be no hosts here: {WHY_NOT}")

MAKE = """
import asyncio
from noodle_ray.entry.bench.hosts import hosts
with hosts(1) as [host]:
    print(host.link, flush=True)
    asyncio.run(asyncio.sleep(60))
"""

SERVE = """
import socket
server = socket.create_server(("0.0.0.0", 5000))
print("on", flush=True)
while True:
    server.accept()[0].send(b"hi")
"""


@pytest.fixture(scope="module")
def three() -> Iterator[list[Host]]:
    with hosts(3) as made:
        yield made


@pytest.fixture
def server(three: list[Host]) -> Iterator[Host]:
    """The first host, on which something answers on port 5000."""
    process = subprocess.Popen(three[0].command(PYTHON, "-c", SERVE), stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"on\n"
    yield three[0]
    three[0].thaw()
    process.kill()
    process.wait()
    process.stdout.close()
    for pid in three[0].processes():
        os.kill(pid, 9)


def asked(host: Host, other: Host) -> str:
    """What the one gets from the other's port 5000."""
    ask = f"import socket; print(socket.create_connection(('{other.address}', 5000), 1).recv(9).decode())"
    return host.run("timeout", "3", PYTHON, "-c", f"import socket; socket.setdefaulttimeout(1)\n{ask}").strip()


def wait_until_ended(pids: list[int]) -> None:
    deadline = time.monotonic() + 10
    while (left := [pid for pid in pids if psutil.pid_exists(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []


def test_each_has_a_name_and_an_address_of_its_own(three: list[Host]) -> None:
    assert [host.run("hostname").strip() for host in three] == [host.name for host in three]
    assert len({host.address for host in three}) == 3
    for host in three:
        assert host.address in host.run("ip", "-o", "-4", "addr", "show", "eth0")
        assert three[2].address in host.run("getent", "hosts", three[2].name)


def test_each_has_files_of_its_own(three: list[Host]) -> None:
    first, second, _ = three
    for folder in ("/tmp", "/root", "/dev/shm", "/etc", "/run"):
        first.run("touch", f"{folder}/of-the-first")
        assert "of-the-first" not in second.run("ls", folder)
        assert not Path(folder, "of-the-first").exists()
    assert first.run("cat", "/etc/os-release") == Path("/etc/os-release").read_text()


def test_each_sees_only_its_own_processes(three: list[Host], server: Host) -> None:
    seen = [len(host.run("sh", "-c", "ls -d /proc/[0-9]*").split()) for host in three]
    assert seen[0] == seen[1] + 1 == seen[2] + 1
    assert os.getpid() not in server.processes()


def test_they_reach_each_other_and_this_machine_reaches_them(three: list[Host], server: Host) -> None:
    assert asked(three[1], server) == "hi"
    with closing(socket.create_connection((server.address, 5000), 5)) as connection:
        assert connection.recv(9) == b"hi"


def test_one_that_is_unplugged_is_reached_by_nobody_and_runs_on(three: list[Host], server: Host) -> None:
    server.unplug()
    with pytest.raises(Unavailable, match=r"timed out|No route|unreachable"):
        asked(three[1], server)
    assert asked(server, server) == "hi"
    server.plug_in()
    assert asked(three[1], server) == "hi"


def test_one_that_is_frozen_takes_calls_and_answers_none(three: list[Host], server: Host) -> None:
    server.freeze()
    with pytest.raises(Unavailable, match="timed out"):
        asked(three[1], server)
    server.thaw()
    assert asked(three[1], server) == "hi"


def test_one_that_is_killed_leaves_the_others_alone() -> None:
    with hosts(2) as (first, second):
        first.run("sh", "-c", "sleep 60 >/dev/null 2>&1 &")
        running = [first.process_id, *first.processes()]
        first.kill()
        wait_until_ended(running)
        assert second.run("hostname").strip() == second.name


def test_nothing_is_left() -> None:
    before = _folders()  # a host may have had the same name before, and have been killed with all that ran
    with hosts(2) as made:
        bridge = made[0].name.rpartition("-")[0]
        folders = {folder for folder in _folders() - before if folder.name.startswith(f"{bridge}-")}
        assert len(folders) == 2
        links = {bridge, *(host.link for host in made)}
        assert links <= set(psutil.net_if_addrs())
        made[0].run("sh", "-c", "sleep 60 >/dev/null 2>&1 & dd if=/dev/zero of=/root/much bs=1M count=8 2>/dev/null")
        running = [pid for host in made for pid in (host.process_id, *host.processes())]
        assert len(running) == 5  # with what the first process of each waits for
    wait_until_ended(running)
    assert not links & set(psutil.net_if_addrs())
    assert not folders & _folders()
    assert not Path("/root/much").exists()


def test_nothing_is_left_of_one_whose_maker_is_told_to_end() -> None:
    with subprocess.Popen([sys.executable, "-c", MAKE], stdout=subprocess.PIPE, text=True) as maker:
        assert maker.stdout is not None
        link = maker.stdout.readline().strip()
        assert link in psutil.net_if_addrs()
        maker.terminate()
        assert maker.wait(30) == 128 + signal.SIGTERM
    assert link not in psutil.net_if_addrs()


def _folders() -> set[Path]:
    return set(Path("/tmp").glob("noodle*"))


def test_folders_in_tmp_are_seen_where_that_is_asked(tmp_path: Path) -> None:
    (tmp_path / "told").write_text("yes")
    with hosts(1, keep=[tmp_path]) as [host]:
        assert host.run("cat", str(tmp_path / "told")) == "yes"


def test_what_fails_there_is_told() -> None:
    with hosts(1) as [host]:
        with pytest.raises(Unavailable, match=rf"ls failed on {host.name}: .*nowhere"):
            host.run("ls", "/nowhere")
        with pytest.raises(Unavailable, match="did not end"):
            host.run("sleep", "9", timeout_s=0.1)


@pytest.mark.parametrize("count", [0, 201])
def test_how_many_is_bounded(count: int) -> None:
    with pytest.raises(InvalidInput, match="count"), hosts(count):
        pass


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("sys.platform", "darwin", "Linux"),
        ("os.geteuid", lambda: 1000, "only root"),
        ("shutil.which", lambda tool: None, "not installed"),
        ("_OVERLAY", "echo no such thing >&2; exit 1", "no such thing"),
    ],
)
def test_where_there_can_be_none_the_reason_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, value: object, reason: str
) -> None:
    monkeypatch.setattr(f"noodle_ray.entry.bench.hosts.{name}", value)
    assert reason in why_not()
    with pytest.raises(Unavailable, match=reason), hosts(1):
        pass


def test_niceness_counts_among_all_hosts_for_a_while(tmp_path: Path) -> None:
    setting = tmp_path / "sched_autogroup_enabled"
    setting.write_text("1\n")
    with one_order_of_niceness(setting):
        assert setting.read_text() == "0"
    assert setting.read_text() == "1\n"


def test_where_that_cannot_be_set_all_stays_as_it_is(tmp_path: Path) -> None:
    with one_order_of_niceness(tmp_path / "not" / "there"):
        assert list(tmp_path.iterdir()) == []
