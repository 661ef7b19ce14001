"""The artefact store: packed modules as files that are named by their hash, in a directory."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from noodle_ray.errors import CorruptData
from noodle_ray.modules.artefact import Artefact, content_hash


class ArtefactStore:
    """Each artefact once; what is read is what was put there."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def put(self, artefact: Artefact) -> None:
        """Keeps it, all of it or nothing. Blocks."""
        path = self._path(artefact.sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(artefact.archive)
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).replace(path)

    def get(self, sha256: str) -> bytes:
        """The packed bytes. Blocks. Raises CorruptData where they are gone or were altered."""
        path = self._path(sha256)
        try:
            archive = path.read_bytes()
        except OSError as error:
            raise CorruptData(f"the artefact {path.name} cannot be read: {error.strerror}") from None
        if content_hash(archive) != sha256:
            raise CorruptData(f"the artefact {path.name} was altered")
        return archive

    def _path(self, sha256: str) -> Path:
        return self._directory / f"{sha256}.zip"
