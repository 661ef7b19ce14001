"""The monitoring files: the dashboard is complete and well-formed, and the command writes what runs here."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from noodle_ray.entry.cli.main import app
from noodle_ray.entry.cluster.cluster_file import ClusterFile
from noodle_ray.entry.monitoring.dashboard import dashboard
from noodle_ray.entry.monitoring.files import monitoring_files, write_files
from noodle_ray.entry.monitoring.queries import queries_of
from noodle_ray.entry.monitoring.scraping import Targets
from noodle_ray.errors import InvalidInput
from noodle_ray.metric import AREAS, METRICS, Metric

TARGETS = Targets("http://10.0.0.1:8000", "http://10.0.0.1:8265", Path("/etc/noodle/token"), "10.0.0.1:9101")


def panels(kind: str) -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] == kind]


def differences(ours: Any, again: Any, place: str = "") -> list[str]:
    """Where something of ours is gone or altered; what was added by default does not count."""
    if isinstance(ours, dict) and isinstance(again, dict):
        gone = [f"{place}/{key}" for key in ours if key not in again]
        kept = [key for key in ours if key in again]
        return gone + [found for key in kept for found in differences(ours[key], again[key], f"{place}/{key}")]
    if isinstance(ours, list) and isinstance(again, list) and len(ours) == len(again):
        pairs = enumerate(zip(ours, again, strict=True))
        return [found for number, pair in pairs for found in differences(*pair, f"{place}/{number}")]
    return [] if ours == again else [place]


class TestDashboard:
    def test_has_a_panel_for_each_metric(self) -> None:
        shown = panels("timeseries")
        assert len(shown) == len(METRICS) == len({metric.exposed for metric in METRICS})
        for metric in METRICS:
            own = [panel for panel in shown if panel["description"].endswith(f"({metric.exposed})")]
            assert len(own) == 1
            assert all(metric.exposed in target["expr"] for target in own[0]["targets"])

    def test_has_a_row_for_each_area(self) -> None:
        assert [panel["title"] for panel in panels("row")] == list(AREAS)
        assert {metric.area for metric in METRICS} == set(AREAS)

    def test_panels_lie_beside_each_other(self) -> None:
        cells = [
            (x, y)
            for panel in dashboard()["panels"]
            for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
            for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
        ]
        assert len(cells) == len(set(cells))
        assert max(x for x, _ in cells) < 24

    def test_names_are_given_once(self) -> None:
        ids = [panel["id"] for panel in dashboard()["panels"]]
        assert len(ids) == len(set(ids))
        titles = [panel["title"] for panel in panels("timeseries")]
        assert len(titles) == len(set(titles))

    def test_is_the_same_each_time(self) -> None:
        assert monitoring_files(TARGETS, "http://p") == monitoring_files(TARGETS, "http://p")
        assert json.loads(monitoring_files(TARGETS, "http://p")["grafana/dashboards/noodle-ray.json"]) == dashboard()

    def test_is_what_grafanas_own_model_says_that_it_is(self) -> None:
        """Read by Grafana's model and written again, nothing of it is gone: an unknown or misplaced field would be."""
        models = pytest.importorskip("grafana_foundation_sdk.models.dashboard", reason="no Grafana SDK here")
        encoder = pytest.importorskip("grafana_foundation_sdk.cog.encoder")
        read = models.Dashboard.from_json(dashboard())
        again = json.loads(encoder.JSONEncoder(sort_keys=True).encode(read))
        assert differences(dashboard(), again) == []
        stray = {**dashboard(), "pannels": [], "panels": [{**panels("timeseries")[0], "gridpos": {}}]}
        again = json.loads(encoder.JSONEncoder().encode(models.Dashboard.from_json(stray)))
        assert differences(stray, again) == ["/pannels", "/panels/0/gridpos"]


