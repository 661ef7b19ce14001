"""What the tests of the manager share: a small fleet, claims, and reading what the manager wants done."""

from typing import Any

from noodle_ray.nodes import events as ev
from noodle_ray.nodes.instructions import CreateGroup, Instruction
from noodle_ray.nodes.manager import Manager
from noodle_ray.placement.claim import Claim
from noodle_ray.placement.request import Request
from noodle_ray.resources import Demand, NodeResources
from noodle_ray.settings import Settings
from noodle_ray.simulation.agents import METRICS as METRICS  # what any agent reports

SETTINGS = Settings(node_heartbeat_interval_ms=10_000, node_timeout_ms=60_000)
ONE = Demand(cpus=1)


def joined(node: str, at: float = 0.0, **resources: Any) -> ev.NodeJoined:
    return ev.NodeJoined(node, node.upper(), "127.0.0.2", NodeResources.of(**(resources or {"cpus": 2})), False, at)


def requested(key: str, wanted: Demand | Request = ONE, at: float = 0.0, **more: Any) -> ev.Claimed:
    """A claim that does not wait, unless it is told to."""
    return ev.Claimed(Claim(**{"id": key, "request": Request.of(wanted), "wait_s": 0, **more}), at)


def manager_with(*nodes: str, **resources: Any) -> Manager:
    manager = Manager(SETTINGS)
    for node in nodes:
        manager.handle(joined(node, **resources))
    return manager


def kinds(todo: list[Instruction]) -> list[str]:
    return [type(instruction).__name__ for instruction in todo]


def one(todo: list[Instruction], kind: type) -> Any:
    (found,) = [instruction for instruction in todo if isinstance(instruction, kind)]
    return found


def held(manager: Manager, key: str, wanted: Demand | Request = ONE, **more: Any) -> None:
    order = one(manager.handle(requested(key, wanted, **more)), CreateGroup)
    manager.handle(ev.GroupCreated(key, order.epoch, 0.0))


def released(manager: Manager, key: str, at: float = 0.0) -> list[Instruction]:
    """Everything that follows from its release, with Ray's part of it done."""
    epoch = manager.allocation(key).epoch
    return [*manager.handle(ev.ReleaseRequested(key, at)), *manager.handle(ev.GroupRemoved(key, epoch, at))]


def rows_of(manager: Manager) -> tuple[dict[str, Any], ...]:
    return tuple(allocation.model_copy(update={"position": None}).to_json() for allocation in manager.allocations())
