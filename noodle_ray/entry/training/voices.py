"""Artificial voices that read a text aloud (espeak-ng), in three groups that share no voice: to train, validate, test.

espeak-ng is taken from the PATH, or brought from Debian's packages into the cache, without root. The groups share no
variant (the shape of the throat: "f3"); validation and test have accents that training has not, too. All are formant
synthesis: they differ far less than people do, and figures on them are said to be figures on artificial voices.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import soxr

from noodle_ray.entry.training import debian
from noodle_ray.errors import InvalidInput, NotFound, Unavailable
from noodle_ray.fusion.decoding import SAMPLE_RATE_HZ, Samples
from noodle_ray.settings import read_settings

Progress = Callable[[str], None]

VOICES_TRAIN = (
    "en-us+f1",
    "en-us+f3",
    "en-us+m3",
    "en-us+m7",
    "en-us+Alex",
    "en-us+Michael",
    "en-us+Annie",
    "en+f2",
    "en+m1",
    "en+David",
    "en-gb-x-rp+f4",
    "en-gb-x-rp+Lee",
    "en-gb-scotland+m5",
    "en-gb-scotland+Belinda",
)
VOICES_VALIDATION = (
    "en-us+m2",
    "en-us+Linda",
    "en-us+Gene",
    "en+f5",
    "en-gb-scotland+paul",
    "en-gb-x-gbclan+Andy",
)
VOICES_TEST = (
    "en-us+Mike",
    "en-us+anika",
    "en-us+robert",
    "en+john",
    "en+shelby",
    "en-us+sandro",
    "en-gb-x-gbcwmd+quincy",
    "en-029+marcelo",
)
"""Each is a language of espeak-ng's and a variant: accent and throat."""
VOICES = (*VOICES_TRAIN, *VOICES_VALIDATION, *VOICES_TEST)

WORDS_PER_MINUTE, PITCHES = range(80, 451), range(100)
_HEADER_BYTES = 44
_NAMES = """
    espeak-ng espeak-ng-data libespeak-ng1 libpcaudio0 libsonic0 libpulse0 libsndfile1 libvorbisenc2 libvorbis0a
    libopus0 libmpg123-0 libmp3lame0 libflac12 libogg0 libasyncns0
"""
PACKAGES = tuple(debian.Package(name) for name in _NAMES.split())
"""espeak-ng (GPL-3.0-or-later) of Debian 12, and all the libraries that a bare installation lacks."""


@dataclass(frozen=True, slots=True)
class Synthesiser:
    """Where espeak-ng is, and what it must be told to find its libraries and data."""

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)

    def version(self) -> str:
        """As it calls itself: "1.51"."""
        words = self._run("--version").decode().partition("text-to-speech:")[2].split()
        return words[0] if words else "of an unknown version"

    def speak(self, text: str, voice: str, words_per_minute: int = 175, pitch: int = 50) -> Samples:
        """See the function of this name."""
        _check(voice, words_per_minute, pitch)
        options = ("-v", voice, "-s", str(words_per_minute), "-p", str(pitch), "-b", "1", "-z", "--stdin", "--stdout")
        return _samples(self._run(*options, given=text.encode()))

    def _run(self, *options: str, given: bytes = b"") -> bytes:
        environment = {**os.environ, **self.environment}
        run = subprocess.run([*self.command, *options], input=given, capture_output=True, env=environment, check=False)
        if run.returncode != 0:
            reason = run.stderr.decode(errors="replace").strip() or f"exit status {run.returncode}"
            raise Unavailable(f"espeak-ng does not work here: {reason}")
        return run.stdout


def speak(text: str, voice: str, words_per_minute: int = 175, pitch: int = 50) -> Samples:
    """The text, read aloud by one of VOICES: mono, float32, 16 kHz, within -1..1. The same text gives the same samples.

    words_per_minute: 80 to 450; pitch: 0 to 99. Raises NotFound for another voice, InvalidInput for a speed or pitch
    out of range or a text in which nothing can be pronounced, Unavailable where espeak-ng cannot be had.
    """
    return _found_once(read_settings().cache_dir).speak(text, voice, words_per_minute, pitch)


def find_synthesiser(cache_dir: Path, progress: Progress = lambda line: None) -> Synthesiser:
    """espeak-ng on the PATH; else the one in `<cache_dir>/data/voices/`, which is brought where it is not there yet.

    Raises Unavailable where it can be had neither way.
    """
    if path := shutil.which("espeak-ng"):
        return Synthesiser((path,))
    folder = cache_dir / "data" / "voices"
    if not folder.is_dir():
        debian.bring(PACKAGES, folder, "the synthetic speech", "install espeak-ng by your system's means", progress)
    libraries = [path.parent for path in sorted(folder.glob("usr/lib/*/libespeak-ng.so.1"))]
    if not libraries:
        raise Unavailable(f"{folder} holds no espeak-ng: delete it, and it will be brought again")
    searched = [*libraries, *(library / "pulseaudio" for library in libraries)]
    return Synthesiser(
        (str(folder / "usr" / "bin" / "espeak-ng"), f"--path={libraries[0]}"),
        {"LD_LIBRARY_PATH": os.pathsep.join(map(str, searched)), "ESPEAK_DATA_PATH": str(libraries[0])},
    )


_found_once = lru_cache(maxsize=4)(find_synthesiser)


def _check(voice: str, words_per_minute: int, pitch: int) -> None:
    # espeak-ng itself would take its default voice in place of one that it does not know, and clamp the numbers.
    if voice not in VOICES:
        raise NotFound("voice", voice, VOICES)
    for name, value, allowed in (("words_per_minute", words_per_minute, WORDS_PER_MINUTE), ("pitch", pitch, PITCHES)):
        if value not in allowed:
            raise InvalidInput.of(name, f"must be {allowed[0]} to {allowed[-1]}", value)


def _samples(wav: bytes) -> Samples:
    # Written into a pipe, the header's lengths are made up: the samples are whatever follows it.
    if len(wav) <= _HEADER_BYTES:
        raise InvalidInput.of("text", "holds nothing that can be pronounced")
    (rate,) = struct.unpack_from("<I", wav, 24)
    whole = np.frombuffer(wav[_HEADER_BYTES : len(wav) // 2 * 2], "<i2").astype(np.float32) / 32768.0
    return np.clip(np.asarray(soxr.resample(whole, rate, SAMPLE_RATE_HZ), np.float32), -1.0, 1.0)
