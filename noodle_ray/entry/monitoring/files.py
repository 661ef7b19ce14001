"""The files, by their names in the folder that they are written to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from noodle_ray.entry.monitoring.dashboard import dashboard
from noodle_ray.entry.monitoring.provisioning import DASHBOARDS, datasources, providers
from noodle_ray.entry.monitoring.scraping import NOTE, Targets, scrape_configuration
from noodle_ray.errors import Fault, InvalidInput


def monitoring_files(targets: Targets, prometheus_url: str, dashboards: str = DASHBOARDS) -> dict[str, str]:
    """Name → content; the same arguments give the same."""
    return {
        "prometheus.yml": NOTE + _yaml(scrape_configuration(targets)),
        "grafana/provisioning/datasources/noodle-ray.yaml": _yaml(datasources(prometheus_url)),
        "grafana/provisioning/dashboards/noodle-ray.yaml": _yaml(providers(dashboards)),
        "grafana/dashboards/noodle-ray.json": json.dumps(dashboard(), indent=2) + "\n",
    }


def _yaml(content: dict[str, Any]) -> str:
    text: str = yaml.safe_dump(content, sort_keys=False)
    return text


def write_files(folder: Path, files: dict[str, str]) -> list[Path]:
    """Writes them below the folder, over what they replace. Raises InvalidInput where that cannot be."""
    written = []
    for name, content in files.items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
        except OSError as error:
            raise InvalidInput([Fault("folder", f"{path} cannot be written: {error.strerror}")]) from None
        written.append(path)
    return written
