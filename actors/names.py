"""The names under which our actors are found, and where they run."""

from __future__ import annotations

from typing import Any, Final

NAMESPACE = "noodle"
HOST_NAMESPACES = NAMESPACE + "-host-"
"""Module hosts share a name, and have a namespace each, which begins so: Ray keeps figures for every name of an actor
that a process has started, for ever, and packs all of them whenever it reports."""
NODE_MANAGER: Final = "node-manager"
MODULE_REGISTRY: Final = "module-registry"
SERVICE_DIRECTORY: Final = "service-directory"
FUSION_APP = "fusion"
FUSION_ENGINE = "FusionEngine"
FUSION_KEEPER = "FusionKeeper"
"""Deployments of the fusion application."""
GATEWAY_APP = "gateway"
MODULE_APPS: Final = "noodle-module-"
"""What the names of the Serve applications begin with that run modules."""


def is_ours(namespace: str) -> bool:
    """Whether the actors in it are of this project."""
    return namespace == NAMESPACE or namespace.startswith(HOST_NAMESPACES)


def module_app(module: str, host_actor: str) -> str:
    """The Serve application of the module host with this actor id (hex): each host has its own."""
    return f"{MODULE_APPS}{module}-{host_actor[:8]}"


def agent_name(node_id: str) -> str:
    return f"node-agent-{node_id[:16]}"


def on_the_head(name: str) -> dict[str, Any]:
    """Options of a control actor: one of its name, on the head, restarted for ever, using none of the ledger's CPUs."""
    return {
        "name": name,
        "namespace": NAMESPACE,
        "lifetime": "detached",
        "get_if_exists": True,
        "num_cpus": 0,
        "resources": {"node:__internal_head__": 0.001},
        "max_restarts": -1,
        "max_concurrency": 10_000,  # those who wait for room each take one
    }
