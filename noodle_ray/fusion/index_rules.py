"""The rules by which indexes begin to weigh their evidence."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from noodle_ray.errors import NotFound
from noodle_ray.fusion.rule import Rule

KINDS = ("code", "text")
"""Indexes of code, and indexes of texts: each has a rule that comes with noodle-ray."""


@cache
def shipped_rule(kind: str) -> Rule:
    """The rule for indexes of this kind; `fitted` in it tells on what. Raises NotFound that lists the kinds."""
    if kind not in KINDS:
        raise NotFound("kind of index", kind, KINDS)
    return Rule.model_validate_json(rule_path(kind).read_bytes())


def rule_path(kind: str) -> Path:
    return Path(__file__).with_name(f"index_rule_{kind}.json")
