"""Processes: many independent calls on all CPUs, with the results in the order of the tasks."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from noodle_ray.placement import kernels

Task = TypeVar("Task")
Result = TypeVar("Result")


def each(
    call: Callable[[Task], Result], tasks: Sequence[Task], jobs: int, advance: Callable[[], None]
) -> Iterator[Result]:
    """Calls it for every task, in up to `jobs` fresh processes (1: in this one), machine code warm in each.

    What the call raises is raised here. `advance` is called after each result.
    """
    for result in _here(call, tasks) if min(jobs, len(tasks)) <= 1 else _spread(call, tasks, jobs):
        yield result
        advance()


def alone(call: Callable[[Task], Result], task: Task) -> Result:
    """Calls it in a process of its own, machine code warm: its memory is its own, too."""
    return next(_spread(call, [task], 1))


def _here(call: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
    kernels.warm()
    yield from map(call, tasks)


def _spread(call: Callable[[Task], Result], tasks: Sequence[Task], jobs: int) -> Iterator[Result]:
    # Spawned: a forked process inherits threads' locks, and with them deadlocks.
    with multiprocessing.get_context("spawn").Pool(min(jobs, len(tasks)), initializer=kernels.warm) as pool:
        yield from pool.imap(call, tasks)
