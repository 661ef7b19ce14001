"""The supervisor over processes that only call themselves as Ray's do: what dies of them is started again."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from noodle_ray.entry.cluster import process_session, supervisor

PATIENCE_S = 20.0
RUN = """
run() { "$1" "$2" & until [ ! -e /proc/self ] || [ "/proc/$!/exe" -ef /bin/sleep ]; do sleep 0.01; done; }
"""
"""Starts a process, and goes on when it has its name: until then it is another of this shell."""

START = f"""{RUN}
run "$1/gcs_server" 600
run "$1/raylet" 600
echo started >> "$1/starts"
"""


class Supervised:
    """A supervisor in a session of its own, with a node that is two sleeping processes."""

    def __init__(self, folder: Path, start: str = START) -> None:
        self.folder, self.starts = folder, folder / "starts"
        for name in ("gcs_server", "raylet"):
            (folder / name).symlink_to("/bin/sleep")
        command = supervisor.command_for(["/bin/bash", "-c", start, "bash", str(folder)])
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def pid_of(self, name: str) -> int | None:
        for member in process_session.members(self.process.pid):
            try:
                if member.cmdline()[:1] == [str(self.folder / name)]:
                    return int(member.pid)
            except psutil.NoSuchProcess:
                continue
        return None

    def wait_until_watched(self, times: int = 1) -> None:
        """Before that, a process that dies has died in the start, which whoever started it is told of."""
        until(lambda: self.log.read_text().count(" supervisor: started: ") == times)

    def times_started(self) -> int:
        return self.starts.read_text().count("started") if self.starts.exists() else 0


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Supervised]:
    running = Supervised(tmp_path)
    try:
        running.wait_until_watched()
        yield running
    finally:
        process_session.stop(running.process.pid)
        running.process.wait(5)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_gcs_that_dies_is_started_again_alone(node: Supervised) -> None:
    gcs, raylet = node.pid_of("gcs_server"), node.pid_of("raylet")
    assert gcs is not None
    os.kill(gcs, signal.SIGKILL)
    until(lambda: node.pid_of("gcs_server") not in (None, gcs))
    assert node.pid_of("raylet") == raylet
    assert node.times_started() == 1


def test_with_a_raylet_that_dies_the_whole_node_is_started_again(node: Supervised) -> None:
    gcs, raylet = node.pid_of("gcs_server"), node.pid_of("raylet")
    assert raylet is not None
    os.kill(raylet, signal.SIGKILL)
    until(lambda: node.pid_of("raylet") not in (None, raylet))
    until(lambda: node.pid_of("gcs_server") not in (None, gcs))
    node.wait_until_watched(2)
    assert node.times_started() == 2


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody is told how a stranger's process ended")
def test_a_node_that_is_told_to_leave_is_not_started_again(node: Supervised) -> None:
    raylet = node.pid_of("raylet")
    assert raylet is not None
    os.kill(raylet, signal.SIGTERM)
    node.process.wait(PATIENCE_S)
    assert process_session.members(node.process.pid) == []
    assert node.times_started() == 1


def test_ending_the_session_ends_all_of_it(node: Supervised) -> None:
    assert process_session.stop(node.process.pid) == 3
    assert process_session.members(node.process.pid) == []


@pytest.mark.parametrize("start", ["exit 3", f'{RUN} run "$1/gcs_server" 600'], ids=["fails", "no raylet"])
def test_a_node_that_does_not_start_at_all_ends_the_supervisor(tmp_path: Path, start: str) -> None:
    running = Supervised(tmp_path, start)
    try:
        assert running.process.wait(PATIENCE_S) != 0
    finally:
        process_session.stop(running.process.pid)


DIES_AT_SECOND = f"""{RUN}
echo started >> "$1/starts"
run "$1/gcs_server" 600
run "$1/raylet" $([ $(wc -l < "$1/starts") = 2 ] && echo 3 || echo 600)
[ $(wc -l < "$1/starts") != 2 ] || sleep 60
"""


def test_a_raylet_that_dies_while_it_is_started_is_not_waited_for(tmp_path: Path) -> None:
    """The second one: the first start is its caller's, who is told at once that it failed."""
    running = Supervised(tmp_path, DIES_AT_SECOND)
    try:
        running.wait_until_watched()
        first = running.pid_of("raylet")
        assert first is not None
        os.kill(first, signal.SIGKILL)
        until(lambda: running.times_started() == 3)
        assert "the raylet has died while it was started" in running.log.read_text()
    finally:
        process_session.stop(running.process.pid)
        running.process.wait(5)


SAYS_ITS_NICENESS = f"""{RUN}
echo "started $(nice) $RAY_worker_niceness" >> "$1/starts"
[ $(wc -l < "$1/starts") != 2 ] || exit 1
run "$1/gcs_server" 600
run "$1/raylet" 600
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may go ahead of others")
def test_a_start_after_one_that_failed_goes_ahead_of_others_until_it_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_worker_niceness", "5")
    running = Supervised(tmp_path, SAYS_ITS_NICENESS)
    try:
        for times in (1, 2):  # the start between them fails
            running.wait_until_watched(times)
            raylet, gcs = running.pid_of("raylet"), running.pid_of("gcs_server")
            assert raylet is not None and gcs is not None
            until(lambda raylet=raylet: os.getpriority(os.PRIO_PROCESS, raylet) == os.nice(0) + 5)
            until(lambda gcs=gcs: os.getpriority(os.PRIO_PROCESS, gcs) == os.nice(0) - supervisor.AHEAD)
            os.kill(raylet, signal.SIGKILL)
        until(lambda: running.times_started() == 4)
        usual, failed, ahead, after = running.starts.read_text().splitlines()[:4]
        assert usual == failed == after == f"started {os.nice(0)} 0"
        assert ahead == f"started {os.nice(0) - supervisor.AHEAD} 0"
    finally:
        process_session.stop(running.process.pid)
        running.process.wait(5)


def test_a_password_is_handed_to_heads_alone() -> None:
    variables = {"RAY_REDIS_ADDRESS": "here:6379", "RAY_REDIS_PASSWORD": "secret"}
    options = supervisor.redis_options(["ray", "start", "--head"], variables)
    assert options == ["--redis-password=secret"]
    assert supervisor.redis_options(["ray", "start", "--address=x"], variables) == []
    assert supervisor.redis_options(["ray", "start", "--head"], {"RAY_REDIS_PASSWORD": "secret"}) == []
