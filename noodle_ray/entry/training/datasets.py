"""Real input for the demo, the tests and calibration: recorded speech, photographs and functions, none of it ours.

Nothing of it is kept in this repository: speech comes from Debian's packages, photographs from the scikit-image wheel,
functions from the running Python's standard library.
"""

from __future__ import annotations

import ast
import gzip
import sysconfig
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from noodle_ray.entry.training import debian
from noodle_ray.errors import CorruptData, NotFound, Unavailable

Progress = Callable[[str], None]

SPEECH_VERSION = "1.6.1-1"
SPEECH_PACKAGES = (
    debian.Package(
        "asterisk-core-sounds-en-wav",
        SPEECH_VERSION,
        "2be3ea287d83299d143815fa804f11179a75b7affd4a758b98b55f5afc18a35d",
    ),
    debian.Package(
        "asterisk-core-sounds-en", SPEECH_VERSION, "973e797d28e37fa6ca3c0a9d6fa717e77cf1268ae916bf09fd3503113cdffa50"
    ),
)
"""Debian's packages (CC-BY-SA 3.0, spoken by Allison Smith)."""
_SOUNDS = Path("usr/share/asterisk/sounds/en_US_f_Allison")
_TRANSCRIPTS = Path("usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A recorded sentence: its name ("digits/oclock"), the WAV file and what is said in it."""

    name: str
    path: Path
    transcript: str


@dataclass(frozen=True, slots=True)
class SpeechSet:
    """Recorded prompts with their transcripts; those that hold no speech (tones, silence) are left out."""

    prompts: tuple[Prompt, ...]

    def __getitem__(self, name: str) -> Prompt:
        for prompt in self.prompts:
            if prompt.name == name:
                return prompt
        raise NotFound("prompt", name)


@dataclass(frozen=True, slots=True)
class Photograph:
    """A picture that comes with scikit-image, and what is on it."""

    name: str
    path: Path
    caption: str


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the standard library: the first line of its docstring, and its code without the docstring."""

    module: str
    name: str
    summary: str
    code: str


def fetch_speech(cache_dir: Path, progress: Progress = lambda line: None) -> SpeechSet:
    """Brings the recorded speech into `<cache_dir>/data/speech/`, without installing anything and without root.

    Does nothing where it is there. Raises Unavailable where there is no apt or it cannot bring the packages,
    CorruptData where they are not the expected ones.
    """
    folder = speech_directory(cache_dir)
    if not folder.is_dir():
        debian.bring(SPEECH_PACKAGES, folder, "the recorded speech", "use a recording of your own", progress)
    speech = load_speech(cache_dir)
    progress(f"{len(speech.prompts)} spoken prompts are in {folder}")
    return speech


def speech_directory(cache_dir: Path) -> Path:
    return cache_dir / "data" / "speech"


def load_speech(cache_dir: Path) -> SpeechSet:
    """The recorded speech that is in the cache. Raises Unavailable that names the command where it is not."""
    folder = speech_directory(cache_dir)
    if not folder.is_dir():
        raise Unavailable("the recorded speech is not there: `noodle data fetch speech` brings it")
    try:
        lines = gzip.decompress((folder / _TRANSCRIPTS).read_bytes()).decode().splitlines()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise CorruptData(f"{folder} is damaged ({error}): delete it and call `noodle data fetch speech`") from None
    return SpeechSet(tuple(_prompts(folder, lines)))


def _prompts(folder: Path, lines: list[str]) -> Iterator[Prompt]:
    for line in lines:
        name, separator, transcript = line.partition(": ")
        path = folder / _SOUNDS / f"{name}.wav"
        # In brackets stands what is heard where nothing is said: tones, noises, silence.
        if separator and path.is_file() and not set("[(") & set(transcript):
            yield Prompt(name, path, " ".join(transcript.split()))


CAPTIONS = {
    "astronaut.png": "an astronaut in a space suit",
    "brick.png": "a brick wall",
    "camera.png": "a man with a camera on a tripod",
    "chelsea.png": "a cat",
    "clock_motion.png": "a clock on a wall",
    "coffee.png": "a cup of coffee",
    "coins.png": "old coins",
    "grass.png": "grass",
    "gravel.png": "gravel",
    "hubble_deep_field.jpg": "galaxies in deep space",
    "moon.png": "the surface of the moon",
    "motorcycle_left.png": "a motorcycle in a garage",
    "page.png": "a page of printed text",
    "retina.jpg": "the retina of an eye",
    "rocket.jpg": "a rocket on its launch pad",
}
"""What is on the photographs, in our words."""


def photographs() -> tuple[Photograph, ...]:
    """The photographs inside the scikit-image wheel. Raises Unavailable where it is not installed."""
    package = find_spec("skimage")
    if package is None or package.origin is None:
        raise Unavailable("scikit-image is not installed: pip install 'noodle-ray[demo]' brings its photographs")
    folder = Path(package.origin).parent / "data"
    return tuple(Photograph(Path(name).stem, folder / name, caption) for name, caption in CAPTIONS.items())


_NAMES = """
    argparse ast base64 bisect calendar cmd colorsys copy csv datetime difflib dis fileinput fnmatch fractions
    ftplib functools getpass gettext glob gzip heapq imaplib inspect ipaddress keyword linecache locale mailbox
    mimetypes netrc ntpath nturl2path numbers opcode operator os pickle pkgutil platform posixpath pprint
    profile quopri random reprlib sched secrets shelve shlex shutil smtplib socket statistics string stringprep
    subprocess tarfile tempfile textwrap threading timeit tokenize trace traceback types typing uuid warnings
    wave weakref webbrowser zipfile
"""
MODULES = tuple(_NAMES.split())
"""The single-file modules whose functions are taken; a fixed list, so that the set depends only on Python's version."""


def python_functions() -> tuple[Function, ...]:
    """Functions and methods of the standard library that have a docstring and at least three lines of code."""
    folder = Path(sysconfig.get_path("stdlib"))
    return tuple(
        function
        for module in MODULES
        if (path := folder / f"{module}.py").is_file()
        for function in functions_in(module, path.read_text(encoding="utf-8"))
    )


def functions_in(module: str, source: str) -> Iterator[Function]:
    """As python_functions, of one file's source. Raises SyntaxError."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (docstring := ast.get_docstring(node)):
            summary = " ".join(docstring.split("\n\n")[0].split())
            code = _without_docstring(node, source)
            if len(code.splitlines()) >= 4 and 15 <= len(summary) <= 200:
                yield Function(module, node.name, summary, code)


def _without_docstring(node: ast.FunctionDef | ast.AsyncFunctionDef, source: str) -> str:
    lines = source.splitlines()
    first, last = node.body[0].lineno, node.body[0].end_lineno or node.body[0].lineno
    kept = lines[node.lineno - 1 : first - 1] + lines[last : node.end_lineno]
    return textwrap.dedent("\n".join(kept))
