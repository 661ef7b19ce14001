"""Who goes first where processors are few: what answers goes ahead of what is still being started."""

from __future__ import annotations

import os
from contextlib import suppress

import psutil

AHEAD = 10
"""Of those that want a processor at once, one that is so much less nice gets nearly ten times as much of it."""


STARTED_BY_A_RAYLET = "RAY_RAYLET_PID"
"""Ray's workers have this in their environment. Whoever makes one of ours in a process of their own keeps its place."""


def go_ahead() -> None:
    """Puts this worker of Ray's, with all of its threads and those that they start, ahead of where it was started.

    To be called when it is ready to answer, or at once where there is only one of it, for which others wait. Only root
    may; for others everything stays as it is.
    """
    if STARTED_BY_A_RAYLET not in os.environ:
        return
    with suppress(PermissionError):
        move(psutil.Process(), -AHEAD)


def move(process: psutil.Process, by: int) -> None:
    """Makes all threads of a process so much nicer; one that has ended stays so.

    Raises PermissionError where that is less nice than it was, and nobody but root may.
    """
    with suppress(psutil.NoSuchProcess):
        for thread in process.threads():
            with suppress(ProcessLookupError):  # it has just ended
                os.setpriority(os.PRIO_PROCESS, thread.id, os.getpriority(os.PRIO_PROCESS, thread.id) + by)
