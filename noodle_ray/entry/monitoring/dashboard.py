"""The Grafana dashboard: one panel for each metric, in rows by area."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from noodle_ray.entry.monitoring.queries import Query, queries_of
from noodle_ray.metric import AREAS, METRICS, Metric

UID, TITLE = "noodle-ray", "noodle-ray"
SCHEMA_VERSION = 39
WIDTH, HEIGHT, COLUMNS = 8, 7, 3
"""Of a panel, on Grafana's grid of 24 columns."""

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def dashboard(metrics: Sequence[Metric] = METRICS) -> dict[str, Any]:
    """The dashboard as Grafana's JSON model; the same metrics give the same."""
    return {
        "uid": UID,
        "title": TITLE,
        "description": "Every metric of noodle-ray. Made by `noodle monitoring write`.",
        "tags": ["noodle-ray", "ray"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timepicker": {},
        "timezone": "browser",
        "annotations": {"list": []},
        "links": [],
        "templating": {"list": [_datasource_choice()]},
        "panels": [{"id": number, **panel} for number, panel in enumerate(_panels(metrics), start=1)],
    }


def _datasource_choice() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "hide": 0}


def _panels(metrics: Iterable[Metric]) -> Iterator[dict[str, Any]]:
    top = 0
    for area in AREAS:
        there = [metric for metric in metrics if metric.area == area]
        if not there:
            continue
        yield {"type": "row", "title": area, "collapsed": False, "gridPos": _place(0, top, 24, 1), "panels": []}
        for number, metric in enumerate(there):
            line, column = divmod(number, COLUMNS)
            yield _panel(metric, _place(column * WIDTH, top + 1 + line * HEIGHT, WIDTH, HEIGHT))
        top += 1 + -(-len(there) // COLUMNS) * HEIGHT


def _place(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


def _panel(metric: Metric, place: dict[str, int]) -> dict[str, Any]:
    return {
        "type": "timeseries",
        "title": metric.title,
        "description": f"{metric.description} ({metric.exposed})",
        "datasource": DATASOURCE,
        "gridPos": place,
        "targets": [_target(query, chr(ord("A") + number)) for number, query in enumerate(queries_of(metric))],
        "fieldConfig": {"defaults": {"unit": metric.unit, "min": 0, "custom": {"fillOpacity": 8}}, "overrides": []},
        "options": {
            "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    }


def _target(query: Query, name: str) -> dict[str, Any]:
    return {
        "refId": name,
        "datasource": DATASOURCE,
        "expr": query.expression,
        "legendFormat": query.legend,
        "range": True,
    }
