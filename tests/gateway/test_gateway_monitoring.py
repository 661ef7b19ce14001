"""What `noodle monitoring write` writes, loaded into a real Prometheus that scrapes a gateway; every panel is asked."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from gateway_fakes import TOKEN
from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest

from noodle_ray.entry.monitoring.dashboard import dashboard
from noodle_ray.entry.monitoring.files import monitoring_files
from noodle_ray.entry.monitoring.queries import WINDOW
from noodle_ray.entry.monitoring.scraping import Targets
from noodle_ray.metric import DECISION_SECONDS, MANAGER_FIGURES

WAIT_S = 90.0
"""Far beyond the few seconds that it takes: the machine may be busy."""

pytestmark = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")), reason="Prometheus is not installed"
)


def exported_by_ray() -> bytes:
    """The node manager's metrics as Ray exports them: with its prefix, and labels of its own."""
    registry = CollectorRegistry()
    labels = {"WorkerId": "w", "SessionName": "s"}
    for metric in MANAGER_FIGURES:
        Gauge(metric.exposed, metric.description, list(labels), registry=registry).labels(**labels).set(1)
    times = Histogram(DECISION_SECONDS.exposed, "…", list(labels), buckets=DECISION_SECONDS.buckets, registry=registry)
    times.labels(**labels).observe(0.0004)
    return generate_latest(registry)


@pytest.fixture
def ray_port() -> Iterator[int]:
    """What Ray shows of itself: the dashboard's list of exporters, for those who have the token, and one exporter."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            listing = json.dumps([{"labels": {"job": "ray"}, "targets": [f"127.0.0.1:{self.server.server_port}"]}])  # type: ignore[attr-defined]
            if self.path == "/metrics":
                self._answer(200, "text/plain", exported_by_ray())
            elif self.headers["Authorization"] != f"Bearer {TOKEN}":
                self._answer(401, "text/plain", b"")
            else:
                self._answer(200, "application/json", listing.encode())

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def configuration(tmp_path: Path, port: int, ray_port: int) -> Path:
    """As it is written, but for how often is scraped."""
    token = tmp_path / "token"
    token.write_text(TOKEN)
    targets = Targets(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{ray_port}", token)
    written = yaml.safe_load(monitoring_files(targets, "")["prometheus.yml"])
    written["global"]["scrape_interval"] = "1s"
    written["scrape_configs"][1]["http_sd_configs"][0]["refresh_interval"] = "1s"
    path = tmp_path / "prometheus.yml"
    path.write_text(yaml.safe_dump(written))
    return path


@pytest.fixture
def prometheus(tmp_path: Path, configuration: Path) -> Iterator[httpx.Client]:
    log = tmp_path / "prometheus.log"
    options = [f"--config.file={configuration}", f"--storage.tsdb.path={tmp_path / 'data'}"]
    with log.open("wb") as output:
        # Port 0 is any; it says which in its log.
        server = subprocess.Popen(["prometheus", *options, "--web.listen-address=127.0.0.1:0"], stderr=output)
    try:
        address = eventually(lambda: _address_in(log))
        with httpx.Client(base_url=f"http://{address}/api/v1", trust_env=False, timeout=30) as client:
            eventually(lambda: client.get(f"http://{address}/-/ready").status_code == 200)
            yield client
    finally:
        server.terminate()
        server.wait(timeout=WAIT_S)


def _address_in(log: Path) -> str:
    lines = [line for line in log.read_text().splitlines() if '"Listening on"' in line]
    return lines[0].partition("address=")[2].strip() if lines else ""


def eventually(look: Any) -> Any:
    until = time.monotonic() + WAIT_S
    while not (found := look()):
        assert time.monotonic() < until
        time.sleep(0.2)
    return found


def expressions() -> dict[str, str]:
    """Every panel's queries, with a window that fits the tests' interval."""
    targets = [(panel["title"], target) for panel in dashboard()["panels"] for target in panel.get("targets", ())]
    return {f"{title} {target['refId']}": target["expr"].replace(WINDOW, "20s") for title, target in targets}


def test_the_configuration_is_one(configuration: Path) -> None:
    said = subprocess.run(["promtool", "check", "config", configuration], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr


def test_every_panel_has_data(prometheus: httpx.Client, port: int) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    demand = {"demand": {"cpus": 2}}
    allocations = f"http://127.0.0.1:{port}/api/distributed/resources/allocations"
    httpx.post(allocations, json=demand, headers=headers, trust_env=False).raise_for_status()

    def without_data() -> Mapping[str, Any]:
        httpx.get(f"http://127.0.0.1:{port}/api/services", headers=headers, trust_env=False)
        answers = {name: prometheus.get("/query", params={"query": one}).json() for name, one in expressions().items()}
        assert {name: answer for name, answer in answers.items() if answer["status"] != "success"} == {}
        return {name: answer for name, answer in answers.items() if not answer["data"]["result"]}

    until = time.monotonic() + WAIT_S
    while missing := without_data():
        assert time.monotonic() < until, missing
        time.sleep(0.5)
    targets = prometheus.get("/targets").json()["data"]["activeTargets"]
    assert {target["health"] for target in targets} == {"up"}
    assert {target["labels"]["job"] for target in targets} == {"noodle-gateway", "ray"}


def test_queries_that_are_none_are_noticed(prometheus: httpx.Client) -> None:
    assert prometheus.get("/query", params={"query": "sum by (rate(x[1m])"}).json()["status"] == "error"
