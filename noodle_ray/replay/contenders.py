"""Contenders: who is compared in a replay, by name: our policies, variants of the default one, and Ray's."""

from __future__ import annotations

from dataclasses import dataclass

from noodle_ray.errors import NotFound
from noodle_ray.placement.policies import DEFAULT_POLICY, POLICIES
from noodle_ray.replay.ray_policies import RAY_POLICIES


@dataclass(frozen=True, slots=True)
class Contender:
    """A policy and the circumstances under which it plays.

    `own_choice`: it chooses the GPU too, where it goes by valuation; else Ray's rule does. `told`: it knows the list of
    pods beforehand; else it learns the workload from what arrives. `moved_at_most`: the share of the arrived pods that
    may be moved to make room.
    """

    policy: str
    own_choice: bool = True
    told: bool = True
    moved_at_most: float = 0.0


CONTENDERS: dict[str, Contender] = {
    **{name: Contender(name) for name in POLICIES},
    f"{DEFAULT_POLICY}+moves": Contender(DEFAULT_POLICY, moved_at_most=0.005),
    f"{DEFAULT_POLICY}-on-ray": Contender(DEFAULT_POLICY, own_choice=False),
    f"{DEFAULT_POLICY}-learning": Contender(DEFAULT_POLICY, own_choice=False, told=False),
    **{name: Contender(name, own_choice=False) for name in RAY_POLICIES},
}


def contender_named(name: str) -> Contender:
    """The contender of that name. Raises NotFound that lists the known ones."""
    if name not in CONTENDERS:
        raise NotFound("policy", name, sorted(CONTENDERS))
    return CONTENDERS[name]
