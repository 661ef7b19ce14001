"""Prometheus' configuration: whom it asks for figures, and with which token."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from noodle_ray.entry.cluster.cluster_file import ClusterFile

INTERVAL_S = 15
NOTE = "# Made by `noodle monitoring write`, which overwrites it. The token is read from its file, at each scrape.\n"


@dataclass(frozen=True, slots=True)
class Targets:
    """Where figures come from. `token_file`: as Prometheus' machine and user have it.

    `haproxy`: HOST:PORT of HAProxy's own metrics, which asks nobody for a token; "" where there is none.
    """

    gateway_url: str
    dashboard_url: str
    token_file: Path
    haproxy: str = ""

    @classmethod
    def of(cls, cluster: ClusterFile, token_file: Path) -> Targets:
        """Those of a cluster on this machine."""
        # The second of the unguarded ports is that of the metrics; one without them has another proxy.
        metrics = cluster.unguarded_ports[1:2]
        haproxy = f"127.0.0.1:{metrics[0]}" if metrics else ""
        return cls(cluster.gateway_url, cluster.dashboard_url, token_file, haproxy)


def scrape_configuration(targets: Targets) -> dict[str, Any]:
    """What prometheus.yml says."""
    jobs = [_gateway_job(targets.gateway_url, targets.token_file)]
    if targets.dashboard_url:
        jobs.append(_ray_job(targets.dashboard_url, targets.token_file))
    if targets.haproxy:
        jobs.append({"job_name": "noodle-haproxy", "static_configs": [{"targets": [targets.haproxy]}]})
    return {"global": {"scrape_interval": f"{INTERVAL_S}s"}, "scrape_configs": jobs}


def _gateway_job(url: str, token_file: Path) -> dict[str, Any]:
    place = urlsplit(url)
    return {
        "job_name": "noodle-gateway",
        "scheme": place.scheme,
        "authorization": _token(token_file),
        "static_configs": [{"targets": [place.netloc]}],
    }


def _token(file: Path) -> dict[str, str]:
    return {"type": "Bearer", "credentials_file": str(file)}


def _ray_job(url: str, token_file: Path) -> dict[str, Any]:
    """Ray's dashboard lists every node's exporter, as nodes come and go. The exporters themselves ask for no token."""
    listing = {
        "url": f"{url}/api/prometheus/sd",
        "refresh_interval": f"{INTERVAL_S}s",
        "authorization": _token(token_file),
    }
    return {"job_name": "noodle-ray", "http_sd_configs": [listing]}
