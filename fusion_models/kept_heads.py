"""Trained heads on the head: as files that `noodle fusion train` writes, handed out to who has another version."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from noodle_ray.errors import CorruptData, NotFound
from noodle_ray.fusion.head import Head, known_heads
from noodle_ray.fusion.index_messages import HeadInfo
from noodle_ray.fusion.rule import modality_of
from noodle_ray.settings import Settings

SHIPPED = Path(__file__).with_name("heads")


@dataclass(frozen=True, slots=True)
class SentHead:
    """A head, and which version of it that is."""

    version: str
    head: Head


class KeptHeads:
    """The user's heads, and those that come with noodle-ray; of one name, the user's. Methods block."""

    def __init__(self, settings: Settings, shipped: Path = SHIPPED) -> None:
        self._folders = (settings.state_dir / "heads", shipped)

    def all(self) -> list[HeadInfo]:
        """What there is; a damaged one is said to be so."""
        names = sorted({name for folder in self._folders for name in known_heads(folder)})
        return [self._told(name) for name in names]

    def _told(self, name: str) -> HeadInfo:
        try:
            sent = self.since(name, "")
        except CorruptData as error:
            return HeadInfo(name=name, labels=(), damage=error.message)
        assert sent is not None
        described = sent.head.description
        modalities = tuple(dict.fromkeys(modality_of(source) for source in described.sources))
        return HeadInfo(
            name=name, labels=described.labels, modalities=modalities, version=sent.version, card=described.trained
        )

    def since(self, name: str, version: str) -> SentHead | None:
        """The head, or None where `version` is what it is now. Raises NotFound, CorruptData."""
        folder = self._folder_of(name)
        now = _version(folder, name)
        return None if now == version else SentHead(now, Head.load(folder, name))

    def _folder_of(self, name: str) -> Path:
        for folder in self._folders:
            if (folder / f"{name}.json").is_file():
                return folder
        raise NotFound("head", name, sorted({known for folder in self._folders for known in known_heads(folder)}))


def _version(folder: Path, name: str) -> str:
    digest = sha256()
    for ending in (".json", ".safetensors"):
        try:
            status = (folder / f"{name}{ending}").stat()
        except FileNotFoundError:
            continue
        # Not the content: this is asked for every request, and files are replaced, never changed.
        digest.update(f"{status.st_ino} {status.st_mtime_ns} {status.st_size}\n".encode())
    return digest.hexdigest()[:16]
