"""Child processes that decode pictures and sounds: what crashes, hangs or swells there costs one request only."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from types import TracebackType
from typing import Any

import numpy as np

from noodle_ray.errors import InvalidInput, NoodleError, TooLarge, Unavailable
from noodle_ray.fusion.decoding import LONG_SIDE, SAMPLE_RATE_HZ, Content, Pixels, Samples, check_size, decode
from noodle_ray.fusion.limits import DEFAULT, Limits
from noodle_ray.fusion.modality import FIELD_OF
from noodle_ray.runners import frames
from noodle_ray.runners.child_process import ChildProcess

CHILD = "noodle_ray.fusion.decoder_child"
CHILDREN = 2
START_S = 60.0
"""How long a child may take to import its libraries on a machine that is very busy."""
_LAST_WORDS_S = 1.0
_OUT_OF_CPU_TIME = "signal SIGXCPU"


class _Ended(Exception):
    """A child ended, or was ended, before it answered: says how."""


class _Child:
    """One decoding process and what is said to it, one file at a time."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._starting = asyncio.Lock()
        self._process: ChildProcess | None = None
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    @property
    def process_id(self) -> int | None:
        return self._process.process_id if self._process and not self._process.has_ended else None

    async def start(self) -> None:
        """Starts it, unless it runs, and waits until it is ready. Raises Unavailable."""
        async with self._starting:
            if self._process is not None and self._process.has_ended:  # while it had nothing to do
                await self.end()
            if self._process is None:
                try:
                    await self._start()
                except BaseException:
                    await self.end()
                    raise

    async def _start(self) -> None:
        process = None
        try:
            process = self._process = ChildProcess(CHILD)
            self._reader, self._writer = await process.connect()
            await asyncio.wait_for(self._exchange(process, self._limits.to_json()), START_S)
        except (_Ended, OSError, TimeoutError) as error:
            problem = f"{error or 'it took too long'} {process.output[-500:] if process else ''}"
            raise Unavailable(f"no decoder can be started: {problem.rstrip()}") from error

    async def ask(self, modality: str, content: bytes) -> Any:
        """Raises _Ended where there is no answer, TimeoutError: then it must be ended."""
        if self._process is None:
            raise _Ended("it was closed")
        exchange = self._exchange(self._process, [modality, content])
        return await asyncio.wait_for(exchange, self._limits.decoding_time_ms / 1000)

    async def _exchange(self, process: ChildProcess, message: Any) -> Any:
        try:
            self._writer.write(frames.frame(frames.pack(message)))
            await self._writer.drain()
            return await frames.read_message(self._reader)
        except (EOFError, OSError):
            await process.kill_unless_ended(_LAST_WORDS_S)
            raise _Ended(await process.ended()) from None
        except frames.Malformed as error:
            raise _Ended(f"it answered nonsense: {error}") from None

    async def end(self) -> None:
        """Kills it: there is nothing in it that could get lost."""
        process, self._process = self._process, None
        if process is not None:
            await process.kill_unless_ended(within_s=0)
            await process.clear_away(_LAST_WORDS_S)


