"""What watching costs: CPU and plain Ray's throughput, as the difference to Ray at its default settings.

Both clusters run at the same time on this machine, each driven by a process of its own: CPU is counted over the same
seconds, and tasks run now on one, now on the other, so that whatever else slows the machine down slows both.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import psutil
import ray

from noodle_ray.entry.bench.report import Row
from noodle_ray.entry.cluster import launch, process_session, ray_process
from noodle_ray.entry.cluster.cluster_file import ClusterFile
from noodle_ray.entry.cluster.components import start_actors, start_node_manager
from noodle_ray.entry.cluster.local_cluster import LocalCluster, bare_ray
from noodle_ray.entry.cluster.ray_connection import connection
from noodle_ray.entry.cluster.ray_process import NodeOptions
from noodle_ray.errors import Unavailable
from noodle_ray.resources import NodeResources

WORKERS = 7
"""Beside the head: eight nodes in all."""

SETTLING_S, WATCHED_S = 15.0, 40.0
ENDING_S = 60.0
TASKS, ROUNDS, WARM_UP = 1_000, 16, 200
PROMISED_CORE_PERCENT, PROMISED_AGENT_PERCENT, PROMISED_LOSS_PERCENT = 5.0, 1.0, 2.0


@dataclass(frozen=True, slots=True)
class Use:
    """CPU in percent of one core: of all processes on the head, of the busiest agent, and of an idle actor of Ray's."""

    head: float
    agent: float = 0.0
    idle_actor: float = 0.0


def measure(progress: Callable[[str], None]) -> list[Row]:
    """Ray as it comes beside Ray with our settings and what watches nodes, then with all of our actors."""
    with _side(True, progress) as plain, _side(False, progress) as ours:
        time.sleep(SETTLING_S)
        progress(f"watching both for {WATCHED_S:g} s")
        uses = _both("use", plain, ours)
        progress(f"running {TASKS} tasks on each in turn, {ROUNDS} times")
        rates = [(_ask(plain, "tasks"), _ask(ours, "tasks")) for _ in range(ROUNDS)]
        _ask(ours, "start the rest")
        time.sleep(SETTLING_S)
        progress(f"watching both for {WATCHED_S:g} s, now with all of our actors")
        with_all = _both("use", plain, ours)
    return _rows(uses, with_all, rates)


# -- one process for each cluster, for a process can be connected to one only


@contextmanager
def _side(as_it_comes: bool, progress: Callable[[str], None]) -> Iterator[Connection]:
    progress("starting Ray as it comes" if as_it_comes else "starting Ray with our settings")
    spawning = multiprocessing.get_context("spawn")
    here, there = spawning.Pipe()
    process = spawning.Process(target=_drive, args=(there, as_it_comes))
    process.start()
    there.close()  # so that its end is noticed here
    try:
        _wait(here)
        yield here
    finally:
        here.close()
        process.join(ENDING_S)
        if process.is_alive():
            progress(f"a cluster did not end within {ENDING_S:g} s")
            process.kill()


def _both(question: str, *sides: Connection) -> list[Any]:
    for side in sides:
        side.send(question)
    return [_wait(side) for side in sides]


def _ask(side: Connection, question: str) -> Any:
    side.send(question)
    return _wait(side)


def _wait(side: Connection) -> Any:
    try:
        answer = side.recv()
    except EOFError:
        raise Unavailable("the process that drives one of the clusters ended") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _drive(questions: Connection, as_it_comes: bool) -> None:
    """Starts a cluster, answers questions about it, and ends it when the other end is closed."""
    with ExitStack() as running:
        try:
            if as_it_comes:
                running.enter_context(default_settings())
            cluster = running.enter_context(_cluster(first_address=10 if as_it_comes else 30))
            if not as_it_comes:
                start_node_manager(cluster.settings)
            questions.send("ready")
        except Exception as error:
            questions.send(error)
            return
        answers: dict[str, Callable[[], Any]] = {
            "use": lambda: _use(cluster.file),
            "tasks": _tasks_per_s,
            "start the rest": lambda: start_actors(cluster.settings),
        }
        try:
            while True:
                questions.send(answers[questions.recv()]())
        except EOFError:
            return


@contextmanager
def _cluster(first_address: int) -> Iterator[LocalCluster]:
    workers = tuple(_worker(number, first_address) for number in range(WORKERS))
    options = launch.UpOptions(head=launch.head_options(2), workers=workers)
    with bare_ray(lambda _: None, options) as cluster, connection(cluster.file.address):
        yield cluster


