"""What a module prints: passed on up to a limit, so that it fills no disk."""

from __future__ import annotations

import io
import sys
import threading
from typing import Any, TextIO

MAX_CHARACTERS = 10 * 2**20
"""What a module may print in all, to each of the two streams."""


class LimitedOutput(io.TextIOBase):
    """A text stream that passes so many characters on, says once that it drops the rest, and drops it."""

    def __init__(self, target: TextIO, limit: int = MAX_CHARACTERS) -> None:
        super().__init__()
        self.target = target
        self._limit = self._left = limit
        self._full = False
        self._lock = threading.Lock()

    def write(self, text: str) -> int:
        """Gives the length of the whole text, as if all of it had been written."""
        with self._lock:
            if not self._full:
                self._pass_on(text)
        return len(text)

    def _pass_on(self, text: str) -> None:
        self.target.write(text[: self._left])
        self._full = len(text) > self._left
        self._left -= len(text)
        if self._full:
            self.target.write(f"\n[{self._limit} characters were printed; the rest is dropped]\n")

    def flush(self) -> None:
        self.target.flush()

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        return self.target.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.target.encoding

    @property
    def buffer(self) -> Any:
        """The bytes below, for modules that write them themselves: not limited."""
        return self.target.buffer


def limit_output() -> None:
    """Limits what this process prints from now on."""
    sys.stdout, sys.stderr = LimitedOutput(sys.stdout), LimitedOutput(sys.stderr)


def restore_output() -> None:
    """Takes the limits away again, where nobody has put other streams in their place."""
    if isinstance(sys.stdout, LimitedOutput):
        sys.stdout = sys.stdout.target
    if isinstance(sys.stderr, LimitedOutput):
        sys.stderr = sys.stderr.target
