"""A Redis server of one's own that keeps what it holds in a folder: started, stopped, crashed and started again."""

from __future__ import annotations

import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import redis

from noodle_ray.entry.cluster.ray_process import quiet_port
from noodle_ray.errors import Unavailable

START_S, STOP_S, LOOK_S = 20.0, 20.0, 0.02

Fsync = Literal["always", "everysec"]
"""When what was written is on the disk: before the answer, or within a second, which a power cut takes."""

_CONFIGURATION = """bind {address}
port {port}
dir "{folder}"
requirepass {password}
appendonly yes
appendfsync {fsync}
save ""
daemonize no
"""


def why_not() -> str:
    """Why there can be no server here; "" where there can."""
    return "" if shutil.which("redis-server") else "redis-server: not installed (Debian: redis-server)"


class RedisServer:
    """A server that listens on one address and wants a password."""

    def __init__(self, folder: Path, address: str, port: int, fsync: Fsync) -> None:
        self.host, self.port = address, port or quiet_port()
        self.password = secrets.token_urlsafe(16)
        self._folder = folder
        text = _CONFIGURATION.format(
            address=address, port=self.port, folder=folder, password=self.password, fsync=fsync
        )
        self._file = folder / "redis.conf"  # the password is in a file, and not in the list of processes
        self._file.touch(0o600)
        self._file.write_text(text)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@{self.address}/0"

    def start(self) -> None:
        """Returns when it answers with all that it kept. Raises Unavailable with its last words."""
        log = self._folder / "log"
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                ["redis-server", str(self._file)],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        end = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                raise Unavailable(f"Redis did not start: {log.read_text(errors='replace')[-500:]}")
            time.sleep(LOOK_S)

    def stop(self, crash: bool = False) -> None:
        """Ends it. `crash`: as if it were killed."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGKILL if crash else signal.SIGTERM)
        self._process.send_signal(signal.SIGCONT)
        self._process.wait(STOP_S)
        self._process = None

    def freeze(self) -> None:
        """It stands still; connections stay open, and new ones get no answer."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        with redis.Redis.from_url(self.url, socket_timeout=2, retry=None) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:  # not yet there, or still reading what it kept
                return False


@contextmanager
def redis_server(
    folder: Path, address: str = "127.0.0.1", port: int = 0, fsync: Fsync = "always"
) -> Iterator[RedisServer]:
    """A running server, which ends with the block; what it holds stays in the folder. `port` 0: any that is free.

    Raises Unavailable with the reason where there can be none.
    """
    if reason := why_not():
        raise Unavailable(f"there can be no Redis here: {reason}")
    server = RedisServer(folder, address, port, fsync)
    try:
        server.start()
        yield server
    finally:
        server.stop()
