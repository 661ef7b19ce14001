"""Files and texts that are broken, enormous, lying or mislabelled, with what a service answers to each.

For every door through which they may come: `HOSTILE` has the modality, the content and the error that is expected.
"""

from __future__ import annotations

import base64
import io
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from fusion_media import picture, sound
from PIL import Image

from noodle_ray.errors import InvalidInput, TooLarge
from noodle_ray.fusion.limits import DEFAULT

TONE = np.sin(np.arange(8000) / 8).astype(np.float32) * 0.5


@dataclass(frozen=True)
class Hostile:
    """`expected`: the error; None where it is good after all; both where it depends on the library's version.

    bounded: only a decoder with a limit on its time refuses it; without one it runs for minutes.
    """

    name: str
    modality: str
    make: Callable[[], str | bytes]
    expected: tuple[type[InvalidInput] | type[TooLarge] | None, ...]
    bounded: bool = False

    def content(self) -> str | bytes:
        return _made(self.make)

    def __str__(self) -> str:
        return f"{self.modality}: {self.name}"


@cache
def _made(make: Callable[[], str | bytes]) -> str | bytes:
    return make()


# -- pictures


def png(width: int, height: int, rows: bytes = b"", *extra: tuple[bytes, bytes], bits: int = 8, kind: int = 2) -> bytes:
    """A PNG of chosen chunks: `rows` are compressed; `extra` chunks come before them."""
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def one_colour_png(side: int) -> bytes:
    """Black and white, complete: a few thousandths of a byte per pixel."""
    return png(side, side, (b"\0" * (1 + -(-side // 8))) * side, bits=1, kind=0)


def text_bomb_png() -> bytes:
    """100 MB of text, compressed, in a picture of four pixels."""
    text = b"comment\0\0" + zlib.compress(b"a" * 100_000_000, 9)
    return png(2, 2, b"\0" * 14, (b"zTXt", text))


def profile_bomb_png() -> bytes:
    return png(2, 2, b"\0" * 14, (b"iCCP", b"profile\0\0" + zlib.compress(b"\0" * 100_000_000, 9)))


def jpeg_that_claims(width: int, height: int) -> bytes:
    data = bytearray(picture((64, 64), kind="JPEG"))
    position = data.index(b"\xff\xc0") + 5
    data[position : position + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def jpeg_of_many_scans(side: int = 6000, scans: int = 20_000) -> bytes:
    """A progressive JPEG whose last scan comes again and again: each goes through all pixels, and is a few bytes."""
    file = io.BytesIO()
    Image.new("L", (side, side), 128).save(file, "JPEG", progressive=True)
    data = file.getvalue().removesuffix(b"\xff\xd9")
    last = data[data.rindex(b"\xff\xda") :]
    return data + last * scans + b"\xff\xd9"


def gif(screen: tuple[int, int], frame: tuple[int, int], frames: int) -> bytes:
    """A GIF of one-pixel images, whatever its frames claim."""
    one = b"," + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\x02\x02\x44\x01\x00"
    return b"GIF89a" + struct.pack("<HHBBB", *screen, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff" + one * frames + b";"


def animated_webp() -> bytes:
    frames = [Image.new("RGB", (64, 48), (9 * index, 0, 0)) for index in range(20)]
    file = io.BytesIO()
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:])
    return file.getvalue()


def jpeg_with_exif(body: bytes) -> bytes:
    plain = picture((30, 20), kind="JPEG")
    exif = b"Exif\0\0" + body
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]


def endless_exif() -> bytes:
    """The directory's next directory is itself, and one of its entries claims four thousand million values."""
    entries = struct.pack("<HHII", 0x0112, 3, 0xFFFFFFFF, 8) + struct.pack("<HHII", 0x8769, 4, 1, 8)
    return jpeg_with_exif(b"II*\0\x08\0\0\0" + struct.pack("<H", 2) + entries + struct.pack("<I", 8))


def orientation(value: int, kind: int) -> bytes:
    entry = struct.pack("<HHII", 0x0112, kind, 1, value)
    return jpeg_with_exif(b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + entry + struct.pack("<I", 0))


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("bomb", b"\0" * 10_000_000)
    return file.getvalue()


# -- sounds


def wav_that_claims(seconds: int, channels: int = 1, rate: int = 8000) -> bytes:
    """One second of tone whose header says something else."""
    data = bytearray(sound(TONE, 8000, subtype="PCM_16"))
    struct.pack_into("<HI", data, data.index(b"fmt ") + 10, channels, rate)
    struct.pack_into("<I", data, data.index(b"data") + 4, seconds * 16_000)
    return bytes(data)


def flac_that_claims(frames: int) -> bytes:
    data = bytearray(sound(TONE, 8000, "FLAC", "PCM_16"))
    position = 4 + 4 + 13  # the mark, the block's header, up to the byte in which the number of frames begins
    data[position] = (data[position] & 0xF0) | frames >> 32
    struct.pack_into(">I", data, position + 1, frames & 0xFFFFFFFF)
    return bytes(data)


def noise(count: int, seed: int = 5) -> bytes:
    return random.Random(seed).randbytes(count)


def samples_with(value: float) -> bytes:
    samples = TONE.copy()
    samples[5000] = value
    return sound(samples)


def _mp3() -> bytes:
    return sound(TONE, 8000, "MP3", None)


def _ogg() -> bytes:
    return sound(TONE, 8000, "OGG", "VORBIS")


_ANY = (None, InvalidInput, TooLarge)
_BAD, _LARGE, _GOOD = (InvalidInput,), (TooLarge,), (None,)

PICTURES = [
    Hostile("nothing", "vision", lambda: b"", _BAD),
    Hostile("noise", "vision", lambda: noise(5000), _BAD),
    Hostile("one byte", "vision", lambda: b"\xff", _BAD),
    Hostile("half a JPEG", "vision", lambda: picture((300, 300), kind="JPEG")[:400], _BAD),
    Hostile("a PNG without its end", "vision", lambda: png(500, 500, b"\0" * 100), _BAD),
    Hostile("a PNG of 400 megapixels in 50 KB", "vision", lambda: one_colour_png(20_000), _LARGE),
    Hostile("a PNG of 36 megapixels in 5 KB", "vision", lambda: one_colour_png(6_000), _GOOD),
    Hostile("a PNG that claims 4 terapixels", "vision", lambda: png(2_000_000, 2_000_000), _LARGE),
    Hostile("a PNG without pixels", "vision", lambda: png(0, 0), _BAD),
    Hostile("a PNG with 100 MB of text", "vision", text_bomb_png, _ANY),
    Hostile("a PNG with a colour profile of 100 MB", "vision", profile_bomb_png, _ANY),
    Hostile("a JPEG that claims 100 megapixels", "vision", lambda: jpeg_that_claims(10_000, 10_000), _LARGE),
    Hostile("a JPEG without a height", "vision", lambda: jpeg_that_claims(64, 0), _BAD),
    Hostile("a JPEG of 20,000 scans", "vision", jpeg_of_many_scans, _LARGE, bounded=True),
    Hostile("a GIF of 10,000 frames", "vision", lambda: gif((1, 1), (1, 1), 10_000), _GOOD),
    Hostile("a GIF whose frame is larger than its screen", "vision", lambda: gif((1, 1), (65535, 65535), 1), _LARGE),
    Hostile("an animated WebP", "vision", animated_webp, _GOOD),
    Hostile("EXIF that never ends", "vision", endless_exif, _ANY),
    Hostile("EXIF with an orientation of its own", "vision", lambda: orientation(77, 3), _GOOD),
    Hostile("EXIF whose orientation is no number", "vision", lambda: orientation(6, 2), _ANY),
    Hostile("one pixel wide, 65,535 high", "vision", lambda: picture((1, 65_535), "L"), _GOOD),
    Hostile("65,535 wide, one pixel high", "vision", lambda: picture((65_535, 1), "L", "BMP"), _GOOD),
    Hostile("an SVG", "vision", lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", _BAD),
    Hostile("a web page", "vision", lambda: b"<!doctype html><script>alert(1)</script>", _BAD),
    Hostile("an archive", "vision", archive, _BAD),
    Hostile("a PDF", "vision", lambda: b"%PDF-1.7 nothing", _BAD),
    Hostile("PostScript", "vision", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", _BAD),
    Hostile("a TIFF", "vision", lambda: picture(kind="TIFF"), _BAD),
    Hostile("an archive that begins as a PNG", "vision", lambda: b"\x89PNG\r\n\x1a\n" + archive(), _BAD),
    Hostile("a sound", "vision", lambda: sound(TONE), _BAD),
    Hostile("a PNG as base64", "vision", lambda: base64.b64encode(picture()), _BAD),
    Hostile("one byte too many", "vision", lambda: picture() + bytes(DEFAULT.image_bytes), _LARGE),
]

SOUNDS = [
    Hostile("nothing", "audio", lambda: b"", _BAD),
    Hostile("noise", "audio", lambda: noise(5000), _BAD),
    Hostile("a WAV's first bytes", "audio", lambda: b"RIFF\x24\0\0\0WAVEfmt ", _BAD),
    Hostile("no samples", "audio", lambda: sound(np.zeros(0, np.float32)), _BAD),
    Hostile("too short for one sample", "audio", lambda: sound(np.zeros(1, np.float32), 96_000), _BAD),
    Hostile("a WAV that claims 10 hours", "audio", lambda: wav_that_claims(36_000), _ANY),
    Hostile("a FLAC that claims 10 hours", "audio", lambda: flac_that_claims(36_000 * 8000), _LARGE),
    Hostile("31 seconds", "audio", lambda: sound(np.zeros(31 * 8000, np.float32), 8000, "FLAC", "PCM_16"), _LARGE),
    Hostile("no channels", "audio", lambda: wav_that_claims(1, channels=0), _BAD),
    Hostile("60,000 channels", "audio", lambda: wav_that_claims(1, channels=60_000), (InvalidInput, TooLarge)),
    Hostile("nine channels", "audio", lambda: sound(np.zeros((100, 9), np.float32)), _LARGE),
    Hostile("no rate", "audio", lambda: wav_that_claims(1, rate=0), _BAD),
    Hostile("4 GHz", "audio", lambda: wav_that_claims(1, rate=4_000_000_000), _BAD),
    Hostile("NaN", "audio", lambda: samples_with(np.nan), _BAD),
    Hostile("infinity", "audio", lambda: samples_with(-np.inf), _BAD),
    Hostile("samples near the largest number", "audio", lambda: samples_with(3e38), _GOOD),
    Hostile("an MP3 between noise", "audio", lambda: noise(3000) + _mp3() + noise(3000), _ANY),
    Hostile("half an Ogg", "audio", lambda: _ogg()[: len(_ogg()) // 2], _ANY),
    Hostile("half a FLAC", "audio", lambda: sound(TONE, 8000, "FLAC", "PCM_16")[:1500], _ANY),
    Hostile("an AIFF", "audio", lambda: sound(TONE, 8000, "AIFF"), _BAD),
    Hostile("a JPEG", "audio", lambda: picture(kind="JPEG"), _BAD),
    Hostile("an archive", "audio", archive, _BAD),
    Hostile("a text", "audio", lambda: b"RIFF is a word, too", _BAD),
    Hostile("one byte too many", "audio", lambda: sound(TONE) + bytes(DEFAULT.audio_bytes), _LARGE),
]


def _texts(modality: str, limit: int) -> list[Hostile]:
    return [
        Hostile("nothing", modality, lambda: "", _BAD),
        Hostile("spaces", modality, lambda: " \n\t\u2003", _BAD),
        Hostile("a byte order mark alone", modality, lambda: "\ufeff", _BAD),
        Hostile("a byte order mark before it", modality, lambda: "\ufeffa cat on a mat", _GOOD),
        Hostile("a NUL character", modality, lambda: "a\0b", _BAD),
        Hostile("a lone surrogate", modality, lambda: "a \ud83d cat", _BAD),
        Hostile("a low surrogate at the end", modality, lambda: "cat\udc00", _BAD),
        Hostile("one character too many", modality, lambda: "x" * (limit + 1), _LARGE),
        Hostile("a line of 10 MB", modality, lambda: "x" * 10_000_000, _LARGE),
        Hostile("as many characters as allowed", modality, lambda: "é" * limit, _GOOD),
        Hostile("a binary file read as Latin-1", modality, lambda: _without_nul(noise(3000)), _BAD),
        Hostile("a binary file read as UTF-8", modality, lambda: noise(3000).decode(errors="replace"), _BAD),
        Hostile("a picture", modality, lambda: _without_nul(picture((64, 64), kind="JPEG")), _BAD),
        Hostile("control characters", modality, lambda: "\x01\x02\x03 run", _BAD),
        Hostile("colours of a terminal", modality, lambda: "\x1b[31mfailed\x1b[0m\r\n", _GOOD),
        Hostile("combining marks without end", modality, lambda: "a" + "\u0301" * (limit - 1), _GOOD),
        Hostile("text that turns its direction", modality, lambda: "a\u202e = 1\u202c", _GOOD),
    ]


def _without_nul(data: bytes) -> str:
    return data.decode("latin-1").replace("\0", "")


HOSTILE = [*PICTURES, *SOUNDS, *_texts("text", DEFAULT.text_characters), *_texts("code", DEFAULT.code_characters)]
