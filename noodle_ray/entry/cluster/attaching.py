"""Onto a Ray that runs already: installs our actors and applications there."""

from __future__ import annotations

from noodle_ray.entry.cluster.cluster_file import ClusterFile, ensure_token
from noodle_ray.entry.cluster.launch import install, try_store
from noodle_ray.entry.cluster.left_behind import refuse_if_left_behind, refuse_if_running
from noodle_ray.entry.cluster.local_nodes import Progress
from noodle_ray.settings import Settings


def attach(settings: Settings, address: str, gateway_host: str, gateway_port: int, progress: Progress) -> ClusterFile:
    """Installs onto a Ray that already runs, or again; LEFT_TO_RAY says what stays as that Ray was started."""
    refuse_if_running(settings, attached_too=False)
    refuse_if_left_behind(settings)
    ensure_token(settings.state_dir)
    try_store(settings)
    cluster = ClusterFile(address=address, dashboard_url="", gateway_url="", attached=True)
    return install(settings, cluster, gateway_host, gateway_port, progress)


LEFT_TO_RAY = {
    "RAY_AUTH_MODE=token": "without it, whoever reaches Ray's ports runs code on the cluster",
    "RAY_gcs_storage=rocksdb": "without it, a head that dies forgets nodes, actors and groups",
    "RAY_raylet_report_resources_period_milliseconds=10": "without it, an allocation after another may wait a second",
    "RAY_gcs_create_placement_group_retry_max_interval_ms=20": "without it, freed capacity is given out a second late",
    "RAY_debug_dump_period_milliseconds=1000": "without it, which GPU Ray gave out is known after ten seconds",
    "RAY_health_check_period_ms=500": "without it, a dead node is known after twelve seconds instead of one",
    "RAY_SERVE_ENABLE_HA_PROXY=1": "without it, the gateway answers a third as many requests",
}
"""What `attach` cannot change on a Ray that runs, nor see from outside, and what each is good for."""
