"""Ray's autoscaler: which nodes it may launch, and our one request to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import ray
import yaml  # type: ignore[import-untyped]
from ray.autoscaler.sdk import request_resources
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.experimental import internal_kv

from noodle_ray.nodes.scaling import NodeType, Room
from noodle_ray.resources import ACCELERATOR_LABEL, NodeResources, to_units

_MONITORS = ("autoscaler/v2/monitor.py", "autoscaler/_private/monitor.py")
_ASKED = b"noodle-ray/asked-for-nodes"
"""Where we note, in Ray's own store, that the cluster's one request is ours: it outlives the manager that made it."""

_TYPE_PREFIX = "accelerator_type:"


def node_types() -> tuple[NodeType, ...]:
    """The kinds of nodes that the cluster's autoscaler may launch; none where there is none that tells.

    Ray itself does not say, so this reads the configuration that its monitor was started with. Call it on the head.
    """
    config = _configuration(str(ray.get_runtime_context().gcs_address))
    if config is None:
        return ()
    overall = int(config.get("max_workers") or 0)
    kinds = config.get("available_node_types") or {}
    found = (_read_type(name, kind, overall) for name, kind in sorted(kinds.items()))
    return tuple(kind for kind in found if kind.max_workers)


def _configuration(gcs_address: str) -> dict[str, Any] | None:
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if f"--gcs-address={gcs_address}" in command and any(part.endswith(_MONITORS) for part in command):
            for part in command:
                if part.startswith("--autoscaling-config="):
                    loaded: dict[str, Any] = yaml.safe_load(Path(part.partition("=")[2]).expanduser().read_text())
                    return loaded
    return None


def _read_type(name: str, kind: Mapping[str, Any], overall: int) -> NodeType:
    amounts: dict[str, float] = dict(kind.get("resources") or {})
    labels: dict[str, str] = {str(key): str(value) for key, value in (kind.get("labels") or {}).items()}
    typed = [key.removeprefix(_TYPE_PREFIX) for key in sorted(amounts) if key.startswith(_TYPE_PREFIX)]
    custom = {
        key: to_units(amount)
        for key, amount in amounts.items()
        if key not in ("CPU", "GPU", "memory", "object_store_memory") and ":" not in key
    }
    resources = NodeResources(
        cpu_units=to_units(amounts.get("CPU", 0)),
        memory_bytes=int(amounts.get("memory", 0)),
        gpus=int(amounts.get("GPU", 0)),
        accelerator_type=labels.get(ACCELERATOR_LABEL) or (typed[0] if typed else None),
        labels=labels,
        custom_units=custom,
    )
    return NodeType(name, resources, min(int(kind.get("max_workers", overall)), overall))


def ask(rooms: Sequence[Room]) -> None:
    """Has the cluster be able to hold all this at once; nothing withdraws it. Replaces the request before, whoever's.

    Conditions on labels reach version 2 of the autoscaler only; version 1 knows none.
    """
    bundles = [dict(room.amounts) for room in rooms]
    selectors = [dict(room.labels) for room in rooms] if is_autoscaler_v2(fetch_from_server=True) else None
    if bundles:
        internal_kv._internal_kv_put(_ASKED, b"yes", overwrite=True)
    request_resources(bundles=bundles, bundle_label_selectors=selectors or None)
    if not bundles:
        internal_kv._internal_kv_del(_ASKED)


def has_asked() -> bool:
    """Whether a request of ours stands."""
    return internal_kv._internal_kv_get(_ASKED) is not None
