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

LOAD = """
import os, sys
os.nice(5)
sys.modules["asyncio"] = None  # which all of them load, and it takes the others with it
try:
    import noodle_ray.actors.{module}
except ImportError:
    print(os.getpriority(os.PRIO_PROCESS, 0))
"""


def niceness_of_threads(user: int, **environment: str) -> set[int]:
    return niceness(GO_AHEAD.format(user=user), environment)


def niceness(program: str, environment: dict[str, str]) -> set[int]:
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


@pytest.mark.skipif(os.getuid() != 0, reason="only root may go ahead")
@pytest.mark.parametrize("module", ["node_manager", "module_registry", "service_directory"])
def test_actors_of_which_there_is_one_go_ahead_before_they_load_anything(module: str) -> None:
    assert niceness(LOAD.format(module=module), WORKER) == {-5}
    assert niceness(LOAD.format(module=module), {}) == {5}
