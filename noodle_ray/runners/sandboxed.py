"""The runner that runs a module's code in a child process: what dies, hangs, prints or lies there does so alone."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from noodle_ray.errors import InvalidInput, ModuleFailed, NoodleError, Unavailable
from noodle_ray.runners import frames, state
from noodle_ray.runners.child_process import ChildProcess
from noodle_ray.runners.plain_errors import from_plain
from noodle_ray.runners.runner import Program

CHILD = "noodle_ray.runners.child"
LAST_WORDS_S = 1.0
"""How long what an ended process sent and printed is still read, and how long one that hung up may take to end."""

PLAIN_DATA = "None, bool, int, float, str, bytes, lists, and dicts with str keys"


class SandboxedRunner:
    """Runs one program in a process of its own. Arguments and results are plain data: no code comes back from there.

    When the process ends, all its calls raise ModuleFailed, and so does every later one.
    """

    def __init__(self, child: str = CHILD) -> None:
        self._child = child
        self._module = ""
        self._process: ChildProcess | None = None
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._problem = "it was not loaded"
        self._supervising: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def load(self, program: Program) -> None:
        """Starts the process and has it load the program.

        Raises ModuleFailed with what it printed, InvalidInput, or Unavailable where no process can be started.
        """
        self._module = program.module
        try:
            self._process = ChildProcess(self._child)
        except OSError as error:
            raise Unavailable(f"no process can be started for {self._module}: {error}") from error
        reader, self._writer = await self._process.connect()
        self._supervising = asyncio.create_task(self._supervise(self._process, reader))
        folders = [str(folder) for folder in program.folders]
        await self._ask("load", program.module, folders, program.entry_point, program.health_check, program.vendor)

    async def check(self) -> None:
        """Runs its health check, if it has one. Raises ModuleFailed where it raises, or answers False."""
        await self._ask("check")

    async def call(self, function: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Runs one public function. Raises NotFound, InvalidInput (also of what is not plain), ModuleFailed."""
        return await self._ask("call", function, list(args), kwargs)

    async def stream(self, function: str, args: Sequence[Any], kwargs: dict[str, Any]) -> AsyncGenerator[Any, None]:
        """Runs one public generator, item by item; closing it early closes the generator. Raises as `call`."""
        stream = await self._ask("stream", function, list(args), kwargs)
        try:
            while True:
                match await self._ask("next", stream):
                    case [True, item]:
                        yield item
                    case _:
                        return
        finally:
            if self._writer is not None:
                await self._ask("close", stream)

    async def export_state(self) -> bytes:
        """What the entry point's `export_state` gives, packed as plain data. Raises ModuleFailed."""
        packed = await self._ask("export")
        # Whoever loads this state next may trust that mark, and unpack without running code.
        if not isinstance(packed, bytes) or packed[:1] != state.PLAIN:
            raise ModuleFailed(self._module, "its process gave a state that is not packed as plain data")
        return packed

    async def import_state(self, packed: bytes, from_version: int) -> None:
        """Has the entry point's `import_state` take what a version's runner exported. Raises ModuleFailed."""
        await self._ask("import", packed, from_version)

    async def ended(self) -> None:
        """Returns when the process has ended, and all that waited for it know."""
        if self._supervising is not None:
            await asyncio.wait([self._supervising])

    async def close(self) -> None:
        """Ends the process: it is asked to, and killed after a second. What still runs is cut off."""
        if self._process is None or self._supervising is None:
            return
        self._give_up("it was closed")
        await self._process.end()
        await asyncio.wait([self._supervising])

    # -- asking

    async def _ask(self, operation: str, *arguments: Any) -> Any:
        if self._writer is None:
            raise self._failure()
        number = next(self._numbers)
        message = self._message(number, operation, *arguments)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            await self._send(self._writer, message)
            return await answer
        except asyncio.CancelledError:
            if self._writer is not None:
                self._writer.write(self._message(0, "cancel", number))
            raise
        finally:
            self._waiting.pop(number, None)

    async def _send(self, writer: asyncio.StreamWriter, message: bytes) -> None:
        """Waits only where much is under way already."""
        writer.write(message)
        with contextlib.suppress(OSError):  # the process's end, which follows, says more
            await writer.drain()

    def _message(self, number: int, operation: str, *arguments: Any) -> bytes:
        try:
            return frames.frame(frames.pack([number, operation, list(arguments)]))
        except frames.NotPlain as error:
            problem = f"a sandboxed module takes plain data ({PLAIN_DATA}); these hold {error}"
            raise InvalidInput.of("arguments", problem) from None

    def _failure(self) -> ModuleFailed:
        return ModuleFailed(self._module, self._problem, self._process.output if self._process else "")

    # -- what comes back

    async def _supervise(self, process: ChildProcess, reader: asyncio.StreamReader) -> None:
        reading = asyncio.create_task(self._read(process, reader))
        manner = await process.ended()
        await asyncio.wait([reading], timeout=LAST_WORDS_S)
        reading.cancel()
        await process.clear_away(LAST_WORDS_S)
        self._give_up(f"its process ended ({manner})")

    async def _read(self, process: ChildProcess, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                self._take(await frames.read_message(reader))
        except frames.Malformed as error:
            self._give_up(f"its process sent what is no answer: {error}")
            await process.kill_unless_ended(within_s=0)
        except (EOFError, OSError):
            await process.kill_unless_ended(LAST_WORDS_S)

    def _take(self, message: object) -> None:
        """One answer. One that nobody waits for (any more) is dropped."""
        match message:
            case [int(number), "ok", value]:
                outcome = value
            case [int(number), "error", plain]:
                outcome = from_plain(self._module, plain)
            case _:
                raise frames.Malformed("neither a result nor an error")
        answer = self._waiting.get(number)
        if answer is None or answer.done():
            return
        if isinstance(outcome, NoodleError):  # no result is one: it is plain data
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)

    def _give_up(self, problem: str) -> None:
        """From now on there is no process: what waits fails, and what comes, too."""
        if self._writer is not None:
            self._writer, self._problem = None, problem
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(self._failure())
