"""Packs: named sets of encoders on disk, checked before they are used.

`<cache_dir>/packs/<name>/` holds either `manifest.json` (a fetched pack: every file with its origin, licence, size and
sha256) or `pack.toml` (a pretrained pack: encoders named by a directory or a hub id, loaded by `from_pretrained`).
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator

from noodle_ray.base_model import Model, faults_of
from noodle_ray.errors import CorruptData, Fault, InvalidInput, NotFound
from noodle_ray.fusion.modality import MODALITIES
from noodle_ray.fusion_models.files import sha256_of

BASE = "base"
MANIFEST, DESCRIPTION, STAMP = "manifest.json", "pack.toml", ".verified.json"
MEND = "`noodle models fetch` mends it"

ModalityName = Annotated[str, Field(pattern=rf"^({'|'.join(MODALITIES)})$")]
PackName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class PackFile(Model):
    """One file of a fetched pack. `name` is relative to the pack's folder; `size` in bytes."""

    name: str
    source: str
    licence: str
    upstream: str
    upstream_licence: str
    sha256: Sha256
    size: Annotated[int, Field(ge=0)]

    @field_validator("name")
    @classmethod
    def _stays_inside(cls, value: str) -> str:
        path = Path(value)
        if path.is_absolute() or ".." in path.parts or not value:
            raise ValueError("must be a path inside the pack's folder")
        return value


class FetchedEncoder(Model):
    """An encoder of a fetched pack: its kind, the folder it is in, and the width of its embedding."""

    kind: str
    folder: str
    width: Annotated[int, Field(gt=0)]


class Manifest(Model):
    """What a fetched pack consists of. `recipe`: the sha256 of what it was made from and how."""

    name: PackName
    recipe: Sha256
    encoders: dict[ModalityName, FetchedEncoder]
    files: tuple[PackFile, ...]


class PretrainedEncoder(Model):
    """An encoder by name: `source` is a directory or a hub id, `revision` (hub only) pins it.

    Kinds: "sentence" (text, code: any AutoModel, mean-pooled), "two-towers" (text, vision: CLIP-like), "whisper"
    (audio).
    """

    kind: Literal["sentence", "two-towers", "whisper"]
    source: Annotated[str, Field(min_length=1)]
    revision: str | None = None


class Description(Model):
    """A `pack.toml`. The text encoder is the anchor: candidates and transcripts are placed by it."""

    encoders: dict[ModalityName, PretrainedEncoder]

    @field_validator("encoders")
    @classmethod
    def _has_an_anchor(cls, value: dict[str, PretrainedEncoder]) -> dict[str, PretrainedEncoder]:
        if "text" not in value:
            raise ValueError("needs a text encoder: candidates are placed by it")
        return value


@dataclass(frozen=True, slots=True)
class Pack:
    """A pack that was found and, where it has a manifest, checked against it."""

    name: str
    directory: Path
    manifest: Manifest | None = None
    description: Description | None = None

    @property
    def modalities(self) -> tuple[str, ...]:
        known = (self.manifest or self._described).encoders
        return tuple(modality for modality in MODALITIES if modality in known)

    def fetched(self, modality: str) -> FetchedEncoder | None:
        return self.manifest.encoders.get(modality) if self.manifest else None

    def pretrained(self, modality: str) -> PretrainedEncoder | None:
        return self.description.encoders.get(modality) if self.description else None

    def version(self, modality: str) -> str:
        """Which weights: pack/sha256's beginning, or pack/source@revision."""
        if named := self.pretrained(modality):
            return f"{self.name}/{Path(named.source).name}" + (f"@{named.revision}" if named.revision else "")
        return f"{self.name}/{self._weights(modality).sha256[:12]}"

    def _weights(self, modality: str) -> PackFile:
        assert self.manifest is not None
        folder = self.manifest.encoders[modality].folder
        return next(file for file in self.manifest.files if file.name == f"{folder}/model.safetensors")

    @property
    def _described(self) -> Description:
        assert self.description is not None
        return self.description


def pack_directory(name: str, cache_dir: Path) -> Path:
    return cache_dir / "packs" / name


def load_pack(name: str, cache_dir: Path) -> Pack:
    """The pack of this name, checked.

    All files of a fetched pack are hashed at the first call; after that a file counts as unchanged while its size and
    time of modification are those of the last full check (`.verified.json`). `check_pack` always hashes.
    Raises CorruptData that names the file and what mends it, NotFound for an unknown pack.
    """
    directory = pack_directory(name, cache_dir)
    if (directory / DESCRIPTION).is_file():
        return Pack(name, directory, description=_read_description(directory / DESCRIPTION))
    manifest = read_manifest(name, cache_dir)
    stamps = _read_stamps(directory)
    if problems := list(_problems(directory, manifest, stamps)):
        raise CorruptData("; ".join(problems))
    _write_stamps(directory, manifest)
    return Pack(name, directory, manifest=manifest)


def check_pack(name: str, cache_dir: Path) -> list[str]:
    """Hashes every file of a fetched pack, whatever was checked before: what is wrong, one line a file."""
    directory = pack_directory(name, cache_dir)
    if (directory / DESCRIPTION).is_file():
        _read_description(directory / DESCRIPTION)
        return []
    return list(_problems(directory, read_manifest(name, cache_dir), {}))


def known_packs(cache_dir: Path) -> list[str]:
    """The packs that are on disk, whether or not they are intact."""
    folder = cache_dir / "packs"
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(
        path.name
        for path in found
        if not path.name.startswith(".") and ((path / MANIFEST).exists() or (path / DESCRIPTION).exists())
    )


def read_manifest(name: str, cache_dir: Path) -> Manifest:
    """The manifest alone; the files are not looked at. Raises CorruptData, or NotFound for an unknown pack."""
    path = pack_directory(name, cache_dir) / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        if name == BASE:
            raise CorruptData(f"{path} is missing; {MEND}") from None
        raise NotFound("pack", name, known_packs(cache_dir)) from None
    except ValidationError as error:
        faults = "; ".join(map(str, faults_of(error)))
        raise CorruptData(f"{path} is damaged ({faults}); {MEND}") from None


def _read_description(path: Path) -> Description:
    try:
        return Description.parse(tomllib.loads(path.read_text()))
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput([Fault(str(path), f"is no TOML: {error}")]) from None


def _problems(directory: Path, manifest: Manifest, stamps: dict[str, Any]) -> Iterator[str]:
    for file in manifest.files:
        path = directory / file.name
        if not path.is_file():
            yield f"{path} is missing; {MEND}"
        elif stamps.get(file.name) == [*_stamp(path), file.sha256]:
            continue
        elif path.stat().st_size != file.size or sha256_of(path) != file.sha256:
            yield f"{path} is not what the manifest says (sha256 {file.sha256[:12]}…); {MEND}"


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _read_stamps(directory: Path) -> dict[str, Any]:
    try:
        stamps = json.loads((directory / STAMP).read_text())
    except (OSError, ValueError):  # never checked, or the note is damaged: then everything is hashed again
        return {}
    return stamps if isinstance(stamps, dict) else {}


def _write_stamps(directory: Path, manifest: Manifest) -> None:
    stamps = {file.name: [*_stamp(directory / file.name), file.sha256] for file in manifest.files}
    if stamps == _read_stamps(directory) or not os.access(directory, os.W_OK):
        return  # a cache that may only be read is hashed each time
    draft = directory / f"{STAMP}.{os.getpid()}"
    draft.write_text(json.dumps(stamps))
    draft.replace(directory / STAMP)
