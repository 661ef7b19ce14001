"""Placement, live modules and multimodal fusion for Ray clusters."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from noodle_ray.entry.client import Cluster, connect, read_token
    from noodle_ray.entry.http_client import GatewayClient
    from noodle_ray.entry.retry_budget import RetryBudget
    from noodle_ray.fusion.inputs import MultimodalInput
    from noodle_ray.fusion.result import FusionResult
    from noodle_ray.placement.request import Request
    from noodle_ray.resources import Demand
    from noodle_ray.services.directory import Registration, Service

__version__ = "0.1.0"
__all__ = [
    "Cluster",
    "Demand",
    "FusionResult",
    "GatewayClient",
    "MultimodalInput",
    "Registration",
    "Request",
    "RetryBudget",
    "Service",
    "connect",
    "read_token",
]

# Handed on lazily, so that importing the core imports neither Ray nor torch.
_HOMES = {
    "Cluster": "noodle_ray.entry.client",
    "Demand": "noodle_ray.resources",
    "FusionResult": "noodle_ray.fusion.result",
    "GatewayClient": "noodle_ray.entry.http_client",
    "MultimodalInput": "noodle_ray.fusion.inputs",
    "Registration": "noodle_ray.services.directory",
    "Request": "noodle_ray.placement.request",
    "RetryBudget": "noodle_ray.entry.retry_budget",
    "Service": "noodle_ray.services.directory",
    "connect": "noodle_ray.entry.client",
    "read_token": "noodle_ray.entry.client",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
