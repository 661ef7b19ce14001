"""Timing: how long calls take, one after another."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any


def milliseconds(call: Callable[[], Any], times: int, warm_up: int = 3) -> list[float]:
    """Calls it that often after a warm-up, and gives what each call took, in ms."""
    for _ in range(warm_up):
        call()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        taken.append((time.perf_counter() - start) * 1000)
    return taken


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of them do not exceed (nearest rank)."""
    ordered = sorted(values)
    rank = max(1, -(-len(ordered) * percent // 100))
    return ordered[int(rank) - 1]
