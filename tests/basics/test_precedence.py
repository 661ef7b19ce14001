"""Going ahead: what root runs as a worker of Ray's is ten less nice, in all of its threads; others are as they were."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from noodle_ray.precedence import STARTED_BY_A_RAYLET

WORKER = {STARTED_BY_A_RAYLET: "1"}

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


def niceness_of_threads(user: int, **environment: str) -> set[int]:
    program = GO_AHEAD.format(user=user)
    environment = {**{k: v for k, v in os.environ.items() if k != STARTED_BY_A_RAYLET}, **environment}
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    return set(map(int, said.stdout.split()))


@pytest.mark.skipif(os.getuid() != 0, reason="only root may go ahead")
def test_all_threads_of_a_worker_go_ahead() -> None:
    assert niceness_of_threads(user=0, **WORKER) == {-5}


@pytest.mark.skipif(os.getuid() != 0, reason="only root could go ahead")
def test_a_process_that_no_raylet_started_keeps_its_place() -> None:
    assert niceness_of_threads(user=0) == {5}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_who_may_not_stays_where_it_is() -> None:
    assert niceness_of_threads(user=65534, **WORKER) == {5}
