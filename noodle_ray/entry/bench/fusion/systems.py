"""The systems under load: where each answers, how it is asked, and what its processes use of the CPUs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import httpx
import psutil

from noodle_ray.entry.bench.fusion.load_generator import STARTED, Asked, Load, Target
from noodle_ray.entry.cluster import launch, process_session, ray_process
from noodle_ray.entry.cluster.cluster_file import read_token
from noodle_ray.entry.cluster.local_cluster import LocalCluster, local_cluster
from noodle_ray.errors import Unavailable

PACKAGE = "noodle_ray.entry.bench.fusion"
START_S, END_S = 180.0, 60.0


@dataclass(frozen=True, slots=True)
class System:
    """A running system. `sessions`: the numbers of the process sessions that its processes belong to."""

    name: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    sessions: tuple[int, ...] = ()

    def cpu_seconds(self) -> dict[int, float]:
        """What each of its processes has used so far, by pid."""
        found = {}
        for session in self.sessions:
            for process in process_session.members(session):
                with suppress(psutil.NoSuchProcess):
                    found[process.pid] = float(sum(process.cpu_times()[:2]))
        return found


@contextmanager
def noodle_ray(progress: Callable[[str], None]) -> Iterator[tuple[System, LocalCluster]]:
    """Ours, on a cluster of its own: what is asked is its gateway."""
    with local_cluster(launch.UpOptions(), progress) as cluster:
        headers = {"Authorization": f"Bearer {read_token(cluster.settings.state_dir)}"}
        sessions = tuple(process.pid for process in cluster.file.processes)
        yield System("noodle-ray", f"{cluster.file.gateway_url}/api/ai/fusion", headers, sessions), cluster


@contextmanager
def rival(name: str, cache_dir: Path, pack: str) -> Iterator[System]:
    """Starts the rival in a process of its own, waits until it answers, and ends it afterwards.

    Raises Unavailable with its own last words where it does not start.
    """
    port = ray_process.free_port(0, "127.0.0.1")
    url = f"http://127.0.0.1:{port}/fusion"
    with tempfile.TemporaryDirectory(prefix="noodle-rival-") as folder:
        log = Path(folder) / "log"
        with log.open("wb") as errors:
            process = _start("rivals", [name, str(port), str(cache_dir), pack], errors)
        try:
            sessions = _sessions(process, log)
            _wait_until_it_answers(process, url, log)
            yield System(name, url, {}, sessions)
        finally:
            _end(process)


def _start(module: str, arguments: list[str], errors: IO[bytes] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", f"{PACKAGE}.{module}", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env=dict(os.environ),
        start_new_session=True,  # all that it starts is found, and ended, by this session's number
    )


def _sessions(process: subprocess.Popen[str], log: Path) -> tuple[int, ...]:
    """Its own session, and those that it names in its first line."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise Unavailable(f"it did not start: {_last_line(log)}")
    return (process.pid, *json.loads(line)["sessions"])


def _wait_until_it_answers(process: subprocess.Popen[str], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_S
    body = {"text": "ready", "candidates": ["ready", "not ready"]}
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise Unavailable(f"it ended: {_last_line(log)}")
        with suppress(httpx.TransportError):
            if httpx.post(url, json=body, timeout=30).status_code == 200:
                return
        time.sleep(0.2)
    raise Unavailable(f"it did not answer within {START_S:g} s: {_last_line(log)}")


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def _end(process: subprocess.Popen[str]) -> None:
    """Closes what it reads, which asks it to end; what is left of its session after a while is made to."""
    assert process.stdin is not None and process.stdout is not None
    with suppress(BrokenPipeError):
        process.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_S)
    process_session.stop(process.pid)
    process.wait()
    process.stdout.close()


class Generator:
    """The load generator's process, with one target."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, load: Load, meanwhile: Callable[[], Any] = lambda: None) -> list[Asked]:
        """Plays the load; `meanwhile` is called when it starts, and may take its time. Raises Unavailable."""
        assert self._process.stdin is not None
        self._process.stdin.write(load.model_dump_json() + "\n")
        self._process.stdin.flush()
        self._expect(STARTED)
        meanwhile()
        return [Asked.model_validate(one) for one in json.loads(self._line())]

    def _expect(self, word: str) -> None:
        if (line := self._line().strip()) != word:
            raise Unavailable(f"the load generator said {line!r}")

    def _line(self) -> str:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise Unavailable("the load generator ended")
        return line


def generator(system: System, cache_dir: Path) -> AbstractContextManager[Generator]:
    """A process that asks this system."""
    return _asking("load_generator", [], Target(url=system.url, headers=dict(system.headers), cache_dir=cache_dir))


def in_process(cache_dir: Path, pack: str) -> AbstractContextManager[Generator]:
    """A process that has the encoders itself and asks them."""
    return _asking("in_process", [pack], Target(url="", headers={}, cache_dir=cache_dir))


@contextmanager
def _asking(module: str, arguments: list[str], target: Target) -> Iterator[Generator]:
    process = _start(module, arguments)
    try:
        assert process.stdin is not None
        process.stdin.write(target.model_dump_json() + "\n")
        process.stdin.flush()
        yield Generator(process)
    finally:
        _end(process)
