"""States to be backed up, and backups as nobody should hand them over."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noodle_ray.actors.artefact_store import ArtefactStore
from noodle_ray.entry.backup.contents import places
from noodle_ray.entry.backup.exporting import export_state
from noodle_ray.entry.backup.importing import import_state
from noodle_ray.modules.archive import write_entries
from noodle_ray.modules.artefact import Artefact, read_artefact
from noodle_ray.settings import Settings
from noodle_ray.store.changes import Put
from noodle_ray.store.database import Database
from noodle_ray.store.tables import TABLES

NOW = 1_700_000_000.0
Tables = Mapping[str, Mapping[str, Any]]


def an_artefact(name: str = "a") -> Artefact:
    manifest = f'[tool.noodle.module]\nname = "{name}"\nversion = "1"\nentry_point = "a"\n'
    return read_artefact(write_entries({"pyproject.toml": manifest.encode(), "a.py": b"x = 1"}))


ARTEFACT = an_artefact()


@dataclass(frozen=True, slots=True)
class State:
    """A state directory, and what is in it. `database`: another than the SQLite file there."""

    folder: Path
    database: str = ""

    @property
    def settings(self) -> Settings:
        return Settings(state_dir=self.folder, database_url=self.database)

    def fill(self, tables: Tables, files: Mapping[str, bytes], artefacts: Iterable[Artefact] = ()) -> State:
        for artefact in artefacts:
            ArtefactStore(self.settings.artefacts).put(artefact)
        database = Database.open(self.settings.database)
        database.apply([Put(table, key, row) for table, rows in tables.items() for key, row in rows.items()])
        database.close()
        for name, content in files.items():
            self.path(name).parent.mkdir(parents=True, exist_ok=True)
            self.path(name).write_bytes(content)
        return self

    def path(self, name: str) -> Path:
        """By the name that a file has in a backup."""
        prefix, _, file = name.rpartition("/")
        folders = {place.prefix: place.folder for place in places(self.settings)}
        return folders.get(prefix, self.folder) / file

    def tables(self) -> dict[str, dict[str, Any]]:
        database = Database.open(self.settings.database)
        try:
            return {table: dict(rows) for table in TABLES if (rows := database.load(table))}
        finally:
            database.close()

    def files(self) -> dict[str, bytes]:
        return {name: path.read_bytes() for place in places(self.settings) for name, path in place.files()}

    def export(self, path: Path, with_token: bool = False) -> Path:
        export_state(self.settings, path, with_token, NOW, lambda line: None)
        return path

    def import_(self, path: Path, replace: bool = False, with_running: bool = False) -> None:
        import_state(self.settings, path, replace, with_running, lambda line: None)


def a_member(name: str, content: bytes) -> dict[str, Any]:
    return {"name": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def forge(path: Path, files: Mapping[str, bytes], compress: int = zipfile.ZIP_STORED, **manifest: Any) -> Path:
    """A backup with these files, whose manifest is right but for what is given."""
    tables = [name for name in files if name.startswith("tables/")]
    told = {
        "format": 1,
        "noodle_version": "9",
        "created_at": NOW,
        "rows": {Path(name).stem: files[name].count(b"\n") for name in tables},
        "members": [a_member(name, content) for name, content in files.items()],
        **manifest,
    }
    with zipfile.ZipFile(path, "w", compress) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        archive.writestr("manifest.json", json.dumps(told))
    return path
