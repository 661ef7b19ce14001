"""Files into numbers: an image's bytes into pixels and a sound's into samples, within bounds on memory and time."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import soundfile
import soxr
from PIL import Image, ImageOps

from noodle_ray.errors import InvalidInput, NoodleError, TooLarge
from noodle_ray.fusion import limits

Pixels = npt.NDArray[np.uint8]
"""(height, width, 3), red, green, blue."""
Samples = npt.NDArray[np.float32]
"""Mono, 16 kHz, -1..1."""

SAMPLE_RATE_HZ = 16_000
SHORT_SIDE, LONG_SIDE = 384, 1536
"""Pictures are made this small: enough for every encoder, and little to send between processes."""


def decode_image(data: bytes) -> Pixels:
    """Decodes the first frame, upright, on white where it is transparent, and shrinks it.

    The shorter side of the result has at most 384 pixels, the longer 1536 (what is beyond is cut off on both ends).
    Raises InvalidInput for what is no such picture, TooLarge for one with too many pixels (before decoding them).
    """
    if len(data) > limits.IMAGE_BYTES:
        raise TooLarge("image", len(data), limits.IMAGE_BYTES, "bytes")
    try:
        with Image.open(io.BytesIO(data), formats=limits.IMAGE_FORMATS) as image:
            _check_pixels(image)
            return _pixels(image)
    except NoodleError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        # Pillow's own guard, far above our limit, does not tell the size: it is at least this.
        raise TooLarge("image", Image.MAX_IMAGE_PIXELS or 0, limits.IMAGE_PIXELS, "pixels") from error
    except Exception as error:  # decoders of hostile bytes raise nearly anything; all of it means a bad file
        problem = f"is no readable picture ({', '.join(limits.IMAGE_FORMATS)}): {type(error).__name__}"
        raise InvalidInput.of("image", problem) from error


def _check_pixels(image: Image.Image) -> None:
    if image.width * image.height > limits.IMAGE_PIXELS:
        raise TooLarge("image", image.width * image.height, limits.IMAGE_PIXELS, "pixels")


def _pixels(image: Image.Image) -> Pixels:
    image.draft("RGB", (SHORT_SIDE, SHORT_SIDE))  # lets a JPEG be decoded at a fraction of its size
    upright = ImageOps.exif_transpose(image)
    return np.asarray(_shrunk(_in_rgb(upright)), np.uint8)


def _in_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # 16 bits of grey: Pillow's own conversion would cut off the bright half
        image = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.new("RGBA", layer.size, "white")
        image.alpha_composite(layer)
    return image.convert("RGB")


def _shrunk(image: Image.Image) -> Image.Image:
    scale = min(1.0, SHORT_SIDE / min(image.size))
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    width, height = (min(side, LONG_SIDE) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def decode_audio(data: bytes) -> Samples:
    """Decodes a sound, mixes its channels and resamples it to 16 kHz.

    Raises InvalidInput for what is no such sound, is empty or holds samples that are no numbers, TooLarge for one
    that is longer than 30 s (before decoding the rest).
    """
    if len(data) > limits.AUDIO_BYTES:
        raise TooLarge("audio", len(data), limits.AUDIO_BYTES, "bytes")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as sound:
            _check_sound(sound)
            samples = _read(sound)
            rate = int(sound.samplerate)
    except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError, OSError) as error:
        problem = f"is no readable sound ({', '.join(limits.AUDIO_FORMATS)}): {type(error).__name__}"
        raise InvalidInput.of("audio", problem) from error
    return _resampled(samples, rate)


def _check_sound(sound: soundfile.SoundFile) -> None:
    slowest, fastest = limits.AUDIO_RATES_HZ
    if sound.format not in limits.AUDIO_FORMATS:
        raise InvalidInput.of(
            "audio", f"has the wrong format; allowed are {', '.join(limits.AUDIO_FORMATS)}", sound.format
        )
    if not slowest <= sound.samplerate <= fastest:
        raise InvalidInput.of("audio", f"must have {slowest} to {fastest} samples a second", sound.samplerate)
    if sound.channels > limits.AUDIO_CHANNELS:
        raise TooLarge("audio", sound.channels, limits.AUDIO_CHANNELS, "channels")
    _check_length(sound.frames, sound.samplerate)


def _check_length(frames: int, rate: int) -> None:
    if frames > limits.AUDIO_SECONDS * rate:
        raise TooLarge("audio", -(-frames // rate), int(limits.AUDIO_SECONDS), "seconds")


def _read(sound: soundfile.SoundFile) -> Samples:
    # A header may lie about the length: one frame more than allowed is enough to know.
    wanted = int(limits.AUDIO_SECONDS * sound.samplerate) + 1
    frames = sound.read(wanted, dtype="float32", always_2d=True)
    _check_length(len(frames), sound.samplerate)
    if not len(frames):
        raise InvalidInput.of("audio", "holds no samples")
    if not np.isfinite(frames).all():
        raise InvalidInput.of("audio", "holds samples that are no finite numbers")
    mono: Samples = frames.mean(axis=1, dtype=np.float32)
    return mono


def _resampled(samples: Samples, rate: int) -> Samples:
    if rate != SAMPLE_RATE_HZ:
        samples = np.asarray(soxr.resample(samples, rate, SAMPLE_RATE_HZ), np.float32)
    if not len(samples):
        raise InvalidInput.of("audio", "is too short to hold a single sample at 16 kHz")
    return np.clip(samples, -1.0, 1.0)
