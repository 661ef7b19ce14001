"""What Ray says of the cluster: nodes, free amounts, jobs, our placement groups. All private calls are here."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray._private import state as ray_private_state
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group

from noodle_ray.actors.names import NAMESPACE
from noodle_ray.errors import NotFound
from noodle_ray.nodes.instructions import PinnedBundle
from noodle_ray.nodes.membership import NAME_LABEL, PRETENDED_LABEL
from noodle_ray.resources import NodeResources, to_units

DRAIN_MS = 2_000
"""A node that was drained is told to Ray as one that ends by then."""

_PREEMPTION = 2
"""Ray's DRAIN_NODE_REASON_PREEMPTION: the node goes at the deadline, whatever is left on it."""

_NOT_CUSTOM = re.compile(r"CPU|GPU|memory|object_store_memory|node:.*|accelerator_type:.*|.*_group_.*|bundle_group.*")


@dataclass(frozen=True, slots=True)
class RayNode:
    """A node as Ray sees it."""

    id: str
    name: str
    address: str
    resources: NodeResources
    pretended: bool
    raylet_port: int = 0


def live_nodes() -> dict[str, RayNode]:
    """The nodes that Ray holds for alive, by id."""
    return {node["NodeID"]: _read_node(node) for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]


def _read_node(node: Mapping[str, object]) -> RayNode:
    labels: dict[str, str] = dict(node["Labels"])  # type: ignore[call-overload]
    amounts: dict[str, float] = dict(node["Resources"])  # type: ignore[call-overload]
    typed = [name.partition(":")[2] for name in sorted(amounts) if name.startswith("accelerator_type:")]
    resources = NodeResources(
        cpu_units=to_units(amounts.get("CPU", 0)),
        memory_bytes=int(amounts.get("memory", 0)),
        gpus=int(amounts.get("GPU", 0)),
        accelerator_type=labels.get("ray.io/accelerator-type") or (typed[0] if typed else None),
        labels=labels,
        custom_units=custom_units(amounts),
    )
    address = str(node["NodeManagerAddress"])
    return RayNode(
        id=str(node["NodeID"]),
        name=labels.get(NAME_LABEL, address),
        address=address,
        resources=resources,
        pretended=PRETENDED_LABEL in labels,
        raylet_port=int(str(node["NodeManagerPort"])),
    )


def own_address() -> str:
    """The address under which Ray knows this process's node."""
    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]


def drain_node(node_id: str, message: str) -> None:
    """Has Ray start nothing more on the node, which is about to end."""
    client = ray._private.worker.global_worker.gcs_client  # type: ignore[attr-defined]
    client.drain_node(node_id, _PREEMPTION, message, int(time.time() * 1000) + DRAIN_MS)


def custom_units(amounts: Mapping[str, float]) -> dict[str, int]:
    """The custom resources among Ray's amounts, in units."""
    return {name: to_units(amount) for name, amount in amounts.items() if not _NOT_CUSTOM.fullmatch(name)}


def available() -> dict[str, dict[str, float]]:
    """What Ray holds for free on each node, by node id."""
    return ray_private_state.available_resources_per_node()  # type: ignore[no-any-return,no-untyped-call]


def ended_jobs() -> set[str]:
    """The ids of Ray jobs (drivers) that have ended."""
    return {job["JobID"] for job in ray_private_state.jobs() if job["IsDead"]}  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class RayGroup:
    """A placement group of ours as Ray knows it. `is_ready`: all of it is reserved."""

    id: str
    name: str
    is_ready: bool


def groups() -> dict[str, RayGroup]:
    """Our groups that exist (asked for or created), by name. Ray lists removed ones for ever: not for a busy path."""
    found = [_read_group(entry) for entry in placement_group_table().values()]
    return {group.name: group for group in found if group is not None}


def _read_group(entry: Mapping[str, Any] | None) -> RayGroup | None:
    if not entry or entry["state"] == "REMOVED" or not _is_ours(entry["name"]):
        return None
    return RayGroup(entry["placement_group_id"], entry["name"], entry["state"] == "CREATED")


def _is_ours(name: str) -> bool:
    return re.fullmatch(r"noodle-[A-Za-z0-9_-]+\.\d+", name) is not None


def group_named(name: str) -> RayGroup | None:
    """Our group of that name, whatever namespace the caller is in; None where it does not exist (any more)."""
    # Where somebody else's job started our actors, groups are in that job's namespace, which is then ours too.
    for namespace in dict.fromkeys((NAMESPACE, ray.get_runtime_context().namespace)):
        entry = ray_private_state.state.get_placement_group_by_name(name, namespace)  # type: ignore[no-untyped-call]
        if entry is not None:
            return _read_group(entry)
    return None


def group_with_id(group_id: str) -> RayGroup | None:
    """The group of that id, if it exists and is ours."""
    return _read_group(placement_group_table(_handle(group_id)))


def find_group(name: str) -> PlacementGroup:
    """Our group of that name, for work to run in. Raises NotFound where there is none."""
    group = group_named(name)
    if group is None:
        raise NotFound("placement group", name)
    return _handle(group.id)


def _handle(group_id: str) -> PlacementGroup:
    return PlacementGroup(ray.PlacementGroupID(bytes.fromhex(group_id)))


def _never() -> bool:
    return False


def create_group(
    name: str, bundles: Sequence[PinnedBundle], timeout_s: float, called_off: Callable[[], bool] = _never
) -> tuple[str, bool]:
    """Asks for all bundles, each on its node. Gives the group's id, and whether Ray reserved it within whole seconds.

    `called_off` is asked each second, and tells whether to wait no longer. Ask only where Ray's own view has room: what
    fails once is looked at again after a second, not earlier.
    """
    group = placement_group(
        [dict(bundle.amounts) for bundle in bundles],
        strategy="STRICT_PACK" if len(bundles) == 1 else "PACK",
        name=name,
        lifetime="detached",
        bundle_label_selector=[{"ray.io/node-id": bundle.node_id} for bundle in bundles],
    )
    seconds = range(int(timeout_s))
    return group.id.hex(), any(group.wait(1) for _ in seconds if not called_off())


def remove_group(group_id: str) -> None:
    """Has Ray remove the group. What it held is free once Ray's view has had the group and has it no more."""
    remove_placement_group(_handle(group_id))


def runtime_job_id() -> str:
    """The id of the job that this process belongs to."""
    return str(ray.get_runtime_context().get_job_id())


def log_directory() -> Path:
    """Where Ray's processes of this node write their logs."""
    return Path(ray._private.worker._global_node.get_logs_dir_path())  # type: ignore[attr-defined]


def system_config() -> dict[str, object]:
    """Ray's internal settings as the running cluster has them."""
    return dict(ray_private_state.state.get_system_config())  # type: ignore[no-untyped-call]
