"""Zip bytes from and to a mapping of names to contents: the same files give the same bytes, and none is trusted."""

from __future__ import annotations

import io
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import PurePosixPath

from noodle_ray.errors import InvalidInput, TooLarge

MAX_FILES = 5_000
MAX_BYTES = 256 * 2**20
"""Of all the files of a module together, unpacked."""

_EPOCH = (1980, 1, 1, 0, 0, 0)
_REGULAR = (stat.S_IFREG | 0o644) << 16
_UNIX = 3


def write_entries(entries: Mapping[str, bytes]) -> bytes:
    """The files as a zip whose bytes depend on nothing but names and contents.

    Stored, not compressed: what a compressor makes differs from one release of zlib to the next, and with it the hash.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(entries):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.create_system, info.external_attr = _UNIX, _REGULAR
            archive.writestr(info, entries[name])
    return buffer.getvalue()


def read_entries(archive: bytes) -> dict[str, bytes]:
    """The files of a zip that comes from anywhere, by name, folders left out.

    Raises InvalidInput for what is no zip or holds links, encryption, or names that lead out of it; TooLarge for too
    many or too large files, whatever its directory claims.
    """
    if len(archive) > MAX_BYTES * 2:
        raise TooLarge("archive", len(archive), MAX_BYTES * 2, "bytes")
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            return _read_all(opened)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError, ValueError) as error:
        raise InvalidInput.of("archive", f"is not a whole zip file or wheel: {error}") from None


def _read_all(opened: zipfile.ZipFile) -> dict[str, bytes]:
    infos = [info for info in opened.infolist() if not info.filename.endswith("/")]  # is_dir() trips over an empty name
    if len(infos) > MAX_FILES:
        raise TooLarge("archive", len(infos), MAX_FILES, "files")
    entries: dict[str, bytes] = {}
    left = MAX_BYTES
    for info in infos:
        _check_kind(info)
        if info.filename in entries:
            raise InvalidInput.of("archive", "holds one name twice", info.filename)
        with opened.open(info) as file:
            content = file.read(left + 1)
        left -= len(content)
        if left < 0:
            raise TooLarge("archive", MAX_BYTES - left, MAX_BYTES, "bytes unpacked")
        entries[info.filename] = content
    check_names(entries)
    return entries


def _check_kind(info: zipfile.ZipInfo) -> None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if info.create_system == _UNIX and kind not in (0, stat.S_IFREG):
        raise InvalidInput.of("archive", "may hold regular files only, no links or devices", info.filename)
    if info.flag_bits & 0x1:
        raise InvalidInput.of("archive", "must not be encrypted", info.filename)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InvalidInput.of("archive", "may be stored or deflated, not compressed in another way", info.filename)


def check_names(entries: Mapping[str, bytes]) -> None:
    """Raises InvalidInput for a name that is no plain path below its root, or that is a file and a folder at once."""
    folders = {str(parent) for name in entries for parent in PurePosixPath(name).parents}
    spellings: dict[str, str] = {}
    for name in sorted(entries):
        if not _is_plain(name):
            raise InvalidInput.of("archive", "may hold plain relative names only", name)
        if name in folders:
            raise InvalidInput.of("archive", "holds a name that is a file and a folder", name)
        # A file system that does not tell upper from lower case would let one file silently replace the other.
        folded = unicodedata.normalize("NFC", name).casefold()
        if spellings.setdefault(folded, name) != name:
            raise InvalidInput.of("archive", f"holds two spellings of one name: {spellings[folded]!r}", name)


def _is_plain(name: str) -> bool:
    parts = name.split("/")
    return (
        len(name) <= 1000
        and name.isprintable()
        and not set(name) & set('\\:*?"<>|')
        and all(part not in ("", ".", "..") and len(part.encode()) <= 200 for part in parts)
    )
