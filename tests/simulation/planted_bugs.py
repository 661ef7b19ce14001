"""Bugs planted on purpose into the core, which the simulation must find."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from noodle_ray.nodes import detector, events, manager
from noodle_ray.nodes.detector import Detector, Verdict
from noodle_ray.nodes.instructions import Granted, Instructions, Keep, RemoveGroup
from noodle_ray.nodes.leases import Leases
from noodle_ray.placement.allocation import Allocation

Plant = Callable[[pytest.MonkeyPatch], None]


def frees_before_ray_does(patch: pytest.MonkeyPatch) -> None:
    """A release takes the amounts back at once, not when Ray has let go."""
    release = Leases._release

    def early(self: Leases, allocation: Allocation) -> Instructions:
        done = release(self, allocation)
        if allocation.state == "held":
            self._take_back(allocation.id)
        return done

    patch.setattr(Leases, "_release", early)


def accepts_stale_news(patch: pytest.MonkeyPatch) -> None:
    """News of a group is taken for news of the allocation's present home, whatever its epoch."""

    def created(self: Leases, event: events.GroupCreated) -> Instructions:
        allocation = self._allocations.get(event.allocation_id)
        if allocation is None or allocation.state != "reserving":
            return []
        held = self._put(allocation.model_copy(update={"state": "held", "epoch": event.epoch}))
        return [self._keep(held), Granted(held)]

    patch.setattr(Leases, "group_created", created)


def makes_groups_before_rows(patch: pytest.MonkeyPatch) -> None:
    """The intent is not kept before the group is asked for."""
    reserve = Leases._reserve

    def without_row(self: Leases, allocation: Allocation, decision: Any) -> Instructions:
        return [step for step in reserve(self, allocation, decision) if not isinstance(step, Keep)]

    patch.setattr(Leases, "_reserve", without_row)


def one_vote_suffices(patch: pytest.MonkeyPatch) -> None:
    """One agent that does not reach a node is enough, and whoever is deaf is listened to."""
    patch.setattr(detector, "VOTES", 1)
    patch.setattr(detector, "DEAF_S", 0.0)


def silence_is_death(patch: pytest.MonkeyPatch) -> None:
    """Nobody is asked to probe: who is silent for one agent is dead."""
    observed = Detector.observed

    def rash(self: Detector, by: str, seen: Any, now: float) -> list[Verdict]:
        verdicts = observed(self, by, seen, now)
        is_suspect = bool(verdicts) and seen.what == "silent"
        return [Verdict(seen.node_id, "dead", f"silent, says {by}")] if is_suspect else verdicts

    patch.setattr(Detector, "observed", rash)


def leaves_the_spare(patch: pytest.MonkeyPatch) -> None:
    """A second home is forgotten, but its group not removed."""
    drop = Leases._drop_spare

    def forget(self: Leases, allocation: Allocation) -> Instructions:
        return [step for step in drop(self, allocation) if not isinstance(step, RemoveGroup)]

    patch.setattr(Leases, "_drop_spare", forget)


def forgets_unknown_groups(patch: pytest.MonkeyPatch) -> None:
    """A manager that starts leaves groups that no row knows, and so does the comparison."""
    recovered = Leases.recovered

    def blind(self: Leases, event: events.Recovered) -> Instructions:
        done = recovered(self, event)
        known = {f"{row['id']}.{row['epoch']}" for row in event.allocations}
        return [step for step in done if not isinstance(step, RemoveGroup) or step.group in known]

    patch.setattr(Leases, "recovered", blind)
    patch.setattr(Leases, "group_found", lambda self, event: [])


def forgets_who_waits(patch: pytest.MonkeyPatch) -> None:
    """A fail-over that finds no room ends there."""

    def drop(self: Leases, allocation: Allocation, error: Exception) -> Instructions:
        self._forget(allocation.id)
        return []

    patch.setattr(Leases, "_wait_again", drop)


def retires_once(patch: pytest.MonkeyPatch) -> None:
    """A node that may leave is told so once, heard or not."""
    patch.setattr(manager, "RETIRE_AGAIN_S", float("inf"))


BUGS: dict[str, Plant] = {
    "capacity is freed before Ray lets go": frees_before_ray_does,
    "stale news is accepted": accepts_stale_news,
    "groups are made before their rows": makes_groups_before_rows,
    "one vote suffices": one_vote_suffices,
    "silence is death": silence_is_death,
    "the spare is left behind": leaves_the_spare,
    "recovery forgets unknown groups": forgets_unknown_groups,
    "who may leave is told once": retires_once,
    "who waits after a fail-over is forgotten": forgets_who_waits,
}
