"""Who gets the processors of a machine that several hosts share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

AUTOGROUP = Path("/proc/sys/kernel/sched_autogroup_enabled")


@contextmanager
def weighed_by_niceness(switch: Path = AUTOGROUP) -> Iterator[None]:
    """While the block runs, Linux weighs the machine's processes by their niceness; it takes root.

    Else it may weigh sessions first, all alike (autogroup, see sched(7)), and niceness within each. All that a host
    runs is one session, and whoever asks the hosts is another: a host that started got two hundredths of a processor
    beside a head that loaded encoders, whatever its niceness, and whoever asked was up to a hundred seconds late.
    Where the kernel does not let itself be told, all stays as it is.
    """
    try:
        before = switch.read_text()
        switch.write_text("0")
    except OSError:  # no such groups, or a read-only /proc/sys
        yield
        return
    try:
        yield
    finally:
        switch.write_text(before)
