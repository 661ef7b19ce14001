"""Files into numbers: an image's bytes into pixels and a sound's into samples, within bounds on memory and time."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import soundfile
import soxr
from PIL import Image, ImageOps

from noodle_ray.errors import InvalidInput, NoodleError, NotFound, TooLarge
from noodle_ray.fusion import limits as ceilings
from noodle_ray.fusion.limits import DEFAULT, Limits
from noodle_ray.fusion.modality import FIELD_OF, MODALITIES
from noodle_ray.fusion.plain_text import read_text

Pixels = npt.NDArray[np.uint8]
"""(height, width, 3), red, green, blue."""
Samples = npt.NDArray[np.float32]
"""Mono, 16 kHz, -1..1."""
Content = str | bytes

SAMPLE_RATE_HZ = 16_000
SHORT_SIDE, LONG_SIDE = 384, 1536
"""Pictures are made this small: enough for every encoder, and little to send between processes."""

BLOCK_FRAMES = 2**16


def check(items: Iterable[tuple[str, Content]], limits: Limits, candidates: Iterable[tuple[str, Content]] = ()) -> None:
    """Checks what can be known of a request before anything is decoded: how many items there are, and how long.

    `items` and `candidates`: modality and content of each. Raises TooLarge, with the field and the limit.
    """
    counts: Counter[str] = Counter()
    for modality, content in items:
        check_size(modality, content, limits)
        counts[modality] += 1
    for modality, count in counts.items():
        if count > limits.items:
            raise TooLarge(FIELD_OF[modality], count, limits.items, "items")
    _check_candidates(tuple(candidates), limits)


def _check_candidates(candidates: tuple[tuple[str, Content], ...], limits: Limits) -> None:
    if len(candidates) > limits.candidates:
        raise TooLarge("candidates", len(candidates), limits.candidates, "candidates")
    for modality, content in candidates:
        check_size(modality, content, limits)


def check_size(modality: str, content: Content, limits: Limits) -> None:
    """Raises TooLarge for a text with too many characters, or a file with too many bytes; NotFound of the modality."""
    if modality not in FIELD_OF:
        raise NotFound("modality", modality, MODALITIES)
    field = FIELD_OF[modality]
    unit = "bytes" if modality in ("vision", "audio") else "characters"
    limit: int = getattr(limits, f"{field}_{unit}")
    if len(content) > limit and (unit == "bytes" or isinstance(content, str)):
        raise TooLarge(field, len(content), limit, unit)


def decode(modality: str, content: Content, limits: Limits) -> str | Pixels | Samples:
    """The one door for all four: text and code come back as str, a picture as Pixels, a sound as Samples.

    Raises InvalidInput for what is none of its kind, TooLarge for what is over a limit, both with the field's name;
    NotFound for an unknown modality.
    """
    check_size(modality, content, limits)
    match modality, content:
        case "vision", bytes():
            return decode_image(content, limits)
        case "audio", bytes():
            return decode_audio(content, limits)
        case "vision" | "audio", _:
            raise InvalidInput.of(FIELD_OF[modality], "must be a file's bytes")
    return read_text(modality, content, getattr(limits, f"{FIELD_OF[modality]}_characters"))


def decode_image(data: bytes, limits: Limits = DEFAULT) -> Pixels:
    """Decodes the first frame, upright, on white where it is transparent, and shrinks it.

    The shorter side of the result has at most 384 pixels, the longer 1536 (what is beyond is cut off on both ends).
    Raises InvalidInput for what is no such picture, TooLarge for one with too many pixels (before decoding them), or
    that takes more memory than there is.
    """
    check_size("vision", data, limits)
    try:
        with Image.open(io.BytesIO(data), formats=ceilings.IMAGE_FORMATS) as image:
            _check_pixels(image, limits)
            return _pixels(image)
    except NoodleError:
        raise
    except MemoryError:
        raise out_of_memory("image", limits) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        # Pillow's own guard, far above our limit, does not tell the size: it is at least this.
        raise TooLarge("image", Image.MAX_IMAGE_PIXELS or 0, limits.image_pixels, "pixels") from error
    except Exception as error:  # decoders of hostile bytes raise nearly anything; all of it means a bad file
        problem = f"is no readable picture ({', '.join(ceilings.IMAGE_FORMATS)}): {type(error).__name__}"
        raise InvalidInput.of("image", problem) from error


def out_of_memory(field: str, limits: Limits) -> TooLarge:
    """How much it would have taken nobody knows: it is at least one byte more than there is."""
    return TooLarge(field, limits.decoding_bytes + 1, limits.decoding_bytes, "bytes of memory while decoded")


def _check_pixels(image: Image.Image, limits: Limits) -> None:
    if image.width * image.height > limits.image_pixels:
        raise TooLarge("image", image.width * image.height, limits.image_pixels, "pixels")


def _pixels(image: Image.Image) -> Pixels:
    image.draft("RGB", (SHORT_SIDE, SHORT_SIDE))  # lets a JPEG be decoded at a fraction of its size
    ImageOps.exif_transpose(image, in_place=True)
    # First small, then on white: large layers would take several times a picture's memory.
    return np.asarray(_on_white(_shrunk(_in_few_modes(image))), np.uint8)


def _in_few_modes(image: Image.Image) -> Image.Image:
    """As L, RGB or RGBA, which can be shrunk."""
    if image.mode.startswith("I;16"):  # 16 bits of grey: Pillow's own conversion would cut off the bright half
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image if image.mode == "L" else image.convert("RGB")


def _shrunk(image: Image.Image) -> Image.Image:
    scale = min(1.0, SHORT_SIDE / min(image.size))
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    width, height = (min(side, LONG_SIDE) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image)
        image = white
    return image.convert("RGB")


def decode_audio(data: bytes, limits: Limits = DEFAULT) -> Samples:
    """Decodes a sound, mixes its channels and resamples it to 16 kHz.

    Raises InvalidInput for what is no such sound, is empty or holds samples that are no numbers, TooLarge for one
    that is too long (before decoding the rest), or that takes more memory than there is.
    """
    check_size("audio", data, limits)
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as sound:
            _check_sound(sound, limits)
            samples = _read(sound, limits)
            rate = int(sound.samplerate)
    except MemoryError:
        raise out_of_memory("audio", limits) from None
    except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError, OSError) as error:
        problem = f"is no readable sound ({', '.join(ceilings.AUDIO_FORMATS)}): {type(error).__name__}"
        raise InvalidInput.of("audio", problem) from error
    return _resampled(samples, rate)


def _check_sound(sound: soundfile.SoundFile, limits: Limits) -> None:
    slowest, fastest = ceilings.AUDIO_RATES_HZ
    if sound.format not in ceilings.AUDIO_FORMATS:
        raise InvalidInput.of(
            "audio", f"has the wrong format; allowed are {', '.join(ceilings.AUDIO_FORMATS)}", sound.format
        )
    if not slowest <= sound.samplerate <= fastest:
        raise InvalidInput.of("audio", f"must have {slowest} to {fastest} samples a second", sound.samplerate)
    if sound.channels > ceilings.AUDIO_CHANNELS:
        raise TooLarge("audio", sound.channels, ceilings.AUDIO_CHANNELS, "channels")
    _check_length(sound.frames, sound.samplerate, limits)


def _check_length(frames: int, rate: int, limits: Limits) -> None:
    if frames > limits.audio_seconds * rate:
        per_second, unit = (1, "seconds") if limits.audio_seconds.is_integer() else (1000, "ms")
        size, limit = math.ceil(frames * per_second / rate), math.floor(limits.audio_seconds * per_second)
        raise TooLarge("audio", size, limit, unit)


def _read(sound: soundfile.SoundFile, limits: Limits) -> Samples:
    blocks = list(_mixed_blocks(sound, limits))
    if not blocks:
        raise InvalidInput.of("audio", "holds no samples")
    return np.concatenate(blocks)


def _mixed_blocks(sound: soundfile.SoundFile, limits: Limits) -> Iterator[Samples]:
    """Block by block, so that eight channels take little memory, and as a header may lie about the length."""
    frames = 0
    while len(block := sound.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
        frames += len(block)
        _check_length(frames, sound.samplerate, limits)
        if not np.isfinite(block).all():
            raise InvalidInput.of("audio", "holds samples that are no finite numbers")
        # Clipped before they are mixed: the sum of numbers near the largest would be infinite.
        yield block.clip(-1.0, 1.0).mean(axis=1, dtype=np.float32)


def _resampled(samples: Samples, rate: int) -> Samples:
    if rate != SAMPLE_RATE_HZ:
        samples = np.asarray(soxr.resample(samples, rate, SAMPLE_RATE_HZ), np.float32)
    if not len(samples):
        raise InvalidInput.of("audio", "is too short to hold a single sample at 16 kHz")
    return np.clip(samples, -1.0, 1.0)
