"""Pictures with names: emoji as several artists drew them, from npm's packages of free icon sets.

Nothing of it is kept in this repository. The icon sets are Iconify's (SVG bodies under the names of Unicode's CLDR),
names and keywords are emojibase's. Each style's licence stands beside it; sets that are not free are not among them.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noodle_ray.errors import CorruptData, NotFound, Unavailable
from noodle_ray.fusion_models.files import sha256_of

Progress = Callable[[str], None]

SIDE = 224
"""Pixels a side of each picture."""
SEED = 7
TRAINING, VALIDATION, TEST = "training", "validation", "test"


@dataclass(frozen=True, slots=True)
class Style:
    """How one artist draws emoji: the npm package, its sha256, the artist and the licence. `part`: see `STYLES`."""

    name: str
    package: str
    version: str
    sha256: str
    artist: str
    licence: str
    part: str


STYLES = (
    Style(
        "noto",
        "@iconify-json/noto",
        "1.2.9",
        "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
        "Google, Noto Emoji",
        "Apache-2.0",
        TRAINING,
    ),
    Style(
        "blob",
        "@iconify-json/noto-v1",
        "1.2.5",
        "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37",
        "Google, Noto Emoji of 2014 to 2017",
        "Apache-2.0",
        TRAINING,
    ),
    Style(
        "twemoji",
        "@iconify-json/twemoji",
        "1.2.5",
        "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
        "Twitter, Twemoji",
        "CC-BY-4.0",
        TRAINING,
    ),
    Style(
        "emojione",
        "@iconify-json/emojione",
        "1.2.3",
        "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e",
        "Emoji One 2.3",
        "CC-BY-4.0",
        TRAINING,
    ),
    Style(
        "fxemoji",
        "@iconify-json/fxemoji",
        "1.2.2",
        "f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef",
        "Mozilla, Firefox OS Emoji",
        "Apache-2.0",
        TRAINING,
    ),
    Style(
        "fluent",
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
        "Microsoft, Fluent Emoji Flat",
        "MIT",
        VALIDATION,
    ),
    Style(
        "openmoji",
        "@iconify-json/openmoji",
        "1.2.29",
        "03181e2c156cab35cf4a62f1f7886bd971d59212e75ac3f189d5a4cae3930fc5",
        "OpenMoji",
        "CC-BY-SA-4.0",
        TEST,
    ),
)
"""By part: weights are trained on the training styles alone; methods and temperatures are chosen with the validation
style; the test style gives the figures and nothing else, so that nothing shipped derives from it."""

NAMES_PACKAGE, NAMES_VERSION = "emojibase-data", "17.0.0"
NAMES_SHA256 = "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a"
"""Names and keywords (MIT, from Unicode's CLDR)."""
_NAMES_MEMBER, _ICONS_MEMBER = "package/en/data.json", "package/icons.json"
_COMPONENTS = 2
_SHARES = ((0.72, TRAINING), (0.86, VALIDATION), (1.0, TEST))


@dataclass(frozen=True, slots=True)
class Emoji:
    """One emoji: its character, its CLDR name ("cat face"), keywords that are not the name, and its group.

    part: TRAINING where its pictures may be trained on; pictures of the others are in no training, in no style.
    """

    character: str
    name: str
    keywords: tuple[str, ...]
    group: int

    @property
    def part(self) -> str:
        """Drawn by the character's hash, so that it depends on nothing else."""
        digest = hashlib.sha256(f"{SEED}:{self.character}".encode()).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        return next(part for share, part in _SHARES if place < share)


class EmojiSet:
    """Emoji with their pictures in every style; pictures are drawn when they are asked for."""

    def __init__(self, emoji: tuple[Emoji, ...], icons: Mapping[str, Mapping[str, Any]]) -> None:
        self.emoji = emoji
        self._sets = {style: _Icons(icons[style]) for style in icons}

    def has(self, emoji: Emoji, style: str) -> bool:
        return self._sets[style].find(emoji) is not None

    def picture(self, emoji: Emoji, style: str) -> bytes:
        """The picture as PNG, SIDE pixels a side, transparent around the drawing. Raises NotFound, Unavailable."""
        found = self._sets[style].find(emoji)
        if found is None:
            raise NotFound("emoji", f"{emoji.name} in the style {style}")
        return _drawn(self._sets[style].svg(found))


class _Icons:
    """One icon set in Iconify's format."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._data, self._aliases = data, data.get("aliases", {})
        known = [*data["icons"], *self._aliases]
        # Sets that do not follow CLDR name their icons after Unicode's own names, written together.
        self._by_squeezed = {_squeezed(name): name for name in reversed(known)}

    def find(self, emoji: Emoji) -> str | None:
        names = (emoji.name, unicodedata.name(emoji.character, emoji.name))
        return next((self._by_squeezed[key] for key in map(_squeezed, names) if key in self._by_squeezed), None)

    def svg(self, name: str) -> str:
        """The icon as a document of its own, mirrored or turned as its alias says."""
        icon = self._resolved(name)
        left, top = icon.get("left", 0), icon.get("top", 0)
        width, height = (icon.get(side, self._data.get(side, 16)) for side in ("width", "height"))
        body = _turned(icon, left, top, width, height)
        spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        return f'<svg {spaces} viewBox="{left} {top} {width} {height}">{body}</svg>'

    def _resolved(self, name: str) -> dict[str, Any]:
        if name in self._data["icons"]:
            return dict(self._data["icons"][name])
        alias = self._aliases[name]
        return {**self._resolved(alias["parent"]), **alias}


def _turned(icon: Mapping[str, Any], left: float, top: float, width: float, height: float) -> str:
    middle_x, middle_y = left + width / 2, top + height / 2
    scale = (-1 if icon.get("hFlip") else 1, -1 if icon.get("vFlip") else 1)
    turn = 90 * int(icon.get("rotate", 0))
    if scale == (1, 1) and not turn:
        return str(icon["body"])
    steps = f"translate({middle_x} {middle_y}) rotate({turn}) scale({scale[0]} {scale[1]})"
    return f'<g transform="{steps} translate({-middle_x} {-middle_y})">{icon["body"]}</g>'


def _squeezed(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]", "", plain.lower())


def _drawn(svg: str) -> bytes:
    try:
        import resvg_py
    except ImportError:
        raise Unavailable("resvg-py is not installed: pip install 'noodle-ray[bench]' brings it") from None
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SIDE, height=SIDE, skip_system_fonts=True))


def fetch_emoji(cache_dir: Path, progress: Progress = lambda line: None) -> EmojiSet:
    """Brings names and icon sets into `<cache_dir>/data/emoji/` by `npm pack`, without installing anything.

    Does nothing where they are there. Raises Unavailable where there is no npm or it cannot bring a package,
    CorruptData where one is not the expected one.
    """
    folder = emoji_directory(cache_dir)
    if not folder.is_dir():
        if shutil.which("npm") is None:
            raise Unavailable("there is no npm here, and the emoji come from npm's packages; use pictures of your own")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".emoji-") as work:
            made = Path(work) / "made"
            made.mkdir()
            for target, package, version, sha256, member in _sources():
                progress(f"downloading {package} {version}")
                (made / target).write_bytes(_member(_packed(package, version, sha256, Path(work)), member))
            made.rename(folder)
    emoji = load_emoji(cache_dir)
    progress(f"{len(emoji.emoji)} emoji in {len(STYLES)} styles are in {folder}")
    return emoji


def _sources() -> Iterator[tuple[str, str, str, str, str]]:
    yield "names.json", NAMES_PACKAGE, NAMES_VERSION, NAMES_SHA256, _NAMES_MEMBER
    for style in STYLES:
        yield f"{style.name}.json", style.package, style.version, style.sha256, _ICONS_MEMBER


def emoji_directory(cache_dir: Path) -> Path:
    return cache_dir / "data" / "emoji"


def load_emoji(cache_dir: Path) -> EmojiSet:
    """The emoji that are in the cache. Raises Unavailable that names the command where they are not."""
    folder = emoji_directory(cache_dir)
    if not folder.is_dir():
        raise Unavailable("the emoji are not there: `noodle data fetch emoji` brings them")
    try:
        names = json.loads((folder / "names.json").read_bytes())
        icons = {style.name: json.loads((folder / f"{style.name}.json").read_bytes()) for style in STYLES}
        return EmojiSet(tuple(_emoji(names)), icons)
    except (OSError, ValueError, KeyError) as error:
        raise CorruptData(f"{folder} is damaged ({error}): delete it and call `noodle data fetch emoji`") from None


def _emoji(names: list[dict[str, Any]]) -> Iterator[Emoji]:
    """Those of a single code point, without skin tones and letters of flags: one picture, one name."""
    for entry in names:
        points = [point for point in entry["hexcode"].split("-") if point != "FE0F"]
        if len(points) == 1 and entry.get("group") not in (None, _COMPONENTS):
            keywords = tuple(tag for tag in entry.get("tags", ()) if tag != entry["label"])
            yield Emoji(chr(int(points[0], 16)), entry["label"], keywords, entry["group"])


def _packed(package: str, version: str, sha256: str, work: Path) -> Path:
    command = ["npm", "pack", "--silent", "--ignore-scripts", f"{package}@{version}"]
    run = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    path = work / f"{package.lstrip('@').replace('/', '-')}-{version}.tgz"
    if run.returncode != 0 or not path.is_file():
        reason = (run.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise Unavailable(f"npm cannot bring {package} {version}: {reason}")
    if sha256_of(path) != sha256:
        raise CorruptData(f"{path.name} is not the file with sha256 {sha256[:12]}…")
    return path


def _member(package: Path, name: str) -> bytes:
    with tarfile.open(package) as archive:
        found = archive.extractfile(name) if name in archive.getnames() else None
        if found is None:
            raise CorruptData(f"{package.name} has no file {name}")
        return found.read()
