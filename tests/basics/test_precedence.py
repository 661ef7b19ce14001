"""Going ahead: what root runs is ten less nice, in all of its threads; what others run is as it was."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

GO_AHEAD = """
import os, threading, psutil
from noodle_ray.precedence import go_ahead
os.nice(5)
waiting = threading.Event()
before = threading.Thread(target=waiting.wait)
before.start()
if {user}:
    os.setuid({user})
go_ahead()
after = threading.Thread(target=waiting.wait)
after.start()
print(*(os.getpriority(os.PRIO_PROCESS, thread.id) for thread in psutil.Process().threads()))
waiting.set()
"""


def niceness_of_threads(user: int) -> set[int]:
    program = GO_AHEAD.format(user=user)
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(map(int, said.stdout.split()))


@pytest.mark.skipif(os.getuid() != 0, reason="only root may go ahead")
def test_all_threads_go_ahead() -> None:
    assert niceness_of_threads(user=0) == {-5}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_who_may_not_stays_where_it_is() -> None:
    assert niceness_of_threads(user=65534) == {5}
