"""An explanation: which nodes were looked at for a request, and why the chosen one won."""

from __future__ import annotations

from noodle_ray.base_model import Model


class Candidate(Model):
    """A node on which the demand fits: its score (higher is better) and the penalties that make it."""

    node_id: str
    score: float
    parts: dict[str, float]


class Explanation(Model):
    """Why something is where it is. For a gang: the first of its bundles that was placed."""

    policy: str
    considered: int
    filtered: dict[str, int]
    candidates: tuple[Candidate, ...]
    chosen: str
