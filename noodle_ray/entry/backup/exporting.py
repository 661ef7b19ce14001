"""Export: what is in the store, the artefact store and the state directory, into a backup."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from noodle_ray.entry.backup.contents import (
    READ_ORDER,
    TOKEN,
    Manifest,
    artefact_member,
    hashes_of,
    places,
    table_member,
)
from noodle_ray.entry.backup.writing import BackupWriter, new_backup
from noodle_ray.entry.cluster.cluster_file import read_token
from noodle_ray.settings import Settings
from noodle_ray.store.changes import Document
from noodle_ray.store.database import Database

Progress = Callable[[str], None]


def export_state(settings: Settings, path: Path, with_token: bool, at: float, progress: Progress) -> Manifest:
    """Writes the backup. A cluster may run meanwhile: each table is read as it is at one moment, one after another.

    `at`: what time it is, in seconds since 1970. Raises Conflict, InvalidInput, Unavailable, CorruptData for an
    artefact that is damaged or gone, and NotFound where a token is asked for and there is none.
    """
    with new_backup(path) as writer:
        tables = _read_tables(settings, progress)
        for table, rows in tables.items():
            writer.add(table_member(table), _lines(rows))
        _add_artefacts(writer, settings, hashes_of(tables["modules"]), progress)
        _add_files(writer, settings, progress)
        if with_token:
            writer.add(TOKEN, read_token(settings.state_dir).encode())
        return writer.finish({table: len(rows) for table, rows in tables.items()}, at)


def _read_tables(settings: Settings, progress: Progress) -> dict[str, Mapping[str, Document]]:
    progress("reading the store")
    database = Database.open(settings.database)
    try:
        return {table: database.load(table) for table in READ_ORDER}
    finally:
        database.close()


def _lines(rows: Mapping[str, Document]) -> bytes:
    lines = [json.dumps({"key": key, "document": document}) + "\n" for key, document in rows.items()]
    return "".join(lines).encode()


def _add_artefacts(writer: BackupWriter, settings: Settings, hashes: list[str], progress: Progress) -> None:
    """They are never deleted from their store: what a row named a moment ago is still there."""
    from noodle_ray.actors.artefact_store import ArtefactStore

    progress(f"packing the artefacts of modules: {len(hashes)}")
    store = ArtefactStore(settings.artefacts)
    for sha256 in hashes:
        writer.add(artefact_member(sha256), store.get(sha256))


def _add_files(writer: BackupWriter, settings: Settings, progress: Progress) -> None:
    progress("packing heads and indexes")
    for place in places(settings):
        for name, path in place.files():
            try:
                file = path.open("rb")
            except FileNotFoundError:
                continue  # dropped since it was listed
            with file:
                writer.add_file(name, file)
