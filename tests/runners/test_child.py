"""The child's side of the connection, in this process: what it answers, and how its process begins and ends."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from runner_programs import program

from noodle_ray.errors import Fault, InvalidInput, ModuleFailed, NotFound
from noodle_ray.runners import child, frames
from noodle_ray.runners.output import restore_output
from noodle_ray.runners.plain_errors import from_plain, to_plain

CODE = """
import asyncio, threading
class Store:
    def __init__(self): self.state = 1
    def get(self): return self.state
    def lock(self): return threading.Lock()
    def numbers(self, upto): yield from range(upto)
    async def hang(self): await asyncio.sleep(60)
    def export_state(self): return self.state
    def import_state(self, state, from_version): self.state = [state, from_version]
    def is_well(self): return True
"""


class Host:
    """The other end: asks, and gives what comes back."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer

    def send(self, number: int, operation: str, *arguments: Any) -> None:
        self.writer.write(frames.frame(frames.pack([number, operation, list(arguments)])))

    async def ask(self, number: int, operation: str, *arguments: Any) -> Any:
        self.send(number, operation, *arguments)
        async with asyncio.timeout(10):
            answer = await frames.read_message(self._reader)
        assert answer[0] == number
        return answer[1:]


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    ours, theirs = socket.socketpair()
    before = list(sys.path)
    serving = asyncio.create_task(child.serve(theirs))
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    host = Host(reader, writer)
    given = program(tmp_path, CODE, "Store", health_check="is_well")
    folders = [str(folder) for folder in given.folders]
    assert await host.ask(1, "load", "prog", folders, given.entry_point, "is_well", False) == ["ok", None]
    yield host
    writer.close()
    await serving
    restore_output()
    sys.path[:] = before


async def test_does_what_it_is_asked(host: Host) -> None:
    assert await host.ask(2, "check") == ["ok", None]
    assert await host.ask(3, "call", "get", [], {}) == ["ok", 1]
    _, state = await host.ask(4, "export")
    assert await host.ask(5, "import", state, "1.0") == ["ok", None]
    assert await host.ask(6, "call", "get", [], {}) == ["ok", [1, "1.0"]]


async def test_streams(host: Host) -> None:
    kind, stream = await host.ask(2, "stream", "numbers", [2], {})
    assert kind == "ok"
    answers = [await host.ask(number, "next", stream) for number in (3, 4, 5)]
    assert answers == [["ok", [True, 0]], ["ok", [True, 1]], ["ok", [False]]]
    assert await host.ask(6, "close", stream) == ["ok", None]


async def test_errors(host: Host) -> None:
    for function, kind in (("nothing", "not_found"), ("lock", "module_failed"), ("numbers", "module_failed")):
        answer = await host.ask(2, "call", function, [1] if function == "numbers" else [], {})
        assert (answer[0], answer[1][0]) == ("error", kind)
    assert (await host.ask(3, "call", "get", [1], {}))[1][0] == "invalid_input"
    assert (await host.ask(4, "fly"))[1][1] == "its process cannot do 'fly'"
    assert (await host.ask(5, "next", 99))[1][1] == "KeyError(99)"


async def test_a_cancelled_call_has_no_answer(host: Host) -> None:
    host.send(2, "call", "hang", [], {})
    host.send(0, "cancel", 2)
    host.send(0, "cancel", 77)
    assert await host.ask(3, "call", "get", [], {}) == ["ok", 1]


@pytest.mark.parametrize(
    "error",
    [
        NotFound("function", "a.b", ["c", "d"]),
        InvalidInput([Fault("arguments", "too many", "x"), Fault("a", "b")]),
        ModuleFailed("prog", "ValueError: no", "Traceback …"),
    ],
)
def test_errors_cross_whole(error: Any) -> None:
    crossed = from_plain("prog", frames.unpack(frames.pack(to_plain(error))))
    assert (type(crossed), str(crossed), crossed.__dict__) == (type(error), str(error), error.__dict__)


class Ended(BaseException):
    """Instead of the end of the process."""


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    statuses: list[int] = []

    def end(status: int) -> None:
        statuses.append(status)
        raise Ended

    monkeypatch.setattr(os, "_exit", end)
    # This process is not to end with its parent.
    monkeypatch.setattr(child, "end_with", lambda parent: None)
    yield statuses


def test_ends_with_the_connection(ends: list[int]) -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    with pytest.raises(Ended):
        child.main([str(theirs.detach()), str(os.getppid())])
    assert ends == [0]


def test_ends_where_it_is_sent_nonsense(ends: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    ours, theirs = socket.socketpair()
    ours.sendall(frames.frame(b"\xc1"))
    ours.close()
    with pytest.raises(Ended):
        child.main([str(theirs.detach()), str(os.getppid())])
    assert ends == [1]
    assert "Malformed" in capsys.readouterr().err


def test_ends_where_its_parent_is_gone_already(monkeypatch: pytest.MonkeyPatch) -> None:
    statuses: list[int] = []
    monkeypatch.setattr(os, "_exit", statuses.append)
    monkeypatch.setattr(child.sys, "platform", "other")
    child.end_with(os.getppid())
    assert statuses == []
    child.end_with(0)
    assert statuses == [0]


def test_asks_the_kernel_to_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []

    class Library:
        def prctl(self, *arguments: int) -> None:
            asked.append(arguments)

    monkeypatch.setattr(child.ctypes, "CDLL", lambda name: Library())
    child.end_with(os.getppid())
    assert asked == [(1, 9)]
