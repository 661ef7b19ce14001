"""noodle monitoring: what Prometheus and Grafana are to be configured with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from noodle_ray.entry.cli.output import AsJson, console, print_json
from noodle_ray.entry.cluster.cluster_file import read_cluster, token_path
from noodle_ray.entry.monitoring.files import monitoring_files, write_files
from noodle_ray.entry.monitoring.provisioning import DASHBOARDS
from noodle_ray.entry.monitoring.scraping import Targets
from noodle_ray.errors import InvalidInput, NotFound
from noodle_ray.settings import Settings, read_settings

app = typer.Typer(help="Configuration for Prometheus and Grafana.", no_args_is_help=True)

GATEWAY, DASHBOARD, PROMETHEUS = "http://127.0.0.1:8000", "http://127.0.0.1:8265", "http://127.0.0.1:9090"


@app.callback()
def _group() -> None:
    """So that one command stays a command of the group."""


@app.command()
def write(
    folder: Annotated[Path, typer.Argument(file_okay=False, help="Made where it is not there.")],
    gateway: Annotated[str, typer.Option(help=f"URL; default: the running cluster's, else {GATEWAY}.")] = "",
    dashboard: Annotated[str, typer.Option(help=f"Ray's, URL; default: the cluster's, else {DASHBOARD}.")] = "",
    prometheus: Annotated[str, typer.Option(help="Where Grafana finds Prometheus, URL.")] = PROMETHEUS,
    dashboards: Annotated[str, typer.Option(help="Where Grafana finds the folder of dashboards.")] = DASHBOARDS,
    token: Annotated[Path | None, typer.Option(help="The token's file, as Prometheus' machine has it.")] = None,
    json: AsJson = False,
) -> None:
    """Write prometheus.yml, a Grafana dashboard of every metric, and what provisions it."""
    targets = _targets(read_settings(), _checked("gateway", gateway), _checked("dashboard", dashboard), token)
    written = write_files(folder, monitoring_files(targets, _checked("prometheus", prometheus), dashboards))
    if json:
        print_json({"files": [str(path) for path in written]})
        return
    for path in written:
        console.print(str(path), highlight=False, markup=False, soft_wrap=True)


def _targets(settings: Settings, gateway: str, dashboard: str, token: Path | None) -> Targets:
    token = (token or token_path(settings.state_dir)).absolute()
    try:
        found = Targets.of(read_cluster(settings.state_dir), token)
    except NotFound:
        found = Targets(GATEWAY, DASHBOARD, token)
    return Targets(gateway or found.gateway_url or GATEWAY, dashboard or found.dashboard_url, token, found.haproxy)


def _checked(field: str, url: str) -> str:
    if url and not url.startswith(("http://", "https://")):
        raise InvalidInput.of(field, "must be a URL that begins with http:// or https://", url)
    return url.rstrip("/")
