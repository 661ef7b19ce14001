"""Whether processes of a cluster run on that ended: they hold its ports and memory."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from noodle_ray.entry.cluster.cluster_file import ClusterFile
from noodle_ray.entry.doctor.finding import Finding, ok, warn

SHOWN = 5


@dataclass(frozen=True, slots=True)
class Running:
    """A process: its number, its session's, its name, and whether it was started in our runtime directory."""

    pid: int
    session: int
    name: str
    ours: bool


def check_leftovers(running: Sequence[Running], alive: Collection[int], dead: Collection[int]) -> Finding:
    """`alive`, `dead`: the sessions of the cluster file's nodes that run, and of those that ended."""
    left = [one for one in running if one.session in {*dead, *_ended_sessions(running)} - set(alive)]
    if not left:
        return ok("leftovers", "no processes of an ended cluster")
    shown = ", ".join(f"{one.name} {one.pid}" for one in left[:SHOWN]) + (", …" if len(left) > SHOWN else "")
    advice = f"`noodle down`, or kill {' '.join(str(one.pid) for one in left)}"
    return warn("leftovers", f"{len(left)} processes of an ended cluster run: {shown}", advice)


def _ended_sessions(running: Sequence[Running]) -> set[int]:
    """A session whose leader lives and is not ours is somebody's shell, from which ours was looked at or called."""
    leaders = {one.pid: one.ours for one in running}
    return {one.session for one in running if one.ours and leaders.get(one.session, True)}


def recorded_sessions(cluster: ClusterFile | None) -> tuple[list[int], list[int]]:
    """Those of nodes that run, and of those that ended, unless their numbers are another process's by now."""
    processes = cluster.processes if cluster is not None else ()
    alive = [one.pid for one in processes if one.is_running()]
    return alive, [one.pid for one in processes if one.pid not in alive and not psutil.pid_exists(one.pid)]


def processes(runtime: Path) -> list[Running]:
    """All that this user may look into."""
    found = []
    for process in psutil.process_iter():
        try:
            found.append(Running(process.pid, os.getsid(process.pid), process.name(), _is_ours(process, runtime)))
        except (psutil.Error, OSError):
            continue  # ended meanwhile, or another user's
    return found


def _is_ours(process: psutil.Process, runtime: Path) -> bool:
    """By what it was started with. Ray's workers have their titles where that was: their sessions tell."""
    if process.environ().get("RAY_TMPDIR") == str(runtime):
        return True
    return any(str(runtime) in word for word in process.cmdline())
