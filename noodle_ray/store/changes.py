"""What a state machine wants kept: rows to put and rows to delete, as values that a shell hands to the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Document = Mapping[str, Any]
"""A JSON-ready mapping."""


@dataclass(frozen=True, slots=True)
class Put:
    """Keep `document` under `key` in `table`, replacing what was there."""

    table: str
    key: str
    document: Document


@dataclass(frozen=True, slots=True)
class Delete:
    """Forget `key` in `table`; nothing happens where it is not there."""

    table: str
    key: str


Change = Put | Delete
