"""Artefacts: a module's files packed into bytes with one hash, and unpacked, verified, into a cache."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import stat
import sys
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from noodle_ray.errors import CorruptData, InvalidInput, TooLarge
from noodle_ray.modules.archive import MAX_BYTES, MAX_FILES, check_names, read_entries, write_entries
from noodle_ray.modules.entry_point import check_entry_point
from noodle_ray.modules.manifest import FILE_NAME, Manifest, find_manifest, parse_manifest
from noodle_ray.modules.signatures import Function, read_functions
from noodle_ray.runners.import_path import VENDOR

_LEFT_OUT = ("__pycache__",)
_LEFT_OUT_ENDINGS = (".pyc", ".pyo", ".egg-info")


@dataclass(frozen=True, slots=True)
class Artefact:
    """A module, packed. `sha256` is the hash of `archive`, in hex: the same files give the same one everywhere.

    `functions` are what its entry point offers, None where only running it would tell.
    """

    manifest: Manifest
    archive: bytes
    sha256: str
    functions: tuple[Function, ...] | None


@dataclass(frozen=True, slots=True)
class Missing:
    """The artefacts that a machine's cache has not, or not whole, by their hashes."""

    hashes: tuple[str, ...]


def pack_module(path: Path) -> bytes:
    """Packs a module's directory or a package that can be imported, or packs anew what a wheel or zip file holds.

    A package is named, not imported; its manifest lies in it or, as in a checkout, beside it. Leaves out names that
    begin with a dot, __pycache__, compiled files and egg-info. Raises InvalidInput (no such module, links that lead
    out of it, faults of the manifest) or TooLarge.
    """
    if path.is_dir():
        entries = _read_directory(path)
    elif path.is_file():
        entries = read_entries(path.read_bytes())
    elif (package := _find_package(str(path))) is not None:
        entries = _read_package(package)
    else:
        raise InvalidInput.of("module", "must be a directory, a wheel, a zip file or an importable package", str(path))
    return write_entries(_checked(entries)[1])


def read_artefact(archive: bytes) -> Artefact:
    """The artefact within an archive from anywhere: checked, and packed anew in the one form.

    Raises as pack_module, and InvalidInput where the manifest names functions that the code has not.
    """
    manifest, entries = _checked(read_entries(archive))
    packed = write_entries(entries)
    functions = read_functions(entries, manifest.entry_point)
    check_entry_point(manifest, entries, functions)
    return Artefact(manifest, packed, content_hash(packed), functions)


def content_hash(archive: bytes) -> str:
    return hashlib.sha256(archive).hexdigest()


def cached(cache: Path, sha256: str) -> Path:
    """Where the artefact of that hash lies on this machine, once it is unpacked."""
    return cache / "modules" / sha256


def is_cached(cache: Path, sha256: str) -> bool:
    """Whether it is there, and still is what its hash says."""
    folder = cached(cache, sha256)
    try:
        return folder.is_dir() and content_hash(write_entries(_read_directory(folder))) == sha256
    except (InvalidInput, TooLarge, OSError):
        return False


def unpack(archive: bytes, sha256: str, cache: Path) -> Path:
    """Unpacks the artefact into the cache, all of it or nothing, and gives its folder.

    What is already there is taken where it is whole, and replaced where it was altered. Raises CorruptData where the
    bytes are not what the hash says.
    """
    if content_hash(archive) != sha256:
        raise CorruptData(f"the artefact's bytes have the hash {content_hash(archive)}, wanted is {sha256}")
    folder = cached(cache, sha256)
    if is_cached(cache, sha256):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as scratch:
        fresh = Path(scratch) / "fresh"
        for name, content in read_entries(archive).items():
            target = fresh / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        _put_in_place(fresh, folder, Path(scratch) / "old")
    return folder


def _put_in_place(fresh: Path, folder: Path, aside: Path) -> None:
    if folder.exists():
        folder.rename(aside)
    try:
        fresh.rename(folder)
    except OSError:
        # Another process of this machine was faster: the folder's name is its hash, so it has put the same there.
        if not folder.is_dir():
            raise


def _checked(entries: dict[str, bytes]) -> tuple[Manifest, dict[str, bytes]]:
    kept = {name: content for name, content in entries.items() if not any(map(_is_left_out, name.split("/")))}
    manifest = parse_manifest(find_manifest(kept))
    if not any(name == f"{manifest.package}.py" or name.startswith(f"{manifest.package}/") for name in kept):
        raise InvalidInput.of("entry_point", f"there is no package {manifest.package!r} in the module")
    for name in sorted({name.removesuffix("/__init__.py").removesuffix(".py") for name in kept}):
        if name in sys.stdlib_module_names or name in ("ray", "noodle_ray"):
            raise InvalidInput.of("module", "has a package with the name of one that Python or Ray has", name)
    _check_vendor(manifest, kept)
    return manifest, kept


def _check_vendor(manifest: Manifest, names: Collection[str]) -> None:
    """The folder of copies is no package itself: each module of a lock may have one."""
    if manifest.vendor and not any(name.startswith(VENDOR + "/") for name in names):
        raise InvalidInput.of("vendor", f"is true, but the module has no folder {VENDOR!r} with packages in it")
    for name in (f"{VENDOR}.py", f"{VENDOR}/__init__.py"):
        if name in names:
            raise InvalidInput.of("module", f"{VENDOR!r} must be a folder of packages, not a package itself", name)


def _is_left_out(part: str) -> bool:
    return part.startswith(".") or part in _LEFT_OUT or part.endswith(_LEFT_OUT_ENDINGS)


def _read_directory(directory: Path) -> dict[str, bytes]:
    root = directory.resolve()
    entries: dict[str, bytes] = {}
    left = MAX_BYTES
    for name in _names_below(root):
        content = _read_file(root / name, name, left)
        entries[name] = content
        left -= len(content)
        if len(entries) > MAX_FILES:
            raise TooLarge("module", len(entries), MAX_FILES, "files")
    check_names(entries)
    return entries


def _find_package(name: str) -> Path | None:
    """The folder of a package that can be imported here."""
    found = importlib.util.find_spec(name) if name.isidentifier() else None
    places = found.submodule_search_locations if found is not None else None
    return Path(next(iter(places))) if places else None


def _read_package(package: Path) -> dict[str, bytes]:
    entries = {f"{package.name}/{name}": content for name, content in _read_directory(package).items()}
    beside = package.parent / FILE_NAME
    if f"{package.name}/{FILE_NAME}" not in entries and beside.is_file():
        entries[FILE_NAME] = beside.read_bytes()
    return entries


def _names_below(root: Path) -> Iterator[str]:
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if not _is_left_out(name))
        for name in subfolders:
            if (Path(folder) / name).is_symlink():
                raise InvalidInput.of("module", "must not hold links to folders", name)
        for name in sorted(files):
            if not _is_left_out(name):
                yield (Path(folder) / name).relative_to(root).as_posix()


def _read_file(path: Path, name: str, left: int) -> bytes:
    try:
        target = path.resolve(strict=True)
    except OSError:
        raise InvalidInput.of("module", "holds a link that leads nowhere", name) from None
    root = path.parents[len(Path(name).parts) - 1]
    if not target.is_relative_to(root):
        raise InvalidInput.of("module", "holds a link that leads out of it", name)
    if not stat.S_ISREG(target.stat().st_mode):
        raise InvalidInput.of("module", "may hold regular files only", name)
    if target.stat().st_size > left:
        raise TooLarge("module", MAX_BYTES - left + target.stat().st_size, MAX_BYTES, "bytes")
    return target.read_bytes()
