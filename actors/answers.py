"""Answers: those who wait for the outcome of something, by what it is about."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

T = TypeVar("T")


class Answers(Generic[T]):
    """Futures by key, shared by all who wait for the same; one who stops waiting does not end it for the others."""

    def __init__(self) -> None:
        self._futures: dict[str, asyncio.Future[T]] = {}

    def expect(self, key: str) -> asyncio.Future[T]:
        """What will hold the answer; ask before whatever may answer."""
        if key not in self._futures:
            self._futures[key] = asyncio.get_running_loop().create_future()
            self._futures[key].add_done_callback(_retrieve)
        return self._futures[key]

    def resolve(self, key: str, value: T) -> None:
        future = self._futures.pop(key, None)
        if future is not None:
            future.set_result(value)

    def reject(self, key: str, error: Exception) -> None:
        future = self._futures.pop(key, None)
        if future is not None:
            future.set_exception(error)


def _retrieve(future: asyncio.Future[T]) -> None:
    """Whoever asked may be gone: an error that nobody hears is no fault."""
    if not future.cancelled():
        future.exception()
