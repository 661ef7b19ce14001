"""The process beside each Ray node that `noodle up` or `noodle join` started: what dies of the node, it starts again.

`ray start --block` ends the whole node when one of its processes dies. Here a GCS that died is back in a second, while
raylets, actors and the HTTP service go on. This process never imports Ray, so it is small.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import psutil

from noodle_ray.entry.cluster import process_session
from noodle_ray.errors import DeadlineExceeded, NoodleError, Unavailable
from noodle_ray.nodes.supervision import NODE, RAYLET, Ending, Leave, Restart, Supervision
from noodle_ray.precedence import AHEAD, move

START_TIMEOUT_S = 90.0
LOOK_S, START_LOOK_S = 0.2, 1.0
"""How often it is looked whether everything runs, and how often while it is started."""

WORKER_NICENESS = "RAY_worker_niceness"
"""Of Ray's: how far a worker goes behind its raylet, but only when it has imported Ray, a second or more after its
start. Here the thread of the raylet that starts workers goes there itself: they are there from the first."""

END_S = 5.0
TOKEN_PATH = "RAY_AUTH_TOKEN_PATH"  # noqa: S105  (a variable's name)

_PR_SET_CHILD_SUBREAPER = 36

_ROLES = {
    "gcs_server": re.compile(r"/gcs_server$"),
    "raylet": re.compile(r"/raylet$"),
    "dashboard": re.compile(r"/dashboard/dashboard\.py$"),
    "monitor": re.compile(r"/autoscaler/.*monitor\.py$"),
    "log_monitor": re.compile(r"/log_monitor\.py$"),
    "client_server": re.compile(r"^ray\.util\.client\.server$"),
}
"""What `ray start` starts, by a word of its command line. The raylet looks after workers and agents by itself."""

_FIRST = {"gcs_server"}


@dataclass(frozen=True, slots=True)
class Part:
    """A process of the node, and how it was started."""

    process: psutil.Process
    command: tuple[str, ...]
    environment: dict[str, str]
    folder: str

    @classmethod
    def of(cls, process: psutil.Process) -> Part:
        return cls(process, tuple(process.cmdline()), process.environ(), process.cwd())

    def runs(self) -> bool:
        return _runs(self.process)

    def start(self) -> Part:
        """The same again."""
        nowhere = subprocess.DEVNULL  # each writes a log file of its own
        started = subprocess.Popen(
            self.command, env=self.environment, cwd=self.folder, stdin=nowhere, stdout=nowhere, stderr=nowhere
        )
        started.returncode = 0  # reaped with all others
        return Part(psutil.Process(started.pid), self.command, self.environment, self.folder)


class Supervisor:
    """Starts a node by a command, and keeps it running until this process is told to end, or the node to leave."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._rules = Supervision()
        self._parts: dict[str, Part] = {}
        self._missing: dict[str, Part] = {}
        self._endings: dict[int, Ending] = {}
        self._due: dict[str, float] = {}
        self._has_failed = False
        self.over = Event()

    def run(self) -> int:
        """Its exit code: that of the command, where the node did not start at all."""
        code = self._start_node()
        while code == 0 and not self.over.wait(LOOK_S):
            self._reap()
            self._look()
            self._start_what_is_due()
        return code

    def _start_node(self) -> int:
        code = self._started()
        self._has_failed = code != 0
        return code

    def _started(self) -> int:
        try:
            command = [*self._command, *redis_options(self._command, os.environ)]
            ahead = self._has_failed and os.geteuid() == 0
            code = _start(command, ahead)
            if ahead:
                _go_back()
        except (DeadlineExceeded, Unavailable, OSError) as error:
            _log(f"not started: {error}")
            code = 1
        self._parts = dict(_parts()) if code == 0 else {}
        if code == 0 and RAYLET not in self._parts:
            _log("the raylet has ended already")
            return 1
        for role, part in self._parts.items():
            _place(role, part)
        if code == 0:
            _log(f"started: {', '.join(self._parts)}")
        return code

    def _reap(self) -> None:
        """As the parent of all that has lost its own, this process learns how each ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            self._endings[pid] = "asked" if os.waitstatus_to_exitcode(status) in (0, -signal.SIGTERM) else "died"

    def _look(self) -> None:
        if all(part.runs() for part in self._parts.values()) or self.over.wait(LOOK_S):
            return  # whoever ends all of the node ends this process with it
        ended = {role: part for role, part in self._parts.items() if not part.runs()}
        self._reap()
        endings = {role: self._endings.get(part.process.pid, "died") for role, part in ended.items()}
        for part in ended.values():
            self._endings.pop(part.process.pid, None)
        _log(f"ended: {', '.join(f'{role} ({how})' for role, how in endings.items())}")
        self._missing |= ended
        self._parts = {role: part for role, part in self._parts.items() if role not in ended}
        for order in self._rules.ended(endings, time.monotonic()):
            self._obey(order)

    def _obey(self, order: Restart | Leave) -> None:
        if isinstance(order, Leave):
            _log("the node was told to leave")
            _end_the_others()
            self.over.set()
            return
        if order.what == NODE:  # all that is left of it is of no use to the next
            _end_the_others()
            self._parts, self._missing, self._due = {}, {}, {}
        self._due[order.what] = time.monotonic() + order.after_s

    def _start_what_is_due(self) -> None:
        for what in [what for what, at in self._due.items() if at <= time.monotonic()]:
            del self._due[what]
            _log(f"starting: {what}")
            if self.over.is_set():
                return
            if what == NODE and self._start_node():
                _end_the_others()
                self._obey(self._rules.failed(NODE, time.monotonic()))
            elif what != NODE:
                self._start_part(what)

    def _start_part(self, role: str) -> None:
        try:
            self._parts[role] = self._missing[role].start()
            _place(role, self._parts[role])
        except (OSError, psutil.NoSuchProcess) as error:
            _log(f"{role} did not start: {error}")
            self._obey(self._rules.failed(role, time.monotonic()))
            return
        del self._missing[role]


def redis_options(command: Sequence[str], variables: Mapping[str, str]) -> list[str]:
    """Who a head is to Redis: Ray reads no variables for it. Given here, so that it is in no file of ours."""
    if "--head" not in command or not variables.get("RAY_REDIS_ADDRESS"):
        return []
    given = {"--redis-username": "RAY_REDIS_USERNAME", "--redis-password": "RAY_REDIS_PASSWORD"}
    return [f"{option}={variables[name]}" for option, name in given.items() if variables.get(name)]


def _start(command: Sequence[str], ahead: bool = False) -> int:
    """Runs Ray's starter to its end; its exit code. Raises DeadlineExceeded, and Unavailable when its raylet has died.

    The starter itself would wait half a minute for a raylet that has died. ahead: of all others; takes root.
    """
    starter, raylet = _ahead_of_others(command) if ahead else _starter(command), None
    end = time.monotonic() + START_TIMEOUT_S
    try:
        while time.monotonic() < end:
            with suppress(subprocess.TimeoutExpired):
                return starter.wait(START_LOOK_S)
            if raylet is not None and not raylet.runs():
                raise Unavailable("the raylet has died while it was started")
            raylet = raylet or dict(_parts()).get(RAYLET)
        raise DeadlineExceeded("Ray's starter", START_TIMEOUT_S * 1000)
    finally:
        starter.kill()
        starter.wait()


def _starter(command: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, env={**os.environ, WORKER_NICENESS: "0"})


def _ahead_of_others(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """The starter gets its place from this process, for whatever it starts at once has it, too.

    Where processors are few, a raylet waits for its agent in vain and dies, and starting it again and again is what
    holds the agents up.
    """
    place = os.getpriority(os.PRIO_PROCESS, 0)
    try:
        os.setpriority(os.PRIO_PROCESS, 0, place - AHEAD)
    except PermissionError:  # the root of a container may not
        return _starter(command)
    try:
        return _starter(command)
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, place)


def _place(role: str, part: Part) -> None:
    """What all others wait for goes ahead of them, and what starts workers behind."""
    with suppress(PermissionError, ProcessLookupError):
        if role in _FIRST:
            move(part.process, -AHEAD)
        elif role == RAYLET:
            place = os.getpriority(os.PRIO_PROCESS, 0) + int(os.environ.get(WORKER_NICENESS, "0"))
            os.setpriority(os.PRIO_PROCESS, part.process.pid, place)  # its first thread alone


def _go_back() -> None:
    """What was started ahead of others goes back to its place: its workers are to start behind those that answer."""
    for process in process_session.members(os.getsid(0)):
        if process.pid != os.getpid() and process.nice() < os.getpriority(os.PRIO_PROCESS, 0):
            move(process, AHEAD)


def _parts() -> Iterator[tuple[str, Part]]:
    for process in process_session.members(os.getsid(0)):
        try:
            part = Part.of(process)
        except psutil.NoSuchProcess:
            continue
        words = part.command[:4]
        for role, word in _ROLES.items():
            if any(map(word.search, words)):
                yield role, part


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _end_the_others() -> None:
    """All of this session but this process, at once: a raylet is not asked, for what it ran is lost anyway."""
    others = [process for process in process_session.members(os.getsid(0)) if process.pid != os.getpid()]
    for process in others:
        process_session.send(process, signal.SIGKILL)
    psutil.wait_procs(others, timeout=END_S)


def _log(text: str) -> None:
    sys.stdout.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} supervisor: {text}\n")
    sys.stdout.flush()


def _adopt_orphans() -> None:
    """Makes this process the parent of what Ray's starter leaves behind: so it is told how each of them ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def command_for(start: Sequence[str], announce: Sequence[str] = ()) -> list[str]:
    """The command that starts a node by this one, and keeps it running.

    announce: the cluster's name, and its address on the network, which is told there as long as this lasts.
    """
    options = ["--announce", *announce] if announce else []
    return [sys.executable, "-m", "noodle_ray.entry.cluster.supervisor", *options, "--", *start]


def main() -> None:
    parser = argparse.ArgumentParser(description="Starts a Ray node, and keeps it running.")
    parser.add_argument("--announce", nargs=2, metavar=("NAME", "ADDRESS"))
    parser.add_argument("command", nargs="+")
    asked = parser.parse_args()
    _adopt_orphans()
    supervisor = Supervisor(asked.command)
    signal.signal(signal.SIGTERM, lambda number, frame: supervisor.over.set())
    with _announcing(*asked.announce) if asked.announce else nullcontext():
        code = supervisor.run()
    sys.exit(code)


@contextmanager
def _announcing(name: str, address: str) -> Iterator[None]:
    """A network that cannot be announced to is no reason for a head not to run."""
    from noodle_ray.entry.cluster.announcing import Announcing

    token = Path(os.environ[TOKEN_PATH]).read_text().strip()
    with ExitStack() as while_it_runs:
        try:
            while_it_runs.enter_context(Announcing(name=name, address=address, token=token))
        except NoodleError as error:
            _log(f"not announced: {error}")
        yield


if __name__ == "__main__":
    main()
