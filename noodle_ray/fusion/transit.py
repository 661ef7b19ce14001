"""How long requests are on their way to the engine and back: a part of their time that the engine cannot see."""

from __future__ import annotations

from collections import deque

LATEST = 100
COUNTED = 0.98
MOST_MS = 50.0
"""What is expected at most: who finds everything slow must not leave the encoders without any time."""


class Transit:
    """Follows what the latest requests took beyond the engine's own time."""

    def __init__(self) -> None:
        self._ms: deque[float] = deque(maxlen=LATEST)

    def note(self, ms: float) -> None:
        self._ms.append(max(0.0, ms))

    @property
    def expected_ms(self) -> float:
        """What nearly all of the latest took at most; 0 where there was none yet."""
        if not self._ms:
            return 0.0
        return min(sorted(self._ms)[int(COUNTED * (len(self._ms) - 1))], MOST_MS)
