"""Real files of every format that is decoded, and ways to damage them."""

from __future__ import annotations

import io
import random
import struct
from functools import cache

import numpy as np
import soundfile
from fusion_media import sound
from PIL import Image

PICTURES = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "progressive JPEG", "palette PNG", "lossless WEBP")
SOUNDS = ("WAV", "FLAC", "OGG", "MP3", "float WAV", "ADPCM WAV", "stereo FLAC")
FORMATS = {"vision": PICTURES, "audio": SOUNDS}
_EXTREMES = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFF, 0x10000)


@cache
def real_file(name: str) -> bytes:
    """A small file with something in it: a gradient and noise, or two tones."""
    return _sound(name) if name in SOUNDS else _picture(name)


def _picture(name: str) -> bytes:
    noise = np.random.default_rng(7).integers(0, 60, (48, 64, 3))
    gradient = np.linspace(0, 190, 64, dtype=int)[None, :, None]
    image = Image.fromarray((noise + gradient).astype(np.uint8))
    file = io.BytesIO()
    match name:
        case "progressive JPEG":
            image.save(file, "JPEG", progressive=True)
        case "palette PNG":
            image.quantize(40).save(file, "PNG", transparency=3)
        case "lossless WEBP":
            image.convert("RGBA").save(file, "WEBP", lossless=True)
        case _:
            image.save(file, name)
    return file.getvalue()


def _sound(name: str) -> bytes:
    time = np.arange(4000)
    tones = (np.sin(time / 5) * 0.3 + np.sin(time / 19) * 0.3).astype(np.float32)
    match name:
        case "float WAV":
            return sound(tones, 8000)
        case "ADPCM WAV":
            return sound(tones, 8000, "WAV", "IMA_ADPCM")
        case "stereo FLAC":
            return sound(np.stack([tones, -tones], 1), 44_100, "FLAC", "PCM_24")
    subtypes = {"WAV": "PCM_16", "FLAC": "PCM_16", "OGG": "VORBIS", "MP3": soundfile.default_subtype("MP3")}
    return sound(tones, 8000, name, subtypes[name])


def damaged(data: bytes, chance: random.Random, others: tuple[bytes, ...] = ()) -> bytes:
    """The file after one to three damages, drawn by `chance`: it may be good still, and is never empty."""
    for _ in range(chance.randint(1, 3)):
        damage = chance.choice(_DAMAGES)
        data = damage(bytearray(data), chance, others) or b"\0"
    return data


def _flip_bits(data: bytearray, chance: random.Random, others: tuple[bytes, ...]) -> bytes:
    for _ in range(chance.choice((1, 1, 3, 30))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def _cut_off(data: bytearray, chance: random.Random, others: tuple[bytes, ...]) -> bytes:
    return bytes(data[: chance.randrange(len(data))])


def _cut_out(data: bytearray, chance: random.Random, others: tuple[bytes, ...]) -> bytes:
    start = chance.randrange(len(data))
    del data[start : start + chance.randrange(200)]
    return bytes(data)


def _repeat(data: bytearray, chance: random.Random, others: tuple[bytes, ...]) -> bytes:
    start = chance.randrange(len(data))
    part = data[start : start + chance.randrange(1, 300)]
    return bytes(data[:start] + part * chance.choice((2, 50)) + data[start:])


def _lie(data: bytearray, chance: random.Random, others: tuple[bytes, ...]) -> bytes:
    """An extreme number in the header, of either byte order."""
    position = chance.randrange(min(len(data), 80))
    number = struct.pack(chance.choice(("<I", ">I")), chance.choice(_EXTREMES))
    data[position : position + chance.choice((2, 4))] = number
    return bytes(data)


def _append(data: bytearray, chance: random.Random, others: tuple[bytes, ...]) -> bytes:
    other = chance.choice((*others, chance.randbytes(500)))
    return bytes(data + other) if chance.random() < 0.5 else other + bytes(data)


_DAMAGES = (_flip_bits, _cut_off, _cut_out, _repeat, _lie, _lie, _append)
