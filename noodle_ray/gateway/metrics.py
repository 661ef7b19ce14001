"""What Prometheus reads: requests as they were answered, and the cluster as its ports describe it at that moment."""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from collections.abc import Awaitable, Iterable, Mapping
from typing import Any, TypeVar

import structlog
from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from noodle_ray import metric
from noodle_ray.errors import NoodleError
from noodle_ray.gateway.ports import Ports
from noodle_ray.metric import Metric

log = structlog.get_logger()
router = APIRouter(tags=["operation"])
Answer = TypeVar("Answer")

ANSWER_TIMEOUT_S = 5.0
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestMetrics:
    """Counts and times of the requests that one application answered."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        count, time = metric.HTTP_REQUESTS, metric.HTTP_REQUEST_SECONDS
        self._requests = Counter(count.name, count.description, count.labels, registry=self.registry)
        self._seconds = Histogram(
            time.name, time.description, time.labels, buckets=time.buckets, registry=self.registry
        )

    def note(self, method: str, route: str, status: int, seconds: float) -> None:
        """One answered request; `route` is the route's template. A status of 0 means that no answer was sent."""
        method = method if method in _METHODS else "other"
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)


@router.get(
    "/metrics",
    summary="Metrics in Prometheus' text format",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "The metrics."}},
)
async def read_metrics(request: Request) -> Response:
    """Requests by route, and nodes, resources, allocations and modules as they are now.

    `noodle_component_up` is 0 for a component that does not answer; its own gauges are then missing.
    """
    requests: RequestMetrics = request.app.state.metrics
    cluster = await read_cluster(request.app.state.ports)
    return Response(
        generate_latest(requests.registry) + generate_latest(cluster), headers={"Content-Type": CONTENT_TYPE_LATEST}
    )


async def read_cluster(ports: Ports) -> CollectorRegistry:
    """Asks all ports side by side, and gives their answers as gauges."""
    nodes, totals, allocations, modules = await asyncio.gather(
        _ask("nodes", ports.nodes.nodes()),
        _ask("resources", ports.resources.totals()),
        _ask("allocations", ports.resources.allocations()),
        _ask("modules", ports.modules.modules()),
    )
    registry = CollectorRegistry()
    answers: Mapping[str, object] = {
        "nodes": nodes,
        "resources": totals,
        "allocations": allocations,
        "modules": modules,
    }
    _component_gauge(registry, answers)
    if nodes is not None:
        _state_gauge(registry, metric.NODES, (node.state for node in nodes))
    if totals is not None:
        _resource_gauges(registry, totals)
    if allocations is not None:
        _state_gauge(registry, metric.ALLOCATIONS, (allocation.state for allocation in allocations))
    if modules is not None:
        _gauge(registry, metric.MODULES).set(len(modules))
    return registry


async def _ask(name: str, answer: Awaitable[Answer]) -> Answer | None:
    """The answer, or None from a component that cannot give one now: the other figures are still worth having."""
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            return await answer
    except (NoodleError, TimeoutError) as error:
        log.warning("a component gave no figures", component=name, error=str(error) or "timed out")
        return None


def _component_gauge(registry: CollectorRegistry, answers: Mapping[str, object]) -> None:
    gauge = _gauge(registry, metric.COMPONENT_UP)
    for name, answer in answers.items():
        gauge.labels(name).set(answer is not None)


def _gauge(registry: CollectorRegistry, defined: Metric) -> Gauge:
    return Gauge(defined.name, defined.description, defined.labels, registry=registry)


def _state_gauge(registry: CollectorRegistry, defined: Metric, states: Iterable[str]) -> None:
    gauge = _gauge(registry, defined)
    for state, count in Tally(states).items():
        gauge.labels(state).set(count)


def _resource_gauges(registry: CollectorRegistry, totals: Mapping[str, Any]) -> None:
    """Each dimension of the fleet (total, held, others, free), and the plain figures beside them."""
    amounts = _gauge(registry, metric.RESOURCES)
    _gauge(registry, metric.ALLOCATION_RATIO).set(totals.get("allocation_ratio", 0.0))
    _gauge(registry, metric.QUEUE_LENGTH).set(totals.get("waiting", 0))
    for resource, parts in totals.items():
        if isinstance(parts, Mapping):
            for part, amount in parts.items():
                amounts.labels(resource, part).set(amount)
