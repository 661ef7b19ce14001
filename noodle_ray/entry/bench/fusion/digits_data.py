"""Digits seen and heard, with noise: handwritten ones (scikit-learn) and spoken ones (espeak-ng), encoded and kept.

A noisy picture is a PNG in which a pixel of the original (0 to 1) is 40 levels of grey, on a ground of 100, so that
noise is rarely cut off; noise in a sound is white, and its strength is relative to the clip's mean power.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
from PIL import Image

from noodle_ray.entry.training import voices
from noodle_ray.fusion.decoding import SAMPLE_RATE_HZ, Samples, decode_audio, decode_image
from noodle_ray.fusion_models.descriptors import LAYOUT
from noodle_ray.fusion_models.encoders import load_encoder
from noodle_ray.fusion_models.packs import BASE, Pack, load_pack

Progress = Callable[[str], None]
Rows = npt.NDArray[np.float32]

SEED = 20
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPEEDS_AND_PITCHES = ((150, 40), (175, 50), (200, 60))
GROUND, CONTRAST = 100.0, 40.0
PICTURES = {"fit": 800, "validation": 400, "test": 597}
"""Of the 1,797 of scikit-learn, in an order drawn by SEED."""
VOICES = {"fit": voices.VOICES_TRAIN, "validation": voices.VOICES_VALIDATION, "test": voices.VOICES_TEST}
DRAWS = {"fit": 2, "validation": 1, "test": 1}
"""How often each picture is seen, and a clip heard beside it, with other noise (where there is noise)."""


@dataclass(frozen=True, slots=True)
class Level:
    """Noise: its deviation in a picture (a pixel is 0 to 1), and the signal-to-noise ratio of a sound (None: clean)."""

    sigma: float
    snr_db: float | None

    @property
    def name(self) -> str:
        return f"noise {self.sigma:g} / {'clean' if self.snr_db is None else f'{self.snr_db:g} dB'}"


LEVELS = (Level(0.0, None), Level(0.3, 5.0), Level(0.6, -5.0), Level(1.0, -10.0))


@dataclass(frozen=True, slots=True)
class Encoded:
    """One part at one level. vision, audio: (n, width) features, of which row i shows digits[i].

    Pictures come in the part's order, once for each draw of noise.
    """

    vision: Rows
    audio: Rows
    digits: npt.NDArray[np.int64]


def encoded(cache_dir: Path, progress: Progress) -> dict[tuple[str, int], Encoded]:
    """By part and index of the level. Encoding takes minutes; what is done is kept in `<cache_dir>/bench/`."""
    synthesiser = voices.find_synthesiser(cache_dir, progress)
    pack = load_pack(BASE, cache_dir)
    folder = cache_dir / "bench" / f"digits-{_key(pack, synthesiser)}"
    folder.mkdir(parents=True, exist_ok=True)
    maker = _Maker(pack, synthesiser)
    result = {}
    for part in PICTURES:
        for index, level in enumerate(LEVELS):
            path = folder / f"{part}-{index}.npz"
            if not path.is_file():
                progress(f"encoding digits: {part}, {level.name}")
                draft = path.with_suffix(".draft.npz")
                _keep(maker.made(part, index), draft)
                draft.replace(path)
            with np.load(path) as kept:
                result[part, index] = Encoded(kept["vision"], kept["audio"], kept["digits"])
    return result


def _keep(arrays: Encoded, path: Path) -> None:
    np.savez(path, vision=arrays.vision, audio=arrays.audio, digits=arrays.digits)


def _key(pack: Pack, synthesiser: voices.Synthesiser) -> str:
    """Of everything that the result depends on."""
    versions = pack.version("vision"), pack.version("audio"), synthesiser.version()
    settings = LAYOUT, versions, SEED, PICTURES, VOICES, DRAWS, SPEEDS_AND_PITCHES, LEVELS
    return hashlib.sha256(repr(settings).encode()).hexdigest()[:12]


class _Maker:
    """Makes noisy pictures and sounds and encodes them; the encoders are loaded when they are first needed."""

    def __init__(self, pack: Pack, synthesiser: voices.Synthesiser) -> None:
        self._pack, self._synthesiser = pack, synthesiser
        self._encoders: dict[str, Any] = {}
        self._spoken: dict[tuple[int, str, int, int], Samples] = {}

    def made(self, part: str, index: int) -> Encoded:
        draw = np.random.default_rng([SEED, list(PICTURES).index(part), index])
        pictures, digits = handwritten()
        level = LEVELS[index]
        chosen = np.tile(_pictures_of(part, len(digits)), DRAWS[part] if level.sigma else 1)
        seen = [decode_image(noisy_picture(pictures[one], level, draw)) for one in chosen]
        heard = [self._clip(digit, part, draw) for digit in digits[chosen].tolist()]
        sounds = [decode_audio(noisy_sound(samples, level, draw)) for samples in heard]
        return Encoded(
            np.stack([self._encoder("vision").features(pixels) for pixels in seen]),
            np.stack([self._encoder("audio").features(samples) for samples in sounds]),
            digits[chosen],
        )

    def _encoder(self, modality: str) -> Any:
        if modality not in self._encoders:
            self._encoders[modality] = load_encoder(self._pack, modality)
        return self._encoders[modality]

    def _clip(self, digit: int, part: str, draw: np.random.Generator) -> Samples:
        """The digit by a voice of the part, at a speed and pitch, all drawn."""
        voice = VOICES[part][int(draw.integers(len(VOICES[part])))]
        speed, pitch = SPEEDS_AND_PITCHES[int(draw.integers(len(SPEEDS_AND_PITCHES)))]
        key = (digit, voice, speed, pitch)
        if key not in self._spoken:
            self._spoken[key] = self._synthesiser.speak(WORDS[digit], voice, speed, pitch)
        return self._spoken[key]


def _pictures_of(part: str, count: int) -> npt.NDArray[np.int64]:
    """Which pictures of all belong to the part."""
    first = sum(list(PICTURES.values())[: list(PICTURES).index(part)])
    return np.random.default_rng(SEED).permutation(count)[first : first + PICTURES[part]]


def handwritten() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """(1797, 8, 8) pictures in 0..1, and their digits (Alpaydin and Kaynak 1998, UCI; CC BY 4.0)."""
    from sklearn.datasets import load_digits

    values, digits = load_digits(return_X_y=True)
    return values.reshape(-1, 8, 8) / 16.0, digits.astype(np.int64)


def noisy_picture(picture: npt.NDArray[np.float64], level: Level, draw: np.random.Generator) -> bytes:
    """A PNG of 8 x 8 pixels."""
    values = GROUND + CONTRAST * (picture + draw.normal(0, 1, picture.shape) * level.sigma)
    file = io.BytesIO()
    Image.fromarray(np.clip(np.round(values), 0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def noisy_sound(samples: Samples, level: Level, draw: np.random.Generator) -> bytes:
    """A WAV of 16 bits; made quieter where it would be cut off."""
    noise = draw.normal(0, 1, len(samples))
    if level.snr_db is not None:
        power = float(np.mean(np.square(samples, dtype=np.float64)))
        samples = samples + noise * np.sqrt(power / 10 ** (level.snr_db / 10) / np.mean(noise**2))
    file = io.BytesIO()
    soundfile.write(file, samples / max(1.0, float(np.abs(samples).max())), SAMPLE_RATE_HZ, format="WAV")
    return file.getvalue()