class DecoderPool:
    """Decodes in `children` processes, each with `limits` on its memory and on the time that one file takes.

    Requests wait in the order in which they came; a cancelled one leaves the queue. Start it ahead of time: a child
    needs some hundred milliseconds. Without that the first requests start their own. It belongs to one event loop.
    """

    def __init__(self, limits: Limits = DEFAULT, children: int = CHILDREN) -> None:
        self._limits = limits
        self._children = [_Child(limits) for _ in range(children)]
        self._free: asyncio.Queue[_Child | None] = asyncio.Queue()
        for child in self._children:
            self._free.put_nowait(child)
        self._running: set[asyncio.Task[Any]] = set()
        self._closed = False

    @property
    def process_ids(self) -> list[int]:
        """Of the children that run."""
        return [child.process_id for child in self._children if child.process_id is not None]

    async def start(self) -> None:
        """Starts all children. Raises Unavailable where one cannot be started."""
        await asyncio.gather(*(child.start() for child in self._children))

    async def __aenter__(self) -> DecoderPool:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        await self.close()

    async def decode(self, modality: str, content: Content) -> str | Pixels | Samples:
        """As `decoding.decode`, in a child; texts and code, which need no decoding, are checked here.

        Raises InvalidInput and TooLarge, also for a file that crashed its decoder or took too much memory or time;
        NotFound for an unknown modality; Unavailable where the pool is closed, or no child can be started.
        """
        check_size(modality, content, self._limits)
        if modality not in ("vision", "audio") or not isinstance(content, bytes):
            return decode(modality, content, self._limits)
        child = None if self._closed else await self._free.get()
        if child is None:
            self._free.put_nowait(None)  # for the next that waits
            raise _closed()
        # Shielded: an answer that nobody wants any more must still be read before the next question is asked.
        return await asyncio.shield(self._keep(self._decode(child, modality, content)))

    async def close(self) -> None:
        """Ends all children, and with them what still runs. No process and no file descriptor is left."""
        self._closed = True
        self._free.put_nowait(None)
        await asyncio.gather(*(child.end() for child in self._children))
        while self._running:
            await asyncio.wait(self._running)
        await asyncio.gather(*(child.end() for child in self._children))

    def _keep(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _decode(self, child: _Child, modality: str, content: bytes) -> Pixels | Samples:
        started_s = time.monotonic()
        usable = False
        try:
            await child.start()
            started_s = time.monotonic()
            outcome = _outcome(modality, await child.ask(modality, content), self._limits)
            usable = True
        except TimeoutError:
            outcome = self._too_slow(modality, time.monotonic() - started_s)
        except _Ended as error:
            outcome = self._broken(modality, str(error))
        finally:
            self._give_back(child, usable)
        if self._closed and not usable:
            raise _closed()
        if isinstance(outcome, NoodleError):
            raise outcome
        return outcome

    def _broken(self, modality: str, how: str) -> NoodleError:
        if how == _OUT_OF_CPU_TIME:
            return self._too_slow(modality, 0)
        return InvalidInput.of(FIELD_OF[modality], f"broke its decoder ({how}), which no intact file does")

    def _too_slow(self, modality: str, took_s: float) -> TooLarge:
        limit_ms = self._limits.decoding_time_ms
        return TooLarge(FIELD_OF[modality], max(math.ceil(took_s * 1000), limit_ms), limit_ms, "ms of decoding")

    def _give_back(self, child: _Child, usable: bool) -> None:
        if usable:
            self._free.put_nowait(child)
        else:
            self._keep(self._replace(child))

    async def _replace(self, child: _Child) -> None:
        await child.end()
        if not self._closed:
            with contextlib.suppress(Unavailable):  # the next request tries again, and is told
                await child.start()
        self._free.put_nowait(child)


def _closed() -> Unavailable:
    return Unavailable("the decoders are closed")


def _outcome(modality: str, answer: Any, limits: Limits) -> Pixels | Samples | NoodleError:
    """What an answer says. Raises _Ended for what no decoder of ours says: a hostile file may have taken it over."""
    field = FIELD_OF[modality]
    match answer:
        case ["array", list(shape), bytes(data)]:
            return _pixels(shape, data) if modality == "vision" else _samples(shape, data, limits)
        case ["invalid", str(problem), str(given)]:
            return InvalidInput.of(field, problem[:500], given)
        case ["too large", int(size), int(limit), str(unit)]:
            return TooLarge(field, size, limit, unit[:100])
    raise _Ended("it answered nonsense")


def _pixels(shape: list[Any], data: bytes) -> Pixels:
    match shape:
        case [int(height), int(width), 3] if 0 < height <= LONG_SIDE and 0 < width <= LONG_SIDE:
            if len(data) == height * width * 3:
                return np.frombuffer(data, np.uint8).reshape(height, width, 3).copy()
    raise _Ended("it answered with what are no pixels")


def _samples(shape: list[Any], data: bytes, limits: Limits) -> Samples:
    most = math.ceil(limits.audio_seconds * SAMPLE_RATE_HZ) + 1
    if shape == [len(data) // 4] and 0 < len(data) // 4 <= most and len(data) % 4 == 0:
        samples: Samples = np.frombuffer(data, np.float32).copy()
        if bool((np.abs(samples) <= 1.0).all()):
            return samples
    raise _Ended("it answered with what are no samples")
