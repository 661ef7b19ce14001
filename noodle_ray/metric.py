"""Every metric of ours: what it is called, what it says, and how it is to be shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "tally", "histogram"]
Source = Literal["gateway", "manager"]

PREFIX = "noodle_"

HTTP_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 5.0, 10.0)
DECISION_BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1)

AREAS = ("Requests", "Fleet", "Placement", "Failover", "Modules")


@dataclass(frozen=True, slots=True)
class Metric:
    """`name` is what it is made with; `exposed` is what Prometheus finds.

    A tally is a count that only grows, but is shown as a gauge, because it is kept elsewhere. `unit`: as Grafana has
    it, of what the panel shows. `expression`: PromQL in place of the kind's usual one; `buckets`: of a histogram.
    """

    name: str
    kind: Kind
    description: str
    title: str
    area: str
    source: Source
    labels: tuple[str, ...] = ()
    unit: str = "short"
    buckets: tuple[float, ...] = ()
    expression: str = ""

    @property
    def exposed(self) -> str:
        """Ray puts `ray_` before the names of what is measured by its own means."""
        prefix = "ray_" if self.source == "manager" else ""
        return f"{prefix}{self.name}{'_total' if self.kind == 'counter' else ''}"


def _of_gateway(
    name: str,
    kind: Kind,
    area: str,
    title: str,
    description: str,
    *labels: str,
    unit: str = "short",
    expression: str = "",
) -> Metric:
    return Metric(PREFIX + name, kind, description, title, area, "gateway", labels, unit, expression=expression)


def _of_manager(name: str, kind: Kind, area: str, title: str, description: str, unit: str = "short") -> Metric:
    return Metric(PREFIX + name, kind, description, title, area, "manager", unit=unit)


HTTP_REQUESTS = _of_gateway(
    "http_requests", "counter", "Requests", "Requests", "Requests answered.", "method", "route", "status", unit="reqps"
)
HTTP_REQUEST_SECONDS = Metric(
    "noodle_http_request_seconds",
    "histogram",
    "Time to answer.",
    "Time to answer",
    "Requests",
    "gateway",
    ("method", "route"),
    "s",
    HTTP_BUCKETS_S,
)
COMPONENT_UP = _of_gateway(
    "component_up", "gauge", "Requests", "Components up", "Whether a component answers.", "component"
)
NODES = _of_gateway("nodes", "gauge", "Fleet", "Nodes", "Nodes, by state.", "state")
RESOURCES = _of_gateway(
    "resources",
    "gauge",
    "Fleet",
    "Resources, of the total",
    "Resources of the fleet.",
    "resource",
    "part",
    unit="percentunit",
    # CPUs and bytes share no axis: each is shown as its part of the total.
    expression='max by (resource, part) (noodle_resources{part!="total"}) / on (resource) group_left '
    'max by (resource) (noodle_resources{part="total"} > 0)',
)
ALLOCATION_RATIO = _of_gateway(
    "allocation_ratio",
    "gauge",
    "Placement",
    "Allocated",
    "Held part of the scarcest resource.",
    unit="percentunit",
)
QUEUE_LENGTH = _of_gateway("queue_length", "gauge", "Placement", "Queue", "Claims that wait for room.")
ALLOCATIONS = _of_gateway("allocations", "gauge", "Placement", "Allocations", "Allocations, by state.", "state")
MODULES = _of_gateway("modules", "gauge", "Modules", "Modules", "Modules in the registry.")

GATEWAY = (
    HTTP_REQUESTS,
    HTTP_REQUEST_SECONDS,
    COMPONENT_UP,
    NODES,
    RESOURCES,
    ALLOCATION_RATIO,
    QUEUE_LENGTH,
    ALLOCATIONS,
    MODULES,
)
"""What the gateway's own /metrics gives."""

DECISION_SECONDS = Metric(
    "noodle_decision_seconds",
    "histogram",
    "Time of one decision.",
    "Decisions",
    "Placement",
    "manager",
    unit="s",
    buckets=DECISION_BUCKETS_S,
)

_ALREADY = "the same from the manager itself"
MANAGER_FIGURES = (
    _of_manager("queue_length", "gauge", "Placement", f"Queue, {_ALREADY}", "Claims that wait for room."),
    _of_manager(
        "oldest_wait_seconds",
        "gauge",
        "Placement",
        "Longest wait",
        "How long the one has waited that waits longest.",
        unit="s",
    ),
    _of_manager(
        "allocation_ratio",
        "gauge",
        "Placement",
        f"Allocated, {_ALREADY}",
        "Held part of the scarcest resource.",
        unit="percentunit",
    ),
    _of_manager(
        "fragmented_gpus",
        "gauge",
        "Placement",
        "Fragmented GPUs",
        "Free GPU that a demand of the workload cannot be expected to use, in GPUs.",
    ),
    _of_manager(
        "ledger_differences",
        "tally",
        "Placement",
        "Ledger differences",
        "Differences between our ledger and Ray that were found and repaired.",
    ),
    _of_manager(
        "gpu_corrections",
        "tally",
        "Placement",
        "GPU corrections",
        "Bundles that Ray gave other GPUs than were expected.",
    ),
    _of_manager("nodes_alive", "gauge", "Fleet", "Nodes alive", "Nodes that are alive."),
    _of_manager(
        "nodes_suspect", "gauge", "Fleet", "Nodes suspect", "Nodes that are suspected: nothing new is placed there."
    ),
    _of_manager("nodes_dead", "gauge", "Fleet", "Nodes dead", "Nodes that are held for dead and have not left yet."),
    _of_manager("nodes_draining", "gauge", "Fleet", "Nodes draining", "Nodes that are being drained."),
    _of_manager("late_heartbeats", "gauge", "Fleet", "Late reports", "Nodes whose agent's last report is overdue."),
    _of_manager(
        "allocations_lost", "tally", "Failover", "Allocations lost", "Allocations that were lost with their node."
    ),
    _of_manager(
        "failovers", "tally", "Failover", "Failovers", "Allocations that were held anew after their node had died."
    ),
    _of_manager(
        "failover_seconds",
        "gauge",
        "Failover",
        "Last failover",
        "How long the last of these was without a home.",
        unit="s",
    ),
    _of_manager(
        "store_away_seconds",
        "gauge",
        "Fleet",
        "Store away",
        "How long the store has not answered; 0 while it does.",
        unit="s",
    ),
    _of_manager(
        "decision_ms_p50",
        "gauge",
        "Placement",
        "Decisions, median",
        "Time of one decision, median of the last thousand.",
        unit="ms",
    ),
    _of_manager(
        "decision_ms_p99",
        "gauge",
        "Placement",
        "Decisions, 99th percentile",
        "Time of one decision, 99th percentile of the last thousand.",
        unit="ms",
    ),
)
"""What the node manager exports as it is: gauges by Ray's means."""

METRICS = (*GATEWAY, *MANAGER_FIGURES, DECISION_SECONDS)
