"""How long each stage of a request took."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stages:
    """Milliseconds by stage. A stage that is entered several times at once counts as long as its longest."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._started_s = clock()
        self.ms: dict[str, float] = {}

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        start = self._clock()
        try:
            yield
        finally:
            self.ms[stage] = max(self.ms.get(stage, 0.0), (self._clock() - start) * 1000.0)

    def with_total(self) -> dict[str, float]:
        return {**self.ms, "total": (self._clock() - self._started_s) * 1000.0}
