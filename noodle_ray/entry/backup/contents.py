"""What a backup consists of: which tables, which files, and the names that they have in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from noodle_ray.base_model import Model
from noodle_ray.settings import Settings
from noodle_ray.store.tables import TABLES

FORMAT = 1
MANIFEST, TOKEN = "manifest.json", "token"

READ_ORDER = (*(name for name in TABLES if name != "modules"), "modules")
"""Modules last: whatever was read of a module before, its release is read after it."""

Kind = Literal["table", "artefact", "head", "index", "token"]

_NAMES: Mapping[Kind, re.Pattern[str]] = {
    "table": re.compile(r"tables/([a-z_]{1,40})\.jsonl"),
    "artefact": re.compile(r"artefacts/([0-9a-f]{64})\.zip"),
    "head": re.compile(r"heads/([A-Za-z0-9][A-Za-z0-9._-]{0,80}\.(?:safetensors|json|md))"),
    "index": re.compile(r"indexes/([a-z0-9][a-z0-9._-]{0,80}\.index)"),
    "token": re.compile(r"(token)"),
}
"""Each kind's names in a backup: what else there is, is refused, and none of them leads out of its folder."""


class Member(Model):
    """One file within: `size` in bytes."""

    name: str
    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Manifest(Model):
    """What is in a backup. `rows`: how many each table has; `created_at` in seconds since 1970."""

    format: Annotated[int, Field(ge=1)]
    noodle_version: str
    created_at: float
    rows: dict[str, Annotated[int, Field(ge=0)]]
    members: tuple[Member, ...]


def kind_of(name: str) -> tuple[Kind, str] | None:
    """What a member is, and what it is called there: a table, a hash, a file. None of a name that none has."""
    for kind, pattern in _NAMES.items():
        if found := pattern.fullmatch(name):
            return kind, found[1]
    return None


def table_member(table: str) -> str:
    return f"tables/{table}.jsonl"


def artefact_member(sha256: str) -> str:
    return f"artefacts/{sha256}.zip"


@dataclass(frozen=True, slots=True)
class Place:
    """A folder of the state directory, and the folder that stands for it in a backup."""

    kind: Kind
    prefix: str
    folder: Path

    def files(self) -> Iterator[tuple[str, Path]]:
        """Name in the backup and path of each file that belongs there; drafts and strangers do not."""
        found = sorted(self.folder.iterdir()) if self.folder.is_dir() else []
        for path in found:
            name = f"{self.prefix}/{path.name}"
            if path.is_file() and not path.is_symlink() and _NAMES[self.kind].fullmatch(name):
                yield name, path


def places(settings: Settings) -> tuple[Place, ...]:
    """The folders whose files are state: fusion heads that were trained here, and indexes."""
    heads, indexes = settings.state_dir / "heads", settings.state_dir / "fusion" / "indexes"
    return Place("head", "heads", heads), Place("index", "indexes", indexes)


def hashes_of(modules: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The artefacts that the rows of `modules` name."""
    return sorted({str(row["sha256"]) for row in modules.values()})
