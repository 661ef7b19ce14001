"""The child process in which a sandboxed module's code runs: it does what its host asks, and ends with it."""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import os
import signal
import socket
import sys
import traceback
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path
from typing import Any

from noodle_ray.errors import InvalidInput, ModuleFailed, NotFound
from noodle_ray.runners import frames
from noodle_ray.runners.in_process import InProcessRunner
from noodle_ray.runners.plain_errors import to_plain
from noodle_ray.runners.runner import Program

_PR_SET_PDEATHSIG = 1


class _Stream:
    """A generator under way. One that is cancelled takes a while to end, and must not be closed meanwhile."""

    def __init__(self, items: AsyncGenerator[Any, None]) -> None:
        self._items = items
        self._busy = asyncio.Lock()

    async def next(self) -> list[Any]:
        """[True, the next item], or [False] at the end."""
        async with self._busy:
            async for item in self._items:
                return [True, item]
            return [False]

    async def close(self) -> None:
        async with self._busy:
            await self._items.aclose()


class Child:
    """Answers the messages of its host: [number, what to do, [arguments]]. "cancel" has no answer of its own."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._runner = InProcessRunner(plain_state=True)
        self._module = ""
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._streams: dict[int, _Stream] = {}
        self._stream_numbers = itertools.count(1)

    async def serve(self) -> None:
        """Returns when the host is gone."""
        while True:
            try:
                number, operation, arguments = await frames.read_message(self._reader)
            except (EOFError, OSError):
                return
            if operation == "cancel":
                self._cancel(*arguments)
                continue
            task = self._tasks[number] = asyncio.create_task(self._answer(number, operation, arguments))
            task.add_done_callback(partial(self._forget, number))

    def _forget(self, number: int, task: asyncio.Task[None]) -> None:
        del self._tasks[number]

    def _cancel(self, number: int) -> None:
        if number in self._tasks:
            self._tasks[number].cancel()

    async def _answer(self, number: int, operation: str, arguments: list[Any]) -> None:
        try:
            packed = self._pack([number, "ok", await self._perform(operation, arguments)])
        except (NotFound, InvalidInput, ModuleFailed) as error:
            packed = self._pack([number, "error", to_plain(error)])
        except Exception as error:  # whatever it is, somebody waits for an answer
            packed = self._pack([number, "error", to_plain(ModuleFailed(self._module, repr(error)))])
        self._writer.write(frames.frame(packed))
        await self._writer.drain()

    def _pack(self, message: list[Any]) -> bytes:
        try:
            return frames.pack(message)
        except frames.NotPlain as error:
            problem = f"a sandboxed module can give plain data only; this was {error}"
            return frames.pack([message[0], "error", to_plain(ModuleFailed(self._module, problem))])

    async def _perform(self, operation: str, arguments: list[Any]) -> Any:
        match operation, arguments:
            case "load", [module, folders, entry_point, health_check, vendor]:
                self._module = module
                paths = tuple(map(Path, folders))
                return await self._runner.load(Program(module, paths, entry_point, health_check, vendor))
            case "check", []:
                return await self._runner.check()
            case "call", [function, args, kwargs]:
                return await self._runner.call(function, args, kwargs)
            case "stream", [function, args, kwargs]:
                stream = next(self._stream_numbers)
                self._streams[stream] = _Stream(self._runner.stream(function, args, kwargs))
                return stream
            case "next", [stream]:
                return await self._streams[stream].next()
            case "close", [stream]:
                return await self._streams.pop(stream).close()
            case "export", []:
                return await self._runner.export_state()
            case "import", [state, from_version]:
                return await self._runner.import_state(state, from_version)
        raise ModuleFailed(self._module, f"its process cannot do {operation!r}")


async def serve(connection: socket.socket) -> None:
    """Serves the host at the other end of the connection, until it is gone."""
    reader, writer = await asyncio.open_unix_connection(sock=connection)
    try:
        await Child(reader, writer).serve()
    finally:
        writer.close()


def end_with(parent: int) -> None:
    """Has the kernel end this process when the thread that started it ends, however that comes about (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was faster
        os._exit(0)


def main(arguments: list[str]) -> None:
    """`arguments`: the number of the connection's file descriptor, and of the host's process."""
    end_with(int(arguments[1]))
    connection = socket.socket(fileno=int(arguments[0]))
    connection.set_inheritable(False)
    status = 1
    try:
        asyncio.run(serve(connection))
        status = 0
    except BaseException:
        # A task of the module's own raised SystemExit, or the host sent nonsense: it is told by the end of this.
        traceback.print_exc()
    finally:
        # At once: an orderly exit would wait for threads that the module's functions may never give back.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main(sys.argv[1:])
