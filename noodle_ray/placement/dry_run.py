"""A dry run: what would become of requests on a fleet, and what one more node of each type would change."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from pydantic import field_serializer

from noodle_ray.base_model import Model
from noodle_ray.errors import DoesNotFit
from noodle_ray.placement.allocation import Bundle
from noodle_ray.placement.claim import Priority
from noodle_ray.placement.ledger import ResourcePool
from noodle_ray.placement.planner import Planner
from noodle_ray.placement.policies import DEFAULT_POLICY, policy_named
from noodle_ray.placement.refusal import Refusal
from noodle_ray.placement.request import Request
from noodle_ray.placement.workload import Workload
from noodle_ray.resources import NodeResources, format_bytes

IDENTITY_LABELS = frozenset({"ray.io/node-id", "noodle-ray.io/name"})
"""Labels that say which node it is, not of what type."""

_KEY, _NODE = "\0plan", "\0one more"
"""They start the ids of what is only tried; no real id starts with them."""


class Wanted(Model):
    """A request under a name, of which no two are the same."""

    name: str
    request: Request
    priority: Priority = 0


class Outcome(Model):
    """What would become of a request: `bundles` where it would run; else why it would wait, or can `never` run."""

    name: str
    request: Request
    priority: int
    bundles: tuple[Bundle, ...] = ()
    reason: str = ""
    never: bool = False


class Growth(Model):
    """What one more node of a type would change. `like`: one of the `nodes` that are of this type."""

    like: str
    nodes: int
    resources: NodeResources
    placed: tuple[str, ...]

    @field_serializer("resources")
    def _in_a_persons_units(self, resources: NodeResources) -> dict[str, Any]:
        return resources.to_json()


class DryRun(Model):
    """All outcomes, in the order in which room was offered; `growth` by how much it would help."""

    policy: str
    nodes: int
    outcomes: tuple[Outcome, ...]
    growth: tuple[Growth, ...]

    @property
    def placed(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.bundles]

    @property
    def unplaced(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if not outcome.bundles]


def dry_run(pool: ResourcePool, workload: Workload, wanted: Sequence[Wanted], policy: str = DEFAULT_POLICY) -> DryRun:
    """Offers room by priority, then in the order given; the planner knows from the start what is to come.

    One more node is offered to what was left, in the same order: what has its place keeps it. Nothing is changed.
    Raises NotFound for an unknown policy.
    """
    policy_named(policy)
    trial = _Trial(copy.deepcopy(pool), copy.deepcopy(workload), policy)
    in_order = sorted(wanted, key=lambda one: -one.priority)
    trial.expect(in_order)
    outcomes = tuple(trial.outcomes(in_order))
    left = [one for one, outcome in zip(in_order, outcomes, strict=True) if not outcome.bundles]
    growth = [trial.grow(nodes, left) for nodes in _by_type(pool)] if left else []
    growth.sort(key=lambda one: (-len(one.placed), one.like))
    return DryRun(policy=policy, nodes=len(pool.node_ids), outcomes=outcomes, growth=tuple(growth))


def _by_type(pool: ResourcePool) -> list[list[str]]:
    """The nodes, grouped by all that they have; the memory as it is shown, for machines differ by some bytes."""
    found: dict[str, list[str]] = {}
    for node_id in sorted(pool.node_ids):
        kind = _kind(pool, node_id)
        alike = str(replace(kind, memory_bytes=0)) + format_bytes(kind.memory_bytes)
        found.setdefault(alike, []).append(node_id)
    return list(found.values())


def _kind(pool: ResourcePool, node_id: str) -> NodeResources:
    """What the node has, without what only it has."""
    resources = pool.columns.resources(pool.columns.row[node_id])
    labels = {name: resources.labels[name] for name in sorted(resources.labels) if name not in IDENTITY_LABELS}
    custom = dict(sorted(resources.custom_units.items()))
    return replace(resources, labels=labels, custom_units=custom)


class _Trial:
    """Requests tried on a pool of their own."""

    def __init__(self, pool: ResourcePool, workload: Workload, policy: str) -> None:
        self._pool, self._policy = pool, policy
        self._planner = Planner(pool, workload)

    def expect(self, wanted: Iterable[Wanted]) -> None:
        for one in wanted:
            self._planner.note(one.request)

    def outcomes(self, wanted: Iterable[Wanted]) -> Iterator[Outcome]:
        """Holds what fits; of requests that are alike none is tried again where one found no room."""
        failed: dict[str, Refusal] = {}
        for one in wanted:
            shape = str(one.request)
            if shape not in failed:
                try:
                    yield self._hold(one)
                    continue
                except DoesNotFit as error:
                    failed[shape] = error.refusal
            yield _unplaced(one, failed[shape])

    def _hold(self, one: Wanted) -> Outcome:
        """Raises DoesNotFit."""
        decision = self._planner.plan(one.request, self._policy)
        wanted = [(bundle.node_id, bundle.demand) for bundle in decision.bundles]
        bundles = self._pool.allocate(_KEY + one.name, wanted, one.request.anti_affinity)
        return Outcome(name=one.name, request=one.request, priority=one.priority, bundles=bundles)

    def grow(self, alike: Sequence[str], left: Sequence[Wanted]) -> Growth:
        """Tries what was left with one more node; everything is as it was afterwards."""
        resources = _kind(self._pool, alike[0])
        self._pool.add_node(_NODE, resources)
        placed = tuple(outcome.name for outcome in self.outcomes(left) if outcome.bundles)
        self._pool.remove_node(_NODE)  # and with it what found room: none of that fits without it
        return Growth(like=alike[0], nodes=len(alike), resources=resources, placed=placed)


def _unplaced(one: Wanted, refusal: Refusal) -> Outcome:
    return Outcome(
        name=one.name, request=one.request, priority=one.priority, reason=refusal.reasons, never=refusal.never
    )
