"""Writing a backup: members one after another, the manifest last, and the file in place only when it is whole."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from noodle_ray import __version__
from noodle_ray.entry.backup.contents import FORMAT, MANIFEST, Manifest, Member
from noodle_ray.errors import Conflict, InvalidInput, Unavailable

_EPOCH = (1980, 1, 1, 0, 0, 0)
_PRIVATE = (stat.S_IFREG | 0o600) << 16
CHUNK = 2**20


class BackupWriter:
    """A backup that is being written. Members are stored as they are: what is read can be no larger than the file."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._members: list[Member] = []

    def add(self, name: str, content: bytes) -> None:
        with self._opened(name) as out:
            out.write(content)
        self._members.append(Member(name=name, size=len(content), sha256=hashlib.sha256(content).hexdigest()))

    def add_file(self, name: str, source: IO[bytes]) -> None:
        """All that is left to read of an open file."""
        digest, size = hashlib.sha256(), 0
        with self._opened(name) as out:
            while chunk := source.read(CHUNK):
                digest.update(chunk)
                size += len(chunk)
                out.write(chunk)
        self._members.append(Member(name=name, size=size, sha256=digest.hexdigest()))

    def finish(self, rows: Mapping[str, int], at: float) -> Manifest:
        manifest = Manifest(
            format=FORMAT,
            noodle_version=__version__,
            created_at=at,
            rows=dict(rows),
            members=tuple(self._members),
        )
        with self._opened(MANIFEST) as out:
            out.write(manifest.model_dump_json(indent=1).encode())
        return manifest

    def _opened(self, name: str) -> IO[bytes]:
        info = zipfile.ZipInfo(name, _EPOCH)
        info.external_attr = _PRIVATE
        return self._archive.open(info, "w", force_zip64=True)


@contextmanager
def new_backup(path: Path) -> Iterator[BackupWriter]:
    """A backup that is at `path`, for its owner's eyes only, when the block has ended well; else nothing is there.

    Raises Conflict where something is there already, InvalidInput for a folder that is not there, Unavailable where
    the disk refuses.
    """
    if path.exists():
        raise Conflict(f"{path} is there already: a backup never replaces another; choose a new name")
    if not path.absolute().parent.is_dir():
        raise InvalidInput.of("file", "its folder is not there", path)
    try:
        with _draft_beside(path.absolute()) as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                yield BackupWriter(archive)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise Unavailable(f"{path} cannot be written: {error.strerror or error}") from error


@contextmanager
def _draft_beside(path: Path) -> Iterator[IO[bytes]]:
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name[:40]}.", delete=False) as file:
        draft = Path(file.name)
        try:
            yield file
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


def copy_whole(source: IO[bytes], target: Path) -> None:
    """Everything that is left to read, into a new private file, on the disk when this returns."""
    with target.open("xb") as out:
        os.fchmod(out.fileno(), 0o600)
        shutil.copyfileobj(source, out, CHUNK)
        out.flush()
        os.fsync(out.fileno())
