"""The artefact store: packed modules as files that are named by their hash, wherever fsspec has a driver for."""

from __future__ import annotations

import os
import re
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

import fsspec
from fsspec.core import split_protocol, url_to_fs
from fsspec.implementations.local import LocalFileSystem

from noodle_ray.actors.ray_errors import first_line
from noodle_ray.errors import CorruptData, Fault, InvalidSettings, NoodleError, Unavailable, shorten
from noodle_ray.modules.artefact import Artefact, content_hash

VARIABLE = "NOODLE_ARTEFACTS_URL"


class ArtefactStore:
    """Each artefact once; what is read is what was put there.

    `url` is as fsspec has it: "file:///srv/artefacts", "s3://bucket/folder". Nothing is connected to before the first
    use. Raises InvalidSettings where there is no such protocol, or the package that speaks it is not installed.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        for protocol in _protocols(url):
            _require_driver(protocol, self._shown)

    def put(self, artefact: Artefact) -> None:
        """Keeps it, all of it or nothing; one that is there is written anew. Blocks. Raises Unavailable."""
        with self._reached():
            files, root = self._place
            path = self._path(artefact.sha256)
            files.makedirs(root, exist_ok=True)
            if isinstance(files, LocalFileSystem):
                _write_whole(Path(path), artefact.archive)
            else:
                self._write_then_move(path, artefact.archive)

    def get(self, sha256: str) -> bytes:
        """The packed bytes. Blocks. Raises CorruptData where they are gone or were altered, Unavailable."""
        with self._reached():
            files, _ = self._place
            try:
                archive: bytes = files.cat_file(self._path(sha256))
            except FileNotFoundError:
                raise CorruptData(f"the artefact {sha256}.zip is not in the store {self._shown} any more") from None
        if content_hash(archive) != sha256:
            raise CorruptData(f"the artefact {sha256}.zip was altered")
        return archive

    @cached_property
    def _place(self) -> tuple[fsspec.AbstractFileSystem, str]:
        """The file system, and the folder in it. Some drivers connect as they are made."""
        files, root = url_to_fs(self._url)
        return files, root.rstrip("/")

    @property
    def _shown(self) -> str:
        """The URL as it may be told: without a password."""
        return shorten(re.sub(r"//[^/@]*@", "//", self._url))

    def _path(self, sha256: str) -> str:
        return f"{self._place[1]}/{sha256}.zip"

    def _write_then_move(self, path: str, content: bytes) -> None:
        """Under another name first: a connection that breaks leaves nothing that looks whole."""
        files, _ = self._place
        scratch = f"{path}.{uuid.uuid4().hex[:8]}.new"
        try:
            files.pipe_file(scratch, content)
            files.mv(scratch, path)
        except BaseException:
            with suppress(Exception):  # what went wrong first is what is told
                files.rm_file(scratch)
            raise

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except NoodleError:
            raise
        except Exception as error:
            # Each driver has errors of its own; that it did not do what it was asked is all they have in common.
            raise Unavailable(f"the artefact store {self._shown} cannot be used now: {first_line(error)}") from error


def _write_whole(path: Path, content: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".new", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def _protocols(url: str) -> list[str]:
    """Those of a URL, of a chain all: "dir::s3://bucket" has two. A path alone is a file's."""
    *before, last = url.split("::")
    return [split_protocol(link)[0] or link for link in before] + [split_protocol(last)[0] or "file"]


def _require_driver(protocol: str, url: str) -> None:
    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        problem = f"the package that speaks {protocol!r} is not installed: {first_line(error)}"
        raise InvalidSettings([Fault(VARIABLE, problem, url)]) from None
    except ValueError:
        problem = f"{protocol!r} is no protocol that fsspec knows; known are file, s3, gs, abfs, sftp and others"
        raise InvalidSettings([Fault(VARIABLE, problem, url)]) from None
