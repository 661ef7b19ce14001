"""A host that leaves its cluster for a while and comes back: so hosts are upgraded, one after another."""

from __future__ import annotations

import subprocess
import sys
import time

from noodle_ray.entry.cluster import process_session, ray_process
from noodle_ray.entry.cluster.cluster_file import ClusterFile, read_cluster
from noodle_ray.entry.cluster.local_nodes import Progress
from noodle_ray.errors import Conflict, Unavailable
from noodle_ray.settings import Settings

NOODLE = (sys.executable, "-c", "from noodle_ray.entry.cli.main import run; run()")
"""The command line in a process of its own: with the code that is installed by then."""

GRACE_S, LOOK_S = 30.0, 0.5
"""How long after its deadline a node may take to leave, before it is ended all the same."""


def rejoin(settings: Settings, deadline_s: float, command: str, progress: Progress) -> None:
    """Moves away what runs here, ends Ray, runs the command in a shell, and starts Ray again as it was.

    deadline_s: how long what is movable has to move. The head moves nothing: what it holds waits for it. Raises
    NotFound where no cluster was started here, Conflict (attached), and Unavailable where the command failed, after
    Ray was started again.
    """
    cluster = read_cluster(settings.state_dir)
    if cluster.attached:
        raise Conflict(f"the Ray at {cluster.address} was not started by noodle-ray: whoever did can end it")
    if cluster.joined and cluster.is_running():
        _move_away(cluster, deadline_s, progress)
    progress("ending Ray here")
    for process in cluster.processes:
        ray_process.stop(process)
    code = _run(command, progress) if command else 0
    progress("starting Ray again")
    if subprocess.run([*NOODLE, "up"], check=False).returncode:
        raise Unavailable("Ray did not start again: see above, and call `noodle up` when that is mended")
    if code:
        raise Unavailable(f"{command!r} failed with exit code {code}; Ray runs again all the same")


def _run(command: str, progress: Progress) -> int:
    progress(f"running {command!r}")
    return subprocess.run(command, shell=True, check=False).returncode  # noqa: S602  (its user's own)


def _move_away(cluster: ClusterFile, deadline_s: float, progress: Progress) -> None:
    """By a process of its own: Ray ends those that are connected to a raylet together with it."""
    [node] = cluster.processes
    progress(f"moving away what runs on {node.node_address}, for {deadline_s:g} s at most")
    asked = ["drain", node.node_address, "--deadline", f"{deadline_s:g}s", "--no-wait"]
    if subprocess.run([*NOODLE, *asked], check=False).returncode:
        raise Unavailable("this node cannot be drained now: see above; `noodle down` ends it all the same")
    end = time.monotonic() + deadline_s + GRACE_S
    while process_session.members(node.pid) and time.monotonic() < end:
        time.sleep(LOOK_S)
