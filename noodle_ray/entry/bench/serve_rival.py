"""The rival: Ray Serve, which runs the same classes as applications of one deployment with one replica."""

from __future__ import annotations

from typing import Any

from ray import serve

APP = "bench-rival"
MAX_ONGOING = 1000
"""Calls that its one replica takes at once: so many that none waits for want of a place."""


def start_serve() -> None:
    """Starts its controller; without its HTTP side, for handles are called."""
    serve.start(proxy_location="Disabled")


def deploy(kind: Any) -> Any:
    """Runs the class, or replaces what runs by it; returns its handle when Serve says that it is ready. Blocks."""
    deployment = serve.deployment(name="Rival", num_replicas=1, max_ongoing_requests=MAX_ONGOING)(kind)
    return serve.run(deployment.bind(), name=APP, route_prefix=None)


def remove() -> None:
    """Ends the application. Blocks."""
    serve.delete(APP)
