"""The child process in which files are decoded, one after the other, with bounds on its memory, time and files."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import resource
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

# Before numpy is there: a decoder needs no threads, and each would take address space.
os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

import soxr
from PIL import BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin  # noqa: F401

from noodle_ray.errors import InvalidInput, TooLarge
from noodle_ray.fusion.decoding import SAMPLE_RATE_HZ, Content, decode, out_of_memory
from noodle_ray.fusion.limits import Limits
from noodle_ray.fusion.modality import FIELD_OF
from noodle_ray.runners import frames
from noodle_ray.runners.child import end_with

OPEN_FILES = 32
KEPT_BYTES = 128 * 2**20
"""A child that holds more gives back what it does not use."""

READY = ["ready"]
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_SIZE, _RESIDENT = 0, 1
_SPARE_CPU_S = 2
"""The clock in the parent comes first; this ends what that could not."""


def serve(connection: socket.socket) -> None:
    """Takes the limits, says that it is ready, then answers each [modality, content]; returns when the parent ends.

    An answer is ["array", shape, bytes], ["invalid", problem, given] or ["too large", size, limit, unit].
    """
    limits = Limits.parse(_receive(connection))
    memory = _Memory()
    _warm_up(limits)
    _bound(limits)
    _send(connection, READY)
    while True:
        modality, content = _receive(connection)
        _bound_cpu(limits)
        answer = _answer(modality, content, limits)
        del content
        _send(connection, answer)
        del answer
        memory.give_back_much()


class _Memory:
    """The C library's allocator (glibc), told to keep what it has from one file to the next.

    Fetching the same pages anew for each picture took longer than decoding it: a thousand page faults.
    """

    def __init__(self) -> None:
        self._library: Any = ctypes.CDLL(None)
        if hasattr(self._library, "mallopt"):
            self._library.mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)
            self._library.mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES // 2)

    def give_back_much(self) -> None:
        """After a large file what is free goes back to the system, wherever it lies."""
        if hasattr(self._library, "malloc_trim") and _pages(_RESIDENT) * resource.getpagesize() > KEPT_BYTES:
            self._library.malloc_trim(0)


def _answer(modality: str, content: Content, limits: Limits) -> list[Any]:
    try:
        array = decode(modality, content, limits)
    except MemoryError:
        return _too_large(out_of_memory(FIELD_OF[modality], limits))
    except TooLarge as error:
        return _too_large(error)
    except InvalidInput as error:
        fault = error.faults[0]
        return ["invalid", fault.problem, fault.given]
    assert not isinstance(array, str), "texts are checked where they are"
    return ["array", list(array.shape), array.tobytes()]


def _too_large(error: TooLarge) -> list[Any]:
    return ["too large", error.size, error.limit, error.unit]


def _warm_up(limits: Limits) -> None:
    """Has the libraries import what they import late: afterwards there may be no room for it."""
    for modality in ("vision", "audio"):
        with contextlib.suppress(InvalidInput):
            decode(modality, b"no such file", limits)
    soxr.resample([0.0] * 100, SAMPLE_RATE_HZ // 2, SAMPLE_RATE_HZ)


def _bound(limits: Limits) -> None:
    for what, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_AS, _pages(_SIZE) * resource.getpagesize() + limits.decoding_bytes),
    ):
        resource.setrlimit(what, (most, most))


def _pages(which: int) -> int:
    """Of this process: its whole address space, or what of it is in memory."""
    return int(Path("/proc/self/statm").read_text().split()[which])


def _bound_cpu(limits: Limits) -> None:
    """For what comes next: the limit counts from the start of the process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = math.ceil(used.ru_utime + used.ru_stime + limits.decoding_time_ms / 1000) + _SPARE_CPU_S
    resource.setrlimit(resource.RLIMIT_CPU, (most, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _receive(connection: socket.socket) -> Any:
    """The parent's next message. Raises EOFError when it is gone."""
    length = int.from_bytes(_exactly(connection, frames.LENGTH_BYTES), "big")
    return frames.unpack(bytes(_exactly(connection, length)))


def _exactly(connection: socket.socket, length: int) -> bytearray:
    data = bytearray(length)
    view, there = memoryview(data), 0
    while there < length:
        count = connection.recv_into(view[there:])
        if not count:
            raise EOFError
        there += count
    return data


def _send(connection: socket.socket, message: list[Any]) -> None:
    connection.sendall(frames.frame(frames.pack(message)))


def main(arguments: list[str]) -> None:
    """`arguments`: the number of the connection's file descriptor, and of the parent's process."""
    end_with(int(arguments[1]))
    status = 0
    try:
        serve(socket.socket(fileno=int(arguments[0])))
    except (EOFError, OSError):
        pass  # the parent is gone
    except BaseException:
        traceback.print_exc()
        status = 1
    os._exit(status)


if __name__ == "__main__":
    main(sys.argv[1:])
