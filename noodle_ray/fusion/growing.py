"""Rows that are appended to one array, moved a logarithmic number of times."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

_FIRST_CAPACITY = 16


class Growing:
    """An array that grows at its end. `shape` is one row's: () for numbers, (384,) for vectors."""

    def __init__(self, dtype: Any, shape: tuple[int, ...] = ()) -> None:
        self._buffer: npt.NDArray[Any] = np.zeros((_FIRST_CAPACITY, *shape), dtype)
        self._length = 0

    @property
    def rows(self) -> npt.NDArray[Any]:
        """A view of the rows that are there; not to be kept beyond the next append."""
        return self._buffer[: self._length]

    def append(self, rows: npt.ArrayLike) -> None:
        """Adds rows behind the last one; the buffer doubles where they do not fit."""
        fresh = np.asarray(rows, self._buffer.dtype).reshape(-1, *self._buffer.shape[1:])
        wanted = self._length + len(fresh)
        if wanted > len(self._buffer):
            larger = np.zeros((max(wanted, 2 * len(self._buffer)), *self._buffer.shape[1:]), self._buffer.dtype)
            larger[: self._length] = self.rows
            self._buffer = larger
        self._buffer[self._length : wanted] = fresh
        self._length = wanted

    def keep(self, mask: npt.NDArray[np.bool_]) -> None:
        """Drops the rows where the mask is false; the others keep their order."""
        kept = self.rows[mask]
        self._buffer = np.zeros((max(len(kept), _FIRST_CAPACITY), *kept.shape[1:]), kept.dtype)
        self._buffer[: len(kept)] = kept
        self._length = len(kept)
