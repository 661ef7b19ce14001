"""Import: a backup becomes the state, all of it or nothing."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from noodle_ray.entry.backup.contents import TOKEN, Manifest, Place, places
from noodle_ray.entry.backup.reading import Backup, open_backup
from noodle_ray.entry.backup.writing import copy_whole
from noodle_ray.entry.cluster.cluster_file import read_cluster, token_path
from noodle_ray.errors import Conflict, CorruptData, NotFound, Unavailable
from noodle_ray.settings import Settings
from noodle_ray.store.changes import Change, Delete, Put
from noodle_ray.store.database import Database
from noodle_ray.store.tables import RUNNING, TABLES

Progress = Callable[[str], None]


def import_state(settings: Settings, path: Path, replace: bool, with_running: bool, progress: Progress) -> Manifest:
    """Puts the backup in the place of the state; what was there is gone afterwards. Artefacts are added, never removed.

    `replace`: also where there is a state. `with_running`: nodes, allocations, loads and services, too, for a head that
    comes back to the Ray cluster that it left. Raises Conflict where a cluster runs or a state is in the way, NotFound,
    CorruptData, InvalidInput, TooLarge for the file, Unavailable.
    """
    refuse_cluster(settings, with_running)
    progress(f"checking {path}")
    with open_backup(path) as backup:
        database = Database.open(settings.database)
        try:
            if not replace:
                _refuse_occupied(settings, database, backup)
            _put_artefacts(settings, backup, progress)
            progress("putting tables, heads and indexes in place")
            with _files_in_place(settings, backup):
                database.apply(_changes(database, backup, with_running))
        finally:
            database.close()
        return backup.manifest


def refuse_cluster(settings: Settings, with_running: bool) -> None:
    """Raises Conflict where a cluster of this state directory runs: it would write over what is imported.

    Also where one ended without a `down`, for the next `up` goes on with it: that needs what runs in it, too.
    """
    try:
        cluster = read_cluster(settings.state_dir)
    except NotFound:
        return
    if cluster.attached or cluster.is_running():
        raise Conflict(f"a cluster of {settings.state_dir} runs at {cluster.address}: end it first (`noodle down`)")
    if not with_running:
        problem = f"the cluster at {cluster.address} ended without a `noodle down`, and `noodle up` would go on with it"
        raise Conflict(f"{problem}: end it for good (`noodle down`), or import with --with-running")


def _refuse_occupied(settings: Settings, database: Database, backup: Backup) -> None:
    there = [f"{len(rows)} rows of {table}" for table in TABLES if (rows := database.load(table))]
    counted = ((place.prefix, sum(1 for _ in place.files())) for place in places(settings))
    there += [f"{count} files of {prefix}" for prefix, count in counted if count]
    if backup.has_token and _token_differs(settings, backup):
        there.append("another token")
    if there:
        raise Conflict(f"there is a state already: {', '.join(there)}; --replace puts the backup in its place")


def _token_differs(settings: Settings, backup: Backup) -> bool:
    path = token_path(settings.state_dir)
    return path.exists() and path.read_bytes().strip() != backup.read(TOKEN)


def _put_artefacts(settings: Settings, backup: Backup, progress: Progress) -> None:
    """Before the rows that name them. Each is read as one that somebody publishes."""
    from noodle_ray.actors.artefact_store import ArtefactStore
    from noodle_ray.modules.artefact import read_artefact

    names = backup.names("artefact")
    progress(f"keeping the artefacts of modules: {len(names)}")
    store = ArtefactStore(settings.artefacts)
    for name, sha256 in names:
        artefact = read_artefact(backup.read(name))
        if artefact.sha256 != sha256:
            raise CorruptData(f"the backup's {name} is another artefact")
        store.put(artefact)


def _changes(database: Database, backup: Backup, with_running: bool) -> list[Change]:
    """One transaction: every row that is not in the backup goes, every other is as there."""
    changes: list[Change] = []
    for table in TABLES:
        rows = {} if table in RUNNING and not with_running else backup.rows(table)
        changes += [Delete(table, key) for key in database.load(table) if key not in rows]
        changes += [Put(table, key, document) for key, document in rows.items()]
    return changes


@contextmanager
def _files_in_place(settings: Settings, backup: Backup) -> Iterator[None]:
    """Heads, indexes and token of the backup are in place within the block, and stay where it ends well.

    What a killed import leaves is a folder `.import-…` in the state directory, with what was there before.
    """
    scratch = _scratch(settings)
    moved: list[tuple[Path, Path]] = []
    try:
        for place in places(settings):
            _move(_staged(place, backup, scratch), place.folder, scratch / f"old-{place.prefix}", moved)
        if backup.has_token:
            with backup.open(TOKEN) as file:
                copy_whole(file, scratch / TOKEN)
            _move(scratch / TOKEN, token_path(settings.state_dir), scratch / "old-token", moved)
        yield
    except BaseException as error:
        _move_back(moved)
        shutil.rmtree(scratch)
        if isinstance(error, OSError):
            raise Unavailable(f"the state directory cannot be written: {error.strerror or error}") from error
        raise
    shutil.rmtree(scratch)


def _scratch(settings: Settings) -> Path:
    try:
        settings.state_dir.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=settings.state_dir, prefix=".import-"))
    except OSError as error:
        raise Unavailable(f"{settings.state_dir} cannot be written: {error.strerror}") from error


def _staged(place: Place, backup: Backup, scratch: Path) -> Path:
    """The folder as it is to be, beside the one that is there: on the same disk, so that it can be moved."""
    folder = scratch / place.prefix
    folder.mkdir()
    for name, file_name in backup.names(place.kind):
        with backup.open(name) as file:
            copy_whole(file, folder / file_name)
    return folder


def _move(fresh: Path, target: Path, aside: Path, moved: list[tuple[Path, Path]]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(target):
        shutil.move(target, aside)
        moved.append((aside, target))
    else:
        moved.append((fresh, target))
    shutil.move(fresh, target)


def _move_back(moved: list[tuple[Path, Path]]) -> None:
    """What was there is there again; what was not is gone."""
    for aside, target in reversed(moved):
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)
        if aside.name.startswith("old-") and os.path.lexists(aside):
            shutil.move(aside, target)
