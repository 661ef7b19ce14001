"""A verdict: what made the chosen node better than the next best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from noodle_ray.placement.explanation import Candidate, Explanation

MEANINGS = {
    "usable": "free GPU that fewer of the demands to come could use",
    "worth": "holes in GPUs that are harder to fill well",
    "balance": "GPUs, CPUs and memory left out of proportion",
    "left over": "what stays free on the node",
    "scarcity": "an accelerator of a type that others depend on",
    "gpu left idle": "a node with GPUs, for work without any",
    "tier": "a GPU or a node that was idle",
    "idle gpus": "idle GPUs on the node",
    "alike": "minus: work alike is there already",
    "draw": "chance",
}
"""What a part of a score stands for: what the placement costs. Others are the share of an amount that stays free."""

_NAMED_AT_MOST = 3


@dataclass(frozen=True, slots=True)
class Verdict:
    """The winner, who came second, and the parts of the score that told them apart, those that told most first.

    `better` are the parts that cost the winner less, `worse` those that cost it more: (winner's, runner-up's).
    """

    winner: str
    runner_up: str | None = None
    lead: float = 0.0
    better: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    worse: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, explanation: Explanation) -> Verdict:
        """The verdict of an explanation that has candidates."""
        winner = next(one for one in explanation.candidates if one.node_id == explanation.chosen)
        others = [one for one in explanation.candidates if one is not winner]
        if not others:
            return cls(winner.node_id)
        second = others[0]
        apart = _parts_apart(winner, second)
        better = {name: costs for name, costs in apart.items() if costs[0] < costs[1]}
        worse = {name: costs for name, costs in apart.items() if costs[0] > costs[1]}
        return cls(winner.node_id, second.node_id, winner.score - second.score, better, worse)

    def sentence(self, names: Mapping[str, str]) -> str:
        """The same for people; `names`: what nodes are called."""
        winner = names.get(self.winner, self.winner)
        if self.runner_up is None:
            return f"{winner} is the only node that could take it."
        second = names.get(self.runner_up, self.runner_up)
        if not self.better:
            return f"{winner} is as good as {second}; of equals the one with less free comes first."
        though = f", though more in {_listed(self.worse)}" if self.worse else ""
        return f"{winner} beats {second} by {_number(self.lead)}: it costs less in {_listed(self.better)}{though}."


def _parts_apart(winner: Candidate, second: Candidate) -> dict[str, tuple[float, float]]:
    names = sorted(winner.parts.keys() | second.parts.keys())
    costs = {name: (winner.parts.get(name, 0.0), second.parts.get(name, 0.0)) for name in names}
    apart = {name: pair for name, pair in costs.items() if abs(pair[0] - pair[1]) > 1e-9}
    return dict(sorted(apart.items(), key=lambda item: -abs(item[1][0] - item[1][1])))


def _listed(parts: Mapping[str, tuple[float, float]]) -> str:
    named = [f"{name} ({_number(ours)} against {_number(theirs)})" for name, (ours, theirs) in parts.items()]
    *first, last = named[:_NAMED_AT_MOST]
    return f"{', '.join(first)} and {last}" if first else last


def _number(value: float) -> str:
    """Three decimals, or as many digits where that would be nothing."""
    return f"{value:.3f}" if abs(value) >= 0.0005 or not value else f"{value:.1g}"
