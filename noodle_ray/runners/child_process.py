"""A child process with a connection to it: started with next to nothing of ours, watched, and ended with its group."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import noodle_ray

TERMINATE_S = 1.0
"""How long it may take to end when it is asked to, before it is killed."""

KEPT_OUTPUT_BYTES = 64 * 2**10
READ_BYTES = 2**20
PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")
"""What it gets of this process's environment: nothing in which a token could be."""


class ChildProcess:
    """A process that runs `module`, an importable name, with the arguments (file descriptor, this process's id).

    It has a session of its own, and a home that goes with it. Walls around it (seccomp, namespaces) are still to come:
    it runs as this user, and what leaves its session outlives it. Raises OSError where it cannot be started.
    """

    def __init__(self, module: str) -> None:
        self._home = tempfile.mkdtemp(prefix="noodle-module-")
        self._connection, theirs = socket.socketpair()
        try:
            self._process = _start(module, theirs, self._home)
        except OSError:
            self._connection.close()
            shutil.rmtree(self._home, ignore_errors=True)
            raise
        finally:
            theirs.close()
        self._output = b""
        self._closing: list[asyncio.BaseTransport | asyncio.StreamWriter] = []
        self._draining: asyncio.Task[None] | None = None
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        threading.Thread(target=self._wait, args=(asyncio.get_running_loop(),), daemon=True).start()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The two ends of the connection; from now on what it prints is read, too, so that it never waits for that."""
        loop = asyncio.get_running_loop()
        output = asyncio.StreamReader()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(output), self._process.stdout)
        self._draining = asyncio.create_task(self._drain(output))
        reader, writer = await asyncio.open_unix_connection(sock=self._connection, limit=READ_BYTES)
        self._closing = [transport, writer]
        return reader, writer

    @property
    def process_id(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._ended.done()

    @property
    def output(self) -> str:
        """The last of what it printed."""
        return self._output.decode(errors="replace")

    async def ended(self) -> str:
        """Returns when it has ended, with how: "exit code 3", "signal SIGKILL"."""
        return _manner(await asyncio.shield(self._ended))

    async def kill_unless_ended(self, within_s: float) -> None:
        """Gives it time to end by itself, then kills it and what it started."""
        await asyncio.wait([self._ended], timeout=within_s)
        self._signal(signal.SIGKILL)
        await asyncio.wait([self._ended])

    async def end(self) -> None:
        """Asks it to end, and kills it where it does not."""
        self._signal(signal.SIGTERM)
        await self.kill_unless_ended(TERMINATE_S)

    async def clear_away(self, last_words_s: float) -> None:
        """Frees what an ended process leaves here: its last output, its connection, its home."""
        if self._draining is not None:
            await asyncio.wait([self._draining], timeout=last_words_s)
            self._draining.cancel()
        for end in self._closing:
            end.close()
        await asyncio.to_thread(shutil.rmtree, self._home, ignore_errors=True)

    def _signal(self, number: signal.Signals) -> None:
        if not self._ended.done():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        """In a thread: the end of the connection would not do, for what it forked may hold on to it."""
        os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        # Before its number is free for others: whatever it left behind in its session ends with it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        status = self._process.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for it any more
            loop.call_soon_threadsafe(self._ended.set_result, status)

    async def _drain(self, output: asyncio.StreamReader) -> None:
        while chunk := await output.read(KEPT_OUTPUT_BYTES):
            self._output = (self._output + chunk)[-KEPT_OUTPUT_BYTES:]


def _start(module: str, connection: socket.socket, home: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-X", "faulthandler", "-m", module, str(connection.fileno()), str(os.getpid())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=home,
        env=_environment(home),
        pass_fds=[connection.fileno()],
        start_new_session=True,
    )


def _environment(home: str) -> dict[str, str]:
    """A small environment, in which it finds the package that this file is in."""
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    root = str(Path(noodle_ray.__file__).parents[1])
    path = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**kept, "HOME": home, "TMPDIR": home, "PYTHONPATH": os.pathsep.join(dict.fromkeys(path))}


def _manner(status: int) -> str:
    if status >= 0:
        return f"exit code {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"
