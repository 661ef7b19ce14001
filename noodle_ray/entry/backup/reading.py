"""Reading a backup that comes from anywhere: nothing of it is used before all of it was checked."""

from __future__ import annotations

import hashlib
import json
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from noodle_ray.entry.backup.contents import (
    FORMAT,
    MANIFEST,
    TOKEN,
    Kind,
    Manifest,
    Member,
    artefact_member,
    hashes_of,
    kind_of,
    table_member,
)
from noodle_ray.entry.backup.writing import CHUNK
from noodle_ray.errors import CorruptData, InvalidInput, NotFound, TooLarge
from noodle_ray.store.changes import Document
from noodle_ray.store.tables import KEY_CHARACTERS, TABLES

MAX_MEMBERS = 200_000
MAX_MANIFEST_BYTES = 64 * 2**20
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, OSError)
"""What zipfile and the disk raise where an archive is damaged, or made in a way that we never do."""


class Backup:
    """An open backup whose every byte is what its manifest says."""

    def __init__(self, archive: zipfile.ZipFile, manifest: Manifest) -> None:
        self._archive = archive
        self.manifest = manifest

    def rows(self, table: str) -> dict[str, Document]:
        """The rows of a table, by key; none where the backup does not have it. Raises CorruptData."""
        if table not in self.manifest.rows:
            return {}
        lines = self.read(table_member(table)).splitlines()
        rows: dict[str, Document] = dict(_row(table, line) for line in lines)
        if not len(lines) == len(rows) == self.manifest.rows[table]:
            raise CorruptData(f"the backup's table {table} has other rows than its manifest says")
        return rows

    def names(self, kind: Kind) -> list[tuple[str, str]]:
        """Name in the backup, and hash or file name, of the members of a kind."""
        found = [(member.name, kind_of(member.name)) for member in self.manifest.members]
        return [(name, known[1]) for name, known in found if known is not None and known[0] == kind]

    def read(self, name: str) -> bytes:
        with self.open(name) as file:
            return file.read()

    def open(self, name: str) -> IO[bytes]:
        return self._archive.open(name)

    @property
    def has_token(self) -> bool:
        return any(member.name == TOKEN for member in self.manifest.members)


@contextmanager
def open_backup(path: Path) -> Iterator[Backup]:
    """Opens and checks all of it: names, sizes, hashes, rows, and that no module misses its artefact.

    Raises NotFound, CorruptData for what is damaged, InvalidInput for what no backup holds or a newer noodle-ray
    wrote, TooLarge.
    """
    if not path.is_file():
        raise NotFound("backup", str(path))
    try:
        archive = zipfile.ZipFile(path)
    except _BROKEN as error:
        raise CorruptData(f"{path} is no whole backup: {error}") from None
    with archive:
        manifest = _read_manifest(archive, path)
        _check_listing(archive, manifest)
        for member in manifest.members:
            _check_content(archive, member)
        backup = Backup(archive, manifest)
        _check_meaning(backup)
        yield backup


def _read_manifest(archive: zipfile.ZipFile, path: Path) -> Manifest:
    infos = archive.infolist()
    if len(infos) > MAX_MEMBERS:
        raise TooLarge("backup", len(infos), MAX_MEMBERS, "files")
    if min((info.header_offset for info in infos), default=0) > 0:
        # One that is cut off ends within an artefact, which is a zip, too, and would be taken for it.
        raise CorruptData(f"{path} is no whole backup: it does not begin where it should")
    for info in infos:
        _check_stored(info)
    if sum(info.file_size for info in infos) > path.stat().st_size:
        raise InvalidInput.of("backup", "claims to hold more than its file does")
    listed = next((info for info in infos if info.filename == MANIFEST), None)
    if listed is None:
        raise InvalidInput.of("backup", f"has no {MANIFEST}: it was not made by `noodle state export`", path)
    if listed.file_size > MAX_MANIFEST_BYTES:
        raise TooLarge(MANIFEST, listed.file_size, MAX_MANIFEST_BYTES, "bytes")
    return _parse_manifest(_content(archive, MANIFEST))


def _parse_manifest(content: bytes) -> Manifest:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CorruptData(f"the backup's {MANIFEST} is damaged: {error}") from None
    written = found.get("format") if isinstance(found, dict) else None
    if isinstance(written, int) and written > FORMAT:
        by = found.get("noodle_version", "a newer one")
        problem = f"is {written}, as noodle-ray {by} writes it; this one reads {FORMAT}: use that one, or a newer"
        raise InvalidInput.of("format", problem)
    return Manifest.parse(found)


def _check_stored(info: zipfile.ZipInfo) -> None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise InvalidInput.of("backup", "may hold stored files only, nothing compressed", info.filename)
    if info.flag_bits & 0x1 or kind not in (0, stat.S_IFREG):
        raise InvalidInput.of("backup", "may hold plain files only: no links, nothing encrypted", info.filename)


def _check_listing(archive: zipfile.ZipFile, manifest: Manifest) -> None:
    """The manifest and the archive list the same names, once each, and all of them are a backup's."""
    there = sorted(info.filename for info in archive.infolist())
    listed = sorted([MANIFEST, *(member.name for member in manifest.members)])
    if there != listed or len(there) != len(set(there)):
        raise CorruptData("the backup does not hold the files of which its manifest tells")
    tables = {name for member in manifest.members if (name := _table_of(member))}
    if tables != set(manifest.rows):
        raise CorruptData("the backup's manifest counts rows of other tables than it has")


def _table_of(member: Member) -> str:
    """The table that a member is, "" where it is something else. Raises InvalidInput where it is nothing of ours."""
    known = kind_of(member.name)
    if known is None:
        raise InvalidInput.of("backup", "holds a name that no backup has", member.name)
    kind, name = known
    if kind == "table" and name not in TABLES:
        raise InvalidInput.of("backup", f"holds a table that is unknown here; known are {', '.join(TABLES)}", name)
    return name if kind == "table" else ""


def _check_content(archive: zipfile.ZipFile, member: Member) -> None:
    digest, size = hashlib.sha256(), 0
    try:
        with archive.open(member.name) as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                size += len(chunk)
    except _BROKEN as error:
        raise CorruptData(f"the backup's {member.name} is damaged: {error}") from None
    if size != member.size or digest.hexdigest() != member.sha256:
        raise CorruptData(f"the backup's {member.name} is not what its manifest says")


def _check_meaning(backup: Backup) -> None:
    rows = {table: backup.rows(table) for table in backup.manifest.rows}
    there = {member.name for member in backup.manifest.members}
    try:
        missing = [one for one in hashes_of(rows.get("modules", {})) if artefact_member(one) not in there]
    except (KeyError, TypeError):
        raise CorruptData("the backup's table modules has a row without the hash of an artefact") from None
    if missing:
        raise CorruptData(f"the backup lacks the artefact {missing[0]}, which a module of it names")


def _content(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        return archive.read(name)
    except _BROKEN as error:
        raise CorruptData(f"the backup's {name} is damaged: {error}") from None


def _row(table: str, line: bytes) -> tuple[str, dict[str, Any]]:
    try:
        row = json.loads(line)
        key, document = row["key"], row["document"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CorruptData(f"the backup's table {table} has a line that is no row") from None
    if not (isinstance(key, str) and len(key) <= KEY_CHARACTERS and isinstance(document, dict) and len(row) == 2):
        raise CorruptData(f"the backup's table {table} has a line that is no row of ours")
    return key, document
