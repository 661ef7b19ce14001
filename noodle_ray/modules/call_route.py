"""Where a module's calls go, and what a host that takes no more of them answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Route:
    """The host of a loaded module. `host` is the handle of its actor; `epoch` counts the hosts the module has had."""

    module: str
    version: str
    epoch: int
    host: Any


@dataclass(frozen=True, slots=True)
class Retired:
    """The answer of a host that was replaced: the call has not run, ask for the route again."""
