"""What happened in one run of the swap benchmark: calls, swaps and kills."""

from __future__ import annotations

from dataclasses import dataclass, field

from noodle_ray.entry.bench.module_versions import Breakage
from noodle_ray.entry.bench.swap_log import Call, Execution, Span


@dataclass(slots=True)
class Story:
    """What happened to one module: its calls, and the swaps and kills meanwhile."""

    kind: str
    calls: list[Call] = field(default_factory=list)
    executions: list[Execution] = field(default_factory=list)
    swaps: list[Span] = field(default_factory=list)
    """Of good versions; how long each took."""

    attempts: list[Span] = field(default_factory=list)
    """All of them, and those that failed or were rolled back."""

    failed: list[str] = field(default_factory=list)
    """Of good versions, where no host was killed meanwhile."""

    cut_off: int = 0
    """Of good versions, where a host was killed meanwhile."""

    rolled_back: list[Breakage] = field(default_factory=list)
    not_rolled_back: list[Breakage] = field(default_factory=list)
    kills: list[Span] = field(default_factory=list)
    """From a host's death until its module answers again."""

    kept: dict[str, list[list[int]]] | None = None
