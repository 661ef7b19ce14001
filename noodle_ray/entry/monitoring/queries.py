"""PromQL for a metric, by its kind."""

from __future__ import annotations

from dataclasses import dataclass

from noodle_ray.metric import Metric

WINDOW = "$__rate_interval"
"""Grafana's own: never shorter than four scrapes, never shorter than the graph's step."""

QUANTILES = {"0.5": "median", "0.95": "95th percentile", "0.99": "99th percentile"}


@dataclass(frozen=True, slots=True)
class Query:
    """One line of a panel, or one line for each combination of labels; `legend` is as Grafana has it."""

    expression: str
    legend: str


def queries_of(metric: Metric) -> list[Query]:
    """What a panel of this metric asks."""
    if metric.expression:
        return [Query(metric.expression, _legend(metric))]
    if metric.kind == "histogram":
        by_bucket = f"sum by (le) (rate({metric.exposed}_bucket[{WINDOW}]))"
        return [Query(f"histogram_quantile({part}, {by_bucket})", name) for part, name in QUANTILES.items()]
    return [Query(f"{_aggregate(metric)}({_measured(metric)})", _legend(metric))]


def _measured(metric: Metric) -> str:
    measured = {"counter": f"rate({metric.exposed}[{WINDOW}])", "tally": f"increase({metric.exposed}[{WINDOW}])"}
    return measured.get(metric.kind, metric.exposed)


def _aggregate(metric: Metric) -> str:
    """Replicas of the gateway count their own requests, but all describe the same cluster."""
    how = "max" if metric.kind == "gauge" else "sum"
    return f"{how} by ({', '.join(metric.labels)}) " if metric.labels else how


def _legend(metric: Metric) -> str:
    return " ".join("{{" + label + "}}" for label in metric.labels) or metric.title
