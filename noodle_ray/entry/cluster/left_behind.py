"""What was started here before: whether it runs, or ended without a `down` and may be gone on with."""

from __future__ import annotations

from noodle_ray.entry.cluster import ray_tables
from noodle_ray.entry.cluster.cluster_file import ClusterFile, read_cluster
from noodle_ray.errors import Conflict, NoodleError, NotFound
from noodle_ray.settings import Settings


def left_behind(settings: Settings) -> ClusterFile | None:
    """A cluster, or a node of one, that was started here and ended without a `down`. Raises CorruptData."""
    try:
        before = read_cluster(settings.state_dir)
    except NotFound:
        return None
    knows_how = bool(before.processes) and all(process.command for process in before.processes)
    return before if knows_how and not before.attached and not before.is_running() else None


def refuse_if_running(settings: Settings, attached_too: bool = True) -> None:
    """Raises Conflict where a cluster of this state directory runs."""
    try:
        cluster = read_cluster(settings.state_dir)
    except NoodleError:
        return
    if (cluster.attached and attached_too) or cluster.is_running():
        raise Conflict(f"a cluster of {settings.state_dir} is running at {cluster.address}; `noodle down` ends it")


def refuse_if_left_behind(settings: Settings) -> None:
    """Raises Conflict where a head that ended here without a `down` would be forgotten."""
    before = left_behind(settings)
    if before is not None and not before.joined:
        raise Conflict(
            f"the cluster at {before.address} ended here without a `noodle down`: `noodle up` goes on with it, "
            "`noodle down` ends it for good"
        )


def refuse_other_tables(settings: Settings, before: ClusterFile) -> None:
    """Raises Conflict where the tables of what was started here are elsewhere than what is set now."""
    if before.joined:
        return
    for name, was, now in (
        (ray_tables.ADDRESS, before.tables, ray_tables.where(settings)),
        ("NOODLE_DATABASE_URL", before.store, settings.store_name),
    ):
        if was and was != now:
            raise Conflict(
                f"the cluster at {before.address} has its tables at {was}, and {name} leads to {now}: set it as then"
            )
