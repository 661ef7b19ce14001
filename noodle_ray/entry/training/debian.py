"""Debian packages as a source of data and programs: downloaded by apt-get and unpacked, without root or installing."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from noodle_ray.errors import CorruptData, Unavailable
from noodle_ray.fusion_models.files import sha256_of

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Package:
    """A package's name; `version` and `sha256` (of the .deb) where they are pinned.

    Without a version apt-get takes the newest that it knows, and checks it against its signed lists.
    """

    name: str
    version: str = ""
    sha256: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.version}".rstrip()


def bring(packages: Sequence[Package], folder: Path, subject: str, instead: str, progress: Progress) -> None:
    """Unpacks the packages into `folder`, which then exists as a whole or not at all.

    subject: what they hold, for messages; instead: what somebody without apt can do.
    Raises Unavailable where there is no apt or it cannot bring them, CorruptData where they are not the pinned ones.
    """
    for command in ("apt-get", "dpkg"):
        if shutil.which(command) is None:
            raise Unavailable(f"there is no {command} here, and {subject} comes from Debian packages; {instead}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as work:
        unpacked = Path(work) / "unpacked"
        for package in packages:
            progress(f"downloading {package}")
            _unpack(_download(package, Path(work)), unpacked)
        _settle(unpacked, folder)


def _settle(unpacked: Path, folder: Path) -> None:
    try:
        unpacked.rename(folder)
    except OSError:
        if not folder.is_dir():  # otherwise another process has brought the same meanwhile
            raise


def _download(package: Package, work: Path) -> Path:
    wanted = f"{package.name}={package.version}" if package.version else package.name
    run = _run(["apt-get", "download", "-qq", wanted], work)
    found = list(work.glob(f"{package.name}_*.deb"))
    if run.returncode != 0 or not found:
        reason = (run.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise Unavailable(
            f"apt-get cannot bring {package.name}: {reason} (after `apt-get update` as root it knows its packages)"
        )
    if package.sha256 and sha256_of(found[0]) != package.sha256:
        raise CorruptData(f"{found[0].name} is not the file with sha256 {package.sha256[:12]}…")
    return found[0]


def _unpack(package: Path, folder: Path) -> None:
    run = _run(["dpkg", "-x", str(package), str(folder)], package.parent)
    if run.returncode != 0:
        raise CorruptData(f"dpkg cannot unpack {package.name}: {run.stderr.strip()}")


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
