"""A PostgreSQL server of one's own, in a folder: started, frozen, crashed and started again as a trial wants it."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import psycopg
from psycopg import sql

from noodle_ray.entry.cluster.ray_process import quiet_port
from noodle_ray.errors import Unavailable

USER = "noodle"
ACCOUNT = "postgres"
"""Whom Debian runs it as; PostgreSQL refuses to run as root."""

START_S, STOP_S, LOOK_S = 30.0, 20.0, 0.05
SETTINGS = {"max_connections": "60", "shared_buffers": "32MB", "logging_collector": "off"}


def why_not() -> str:
    """Why there can be no server here; "" where there can."""
    if _programs() is None:
        return "initdb and postgres: not installed (Debian: postgresql)"
    if os.geteuid() == 0 and not _has_account():
        return f"PostgreSQL does not run as root, and there is no account {ACCOUNT}"
    return ""


class PostgresServer:
    """A server that listens on one address, lets one user in, by a password, and keeps its data through restarts."""

    def __init__(self, folder: Path, address: str) -> None:
        self.address, self.port = address, quiet_port()
        self.password = secrets.token_urlsafe(16)
        self._data, self._log = folder / "data", folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Of the database that is there from the beginning."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        return f"postgresql://{USER}:{self.password}@{self.address}:{self.port}/{quote(database)}"

    def create_database(self, name: str, options: str = "") -> str:
        """A new database in it, and its URL; `options` as CREATE DATABASE has them."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {} " + options).format(sql.Identifier(name)))
        return self.url_of(name)

    def initialise(self) -> None:
        """Makes the folder of its data. Raises Unavailable."""
        password = self._data.parent / "password"
        password.write_text(self.password)
        _hand_over(password.parent, password)
        words = [f"--pgdata={self._data}", f"--username={USER}", f"--pwfile={password}", "--auth=scram-sha-256"]
        made = self._run("initdb", *words, "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8")
        password.unlink()
        if made.returncode:
            raise Unavailable(f"initdb failed: {made.stderr.decode(errors='replace').strip()[-500:]}")
        with (self._data / "pg_hba.conf").open("a") as file:  # hosts of the networks that this machine is on itself
            file.write("host all all samenet scram-sha-256\n")

    def start(self) -> None:
        """Returns when it answers. Raises Unavailable with its last words."""
        settings = {**SETTINGS, "listen_addresses": self.address, "unix_socket_directories": ""}
        words = [f"--{name}={value}" for name, value in settings.items()]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [_program("postgres"), "-D", str(self._data), "-p", str(self.port), *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **_account(),
            )
        end = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                raise Unavailable(f"PostgreSQL did not start: {self._log.read_text(errors='replace')[-500:]}")
            time.sleep(LOOK_S)

    def stop(self, crash: bool = False) -> None:
        """Ends it, and what its clients are at. `crash`: at once, without writing down what is in memory only."""
        if self._process is None:
            return
        self.thaw()
        self._process.send_signal(signal.SIGQUIT if crash else signal.SIGINT)
        self._process.wait(STOP_S)
        self._process = None

    def freeze(self) -> None:
        """All its processes stand still; connections stay open, and new ones get no answer."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)  # first: so no children come while they are counted
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self._process.pid).children():
                with suppress(psutil.NoSuchProcess):
                    child.send_signal(number)

    def _answers(self) -> bool:
        with suppress(psycopg.OperationalError), psycopg.connect(self.url, connect_timeout=2):
            return True
        return False

    def _run(self, program: str, *words: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([_program(program), *words], capture_output=True, check=False, cwd="/", **_account())


@contextmanager
def postgres_server(folder: Path | None = None, address: str = "127.0.0.1") -> Iterator[PostgresServer]:
    """A running server, which ends with the block; hosts of the address's own network may connect, with the password.

    `folder`: an empty one where its data stays; PostgreSQL's account must be able to reach it. None: one that goes with
    the block. Raises Unavailable with the reason where there can be none.
    """
    if reason := why_not():
        raise Unavailable(f"there can be no PostgreSQL here: {reason}")
    with tempfile.TemporaryDirectory(prefix="noodle-postgres-") as temporary:
        server = PostgresServer(folder or Path(temporary), address)
        server.initialise()
        try:
            server.start()
            yield server
        finally:
            server.stop(crash=folder is None)


def _programs() -> Path | None:
    """The folder of the newest PostgreSQL's programs: Debian has them outside of the PATH."""
    found = shutil.which("postgres")
    if found is not None:
        return Path(found).parent
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return debian[-1].parent if debian else None


def _program(name: str) -> str:
    folder = _programs()
    assert folder is not None
    return str(folder / name)


def _has_account() -> bool:
    with suppress(KeyError):
        pwd.getpwnam(ACCOUNT)
        return True
    return False


def _account() -> dict[str, Any]:
    return {"user": ACCOUNT, "group": ACCOUNT, "extra_groups": []} if os.geteuid() == 0 else {}


def _hand_over(*paths: Path) -> None:
    for path in paths:
        path.chmod(0o700 if path.is_dir() else 0o600)
        if os.geteuid() == 0:
            shutil.chown(path, ACCOUNT, ACCOUNT)
