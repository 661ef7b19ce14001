"""What Grafana reads when it starts: where Prometheus is, and in which folder dashboards lie."""

from __future__ import annotations

from typing import Any

from noodle_ray.entry.monitoring.scraping import INTERVAL_S

DASHBOARDS = "/var/lib/grafana/dashboards"
"""Where Grafana finds the dashboards; the folder `grafana/dashboards` is to be put, linked or mounted there."""


def datasources(prometheus_url: str) -> dict[str, Any]:
    source = {
        "name": "Prometheus of noodle-ray",
        "uid": "noodle-ray-prometheus",
        "type": "prometheus",
        "access": "proxy",
        "url": prometheus_url,
        "isDefault": True,
        # What $__rate_interval is reckoned from: a rate over less than four scrapes has gaps.
        "jsonData": {"timeInterval": f"{INTERVAL_S}s"},
    }
    return {"apiVersion": 1, "datasources": [source]}


def providers(folder: str = DASHBOARDS) -> dict[str, Any]:
    provider = {
        "name": "noodle-ray",
        "folder": "noodle-ray",
        "type": "file",
        "allowUiUpdates": False,
        "options": {"path": folder},
    }
    return {"apiVersion": 1, "providers": [provider]}