class TestQueries:
    def metric(self, kind: Any, labels: tuple[str, ...] = (), source: Any = "gateway") -> Metric:
        return Metric("noodle_x", kind, "What.", "Title", "Fleet", source, labels)

    @pytest.mark.parametrize(
        ("kind", "labels", "source", "expression", "legend"),
        [
            ("gauge", (), "gateway", "max(noodle_x)", "Title"),
            ("gauge", ("a", "b"), "manager", "max by (a, b) (ray_noodle_x)", "{{a}} {{b}}"),
            ("counter", ("a",), "gateway", "sum by (a) (rate(noodle_x_total[$__rate_interval]))", "{{a}}"),
            ("tally", (), "manager", "sum(increase(ray_noodle_x[$__rate_interval]))", "Title"),
        ],
    )
    def test_go_by_kind(self, kind: str, labels: tuple[str, ...], source: str, expression: str, legend: str) -> None:
        [query] = queries_of(self.metric(kind, labels, source))
        assert (query.expression, query.legend) == (expression, legend)

    def test_of_a_histogram_are_quantiles(self) -> None:
        queries = queries_of(self.metric("histogram"))
        assert [query.legend for query in queries] == ["median", "95th percentile", "99th percentile"]
        by_bucket = "sum by (le) (rate(noodle_x_bucket[$__rate_interval]))"
        assert queries[2].expression == f"histogram_quantile(0.99, {by_bucket})"


class TestFiles:
    def test_prometheus_is_told_all_targets_and_no_token(self) -> None:
        jobs = yaml.safe_load(monitoring_files(TARGETS, "http://p")["prometheus.yml"])["scrape_configs"]
        assert [job["job_name"] for job in jobs] == ["noodle-gateway", "noodle-ray", "noodle-haproxy"]
        assert jobs[0]["static_configs"] == [{"targets": ["10.0.0.1:8000"]}]
        assert jobs[0]["authorization"]["credentials_file"] == "/etc/noodle/token"
        assert jobs[1]["http_sd_configs"][0]["url"] == "http://10.0.0.1:8265/api/prometheus/sd"
        assert jobs[2]["static_configs"] == [{"targets": ["10.0.0.1:9101"]}]

    def test_what_is_in_the_way_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "grafana").write_text("")
        with pytest.raises(InvalidInput, match=f"folder: {tmp_path}/grafana"):
            write_files(tmp_path, monitoring_files(TARGETS, "http://p"))


class TestCommand:
    @pytest.fixture(autouse=True)
    def _state(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NOODLE_STATE_DIR", str(tmp_path / "state"))
        monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)

    def write(self, tmp_path: Path, *words: str) -> Any:
        said = CliRunner().invoke(app, ["monitoring", "write", str(tmp_path / "out"), "--json", *words])
        assert said.exit_code == 0, said.output
        assert [Path(path).is_file() for path in json.loads(said.stdout)["files"]] == [True] * 4
        return yaml.safe_load((tmp_path / "out" / "prometheus.yml").read_text())["scrape_configs"]

    def test_without_a_cluster_writes_the_usual_places(self, tmp_path: Path) -> None:
        gateway, ray = self.write(tmp_path)
        assert gateway["static_configs"] == [{"targets": ["127.0.0.1:8000"]}]
        assert gateway["authorization"]["credentials_file"] == str(tmp_path / "state" / "token")
        assert ray["http_sd_configs"][0]["url"] == "http://127.0.0.1:8265/api/prometheus/sd"

    def test_with_a_cluster_writes_where_it_is(self, tmp_path: Path) -> None:
        urls = {"dashboard_url": "http://127.0.0.1:8266", "gateway_url": "http://127.0.0.1:8001"}
        ClusterFile(address="127.0.0.2:6379", unguarded_ports=(20_001, 20_002), **urls).save(tmp_path / "state")
        gateway, ray, haproxy = self.write(tmp_path)
        assert gateway["static_configs"] == [{"targets": ["127.0.0.1:8001"]}]
        assert ray["http_sd_configs"][0]["url"] == "http://127.0.0.1:8266/api/prometheus/sd"
        assert haproxy["static_configs"] == [{"targets": ["127.0.0.1:20002"]}]

    def test_what_is_given_goes_first(self, tmp_path: Path) -> None:
        gateway, _ = self.write(tmp_path, "--gateway", "https://noodle.example:8443/", "--token", "/run/token")
        assert (gateway["scheme"], gateway["static_configs"]) == ("https", [{"targets": ["noodle.example:8443"]}])
        assert gateway["authorization"]["credentials_file"] == "/run/token"

    @pytest.mark.parametrize("option", ["--gateway", "--dashboard", "--prometheus"])
    def test_what_is_no_url_is_refused(self, tmp_path: Path, option: str) -> None:
        said = CliRunner().invoke(app, ["monitoring", "write", str(tmp_path), option, "10.0.0.1:8000"])
        assert isinstance(said.exception, InvalidInput)
        assert str(said.exception).startswith(f"invalid input: {option[2:]}: must be a URL")