def _worker(number: int, first_address: int) -> NodeOptions:
    resources = NodeResources.of(cpus=1, memory="1GiB")
    return NodeOptions(f"127.0.0.{number + first_address}", f"w{number}", resources, True, 80 * 2**20)


@contextmanager
def default_settings() -> Iterator[None]:
    """Ray as it comes: without what we set for speed and for finding dead nodes."""
    ours = dict(ray_process.RAY_SETTINGS)
    kept = {name: ours[name] for name in ("RAY_AUTH_MODE", "RAY_USAGE_STATS_ENABLED")}
    ray_process.RAY_SETTINGS.clear()
    ray_process.RAY_SETTINGS.update(kept)
    for name in ours.keys() - kept.keys():
        os.environ.pop(name, None)
    try:
        yield
    finally:
        ray_process.RAY_SETTINGS.update(ours)


def _use(file: ClusterFile) -> Use:
    @ray.remote(num_cpus=0)
    class Idle:
        def pid(self) -> int:
            return os.getpid()

    idle = Idle.remote()  # type: ignore[attr-defined]  # Ray's decorator makes another class of it
    pid = ray.get(idle.pid.remote())
    before, start = _seconds_by_process(file), time.monotonic()
    time.sleep(WATCHED_S)
    passed, after = time.monotonic() - start, _seconds_by_process(file)
    percent = {key: (now - before.get(key, 0.0)) / passed * 100 for key, now in after.items()}
    ray.kill(idle)
    head = sum(value for (node, _, of), value in percent.items() if node == 0 and of != pid)
    agents = [value for (_, title, _), value in percent.items() if "NodeAgent" in title]
    return Use(head, max(agents, default=0.0), sum(value for (_, _, of), value in percent.items() if of == pid))


def _seconds_by_process(file: ClusterFile) -> Mapping[tuple[int, str, int], float]:
    """CPU seconds of every process: by the number of its node, its title and its pid."""
    found = {}
    for number, process in enumerate(file.processes):
        for member in process_session.members(process.pid):
            try:
                times, title = member.cpu_times(), " ".join(member.cmdline()[:1])
            except psutil.NoSuchProcess:
                continue
            found[number, title, member.pid] = float(times.user + times.system)
    return found


def _tasks_per_s() -> float:
    # A whole CPU each: Ray keeps a worker for each CPU, so that no round waits for processes to start.
    @ray.remote(num_cpus=1)
    def nothing() -> None:
        return None

    ray.get([nothing.remote() for _ in range(WARM_UP)])
    start = time.perf_counter()
    ray.get([nothing.remote() for _ in range(TASKS)])
    return TASKS / (time.perf_counter() - start)


def _rows(uses: list[Use], with_all: list[Use], rates: list[tuple[float, float]]) -> list[Row]:
    """Throughput as the median of what each pair of rounds lost: one slow moment is one pair."""
    (plain, ours), (plain_again, everything) = uses, with_all
    lost = float(np.median([100 * (1 - with_us / without) for without, with_us in rates]))
    spread = np.percentile([100 * (1 - with_us / without) for without, with_us in rates], [25, 75])
    eight: dict[str, str | int | float] = {"nodes": WORKERS + 1}
    return [
        Row(
            metric="overhead_core_percent",
            value=ours.head - plain.head,
            unit="%",
            goal=PROMISED_CORE_PERCENT,
            context={**eight, "default Ray": round(plain.head, 2), "watched": round(ours.head, 2)},
        ),
        Row(
            metric="overhead_all_core_percent",
            value=everything.head - plain_again.head,
            unit="%",
            context={**eight, "default Ray": round(plain_again.head, 2), "all our actors": round(everything.head, 2)},
        ),
        Row(
            metric="agent_core_percent",
            value=ours.agent,
            unit="%",
            goal=PROMISED_AGENT_PERCENT,
            context={"an idle actor of Ray's": round(ours.idle_actor, 2)},
        ),
        Row(
            metric="overhead_throughput_percent",
            value=lost,
            unit="%",
            goal=PROMISED_LOSS_PERCENT,
            context={
                "pairs": len(rates),
                "quartiles": f"{spread[0]:.1f} to {spread[1]:.1f}",
                "tasks a second, default Ray": round(float(np.median([without for without, _ in rates]))),
            },
        ),
    ]
