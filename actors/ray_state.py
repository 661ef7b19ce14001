"""What Ray says of the cluster: nodes, free amounts, jobs, our placement groups. All private calls are here."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

import ray
from ray._private import state as ray_private_state
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group

from noodle_ray.errors import NotFound
from noodle_ray.nodes.membership import NAME_LABEL, PRETENDED_LABEL
from noodle_ray.resources import NodeResources, to_units

_NOT_CUSTOM = re.compile(r"CPU|GPU|memory|object_store_memory|node:.*|accelerator_type:.*|.*_group_.*|bundle_group.*")
_POLL_S = 0.002


@dataclass(frozen=True, slots=True)
class RayNode:
    """A node as Ray sees it."""

    id: str
    name: str
    address: str
    resources: NodeResources
    pretended: bool


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
    return RayNode(str(node["NodeID"]), labels.get(NAME_LABEL, address), address, resources, PRETENDED_LABEL in labels)


def custom_units(amounts: Mapping[str, float]) -> dict[str, int]:
    """The custom resources among Ray's amounts, in units."""
    return {name: to_units(amount) for name, amount in amounts.items() if not _NOT_CUSTOM.fullmatch(name)}


def available() -> dict[str, dict[str, float]]:
    """What Ray holds for free on each node, by node id."""
    return ray_private_state.available_resources_per_node()  # type: ignore[no-any-return,no-untyped-call]


def ended_jobs() -> set[str]:
    """The ids of Ray jobs (drivers) that have ended."""
    return {job["JobID"] for job in ray_private_state.jobs() if job["IsDead"]}  # type: ignore[no-untyped-call]


def groups() -> dict[str, str]:
    """Our groups that exist (asked for or created): name → placement group id."""
    table = placement_group_table()
    return {
        group["name"]: group_id
        for group_id, group in table.items()
        if group["state"] != "REMOVED" and _is_ours(group["name"])
    }


def _is_ours(name: str) -> bool:
    return re.fullmatch(r"noodle-[A-Za-z0-9-]+\.\d+", name) is not None


def create_group(name: str, bundle: Mapping[str, float], node_id: str, timeout_s: float) -> bool:
    """Reserves the bundle on exactly this node; False where Ray did not manage in time."""
    group = placement_group(
        [dict(bundle)],
        strategy="STRICT_PACK",
        name=name,
        lifetime="detached",
        bundle_label_selector=[{"ray.io/node-id": node_id}],
    )
    return group.wait(timeout_s)  # type: ignore[no-any-return]


def find_group(name: str) -> PlacementGroup:
    """Our group of that name, whatever namespace the caller is in. Raises NotFound where there is none."""
    group_id = groups().get(name)
    if group_id is None:
        raise NotFound("placement group", name)
    return PlacementGroup(ray.PlacementGroupID(bytes.fromhex(group_id)))


def remove_group(name: str, timeout_s: float) -> bool:
    """Removes the group and waits until its node's amounts are free again; False where that took too long."""
    group_id = groups().get(name)
    if group_id is None:
        return True
    remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(group_id))))
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if not any(group_id in resource for amounts in available().values() for resource in amounts):
            return True
        time.sleep(_POLL_S)
    return False


def runtime_job_id() -> str:
    """The id of the job that this process belongs to."""
    return str(ray.get_runtime_context().get_job_id())


def system_config() -> dict[str, object]:
    """Ray's internal settings as the running cluster has them."""
    return dict(ray_private_state.state.get_system_config())  # type: ignore[no-untyped-call]
