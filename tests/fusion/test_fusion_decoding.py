"""Files into pixels and samples; broken, lying and enormous ones are refused with a typed error."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fusion_media import picture, sound
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from noodle_ray.errors import InvalidInput, TooLarge
from noodle_ray.fusion import limits
from noodle_ray.fusion.decoding import LONG_SIDE, SHORT_SIDE, decode_audio, decode_image

TONE = np.sin(np.arange(8000) / 8).astype(np.float32) * 0.5


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_pictures_of_all_kinds_come_out_as_rgb(kind: str) -> None:
    pixels = decode_image(picture((40, 30), kind=kind, color=(250, 10, 10)))
    assert (pixels.shape, pixels.dtype) == ((30, 40, 3), np.uint8)
    assert pixels[15, 20, 0] > 200 > 60 > pixels[15, 20, 1]


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("L", 100, 100),
        ("1", 1, 255),
        ("P", 0, 0),
        ("RGBA", (0, 0, 0, 0), 255),
        ("LA", (0, 255), 0),
        ("I;16", 65535, 255),
        ("CMYK", (0, 0, 0, 0), 255),
    ],
)
def test_every_mode_becomes_rgb_and_transparency_white(mode: str, color: object, expected: int) -> None:
    kind = "JPEG" if mode == "CMYK" else "PNG"
    pixels = decode_image(picture((9, 9), mode, kind, color))
    assert abs(int(pixels[4, 4, 0]) - expected) <= 2


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(1, 40))
def test_pictures_are_shrunk_never_stretched(width: int, height: int) -> None:
    pixels = decode_image(picture((width, height), "L", "BMP"))
    assert min(pixels.shape[:2]) == min(width, height, SHORT_SIDE)
    assert max(pixels.shape[:2]) == min(max(width, height), LONG_SIDE)


def test_large_pictures_are_shrunk_to_the_short_side() -> None:
    assert decode_image(picture((2000, 1000))).shape == (SHORT_SIDE, 2 * SHORT_SIDE, 3)


def test_the_camera_orientation_is_honoured() -> None:
    image = Image.new("RGB", (20, 10))
    exif = image.getexif()
    exif[0x0112] = 6
    file = io.BytesIO()
    image.save(file, "JPEG", exif=exif)
    assert decode_image(file.getvalue()).shape == (20, 10, 3)


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 40_000, 2_000_000])
def test_decompression_bombs_are_refused_before_decoding(side: int) -> None:
    with pytest.raises(TooLarge) as caught:
        decode_image(png_that_claims(side, side))
    assert (caught.value.field, caught.value.unit) == ("image", "pixels")


@pytest.mark.parametrize(
    "data",
    [
        b"no picture",
        b"\x89PNG\r\n\x1a\n",
        picture((300, 300), "RGB", "JPEG")[:400],
        png_that_claims(500, 500),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.4 nothing",
        picture(kind="TIFF"),
    ],
)
def test_what_is_no_whole_picture_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode_image(data)
    assert caught.value.faults[0].field == "image"


def test_too_many_bytes_are_refused() -> None:
    with pytest.raises(TooLarge):
        decode_image(b"x" * (limits.IMAGE_BYTES + 1))
    with pytest.raises(TooLarge):
        decode_audio(b"x" * (limits.AUDIO_BYTES + 1))


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=150, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "BMP"]), st.integers(0, 2000), st.binary(min_size=1, max_size=9))
def test_damaged_pictures_decode_or_are_refused(kind: str, position: int, noise: bytes) -> None:
    data = bytearray(picture((64, 48), kind=kind, color=(9, 99, 200)))
    start = position % len(data)
    data[start : start + len(noise)] = noise
    try:
        assert decode_image(bytes(data)).shape[2] == 3
    except (InvalidInput, TooLarge) as error:
        assert "image" in str(error)


@pytest.mark.parametrize(("kind", "subtype"), [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", None)])
def test_sounds_of_all_kinds_come_out_as_16_khz(kind: str, subtype: str | None) -> None:
    samples = decode_audio(sound(np.stack([TONE, TONE], 1), 8000, kind, subtype))
    assert (samples.ndim, samples.dtype) == (1, np.float32)
    assert abs(len(samples) - 16_000) < 2500  # lossy formats pad their ends
    assert 0.3 < np.abs(samples).max() <= 1.0


@settings(deadline=None)
@given(st.integers(4_000, 96_000), st.integers(1, 3), st.integers(50, 400))
def test_resampling_keeps_the_duration(rate: int, channels: int, length: int) -> None:
    samples = decode_audio(sound(np.zeros((length * 100, channels), np.float32), rate))
    assert abs(len(samples) / 16_000 - length * 100 / rate) < 0.001


def test_channels_are_mixed() -> None:
    both = np.stack([np.full(1600, 0.5), np.full(1600, -0.1)], 1)
    assert np.allclose(decode_audio(sound(both)), 0.2, atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_refused(bad: float) -> None:
    samples = TONE.copy()
    samples[7] = bad
    with pytest.raises(InvalidInput, match="finite"):
        decode_audio(sound(samples))


def test_samples_beyond_full_scale_are_clipped() -> None:
    assert np.abs(decode_audio(sound(TONE * 10))).max() == 1.0


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"no sound", "no readable sound"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "no readable sound"),
        (sound(np.zeros(0, np.float32)), "no samples"),
        (sound(np.zeros(1, np.float32), 96_000), "too short"),
        (sound(TONE, 8000, "AIFF"), "wrong format"),
        (sound(TONE, 1000), "samples a second"),
        (sound(TONE, 400_000), "samples a second"),
    ],
    ids=range(7),  # a sound's file holds the time at which it was written
)
def test_what_is_no_usable_sound_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem) as caught:
        decode_audio(data)
    assert caught.value.faults[0].field == "audio"


def test_long_sounds_are_refused_with_the_limit_in_seconds() -> None:
    with pytest.raises(TooLarge) as caught:
        decode_audio(sound(np.zeros(31 * 8000, np.float32), 8000, subtype="PCM_16"))
    assert (caught.value.size, caught.value.limit, caught.value.unit) == (31, 30, "seconds")


def test_hours_of_sound_in_few_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "long.flac"
    with soundfile.SoundFile(path, "w", 8000, 1, format="FLAC", subtype="PCM_16") as file:
        for _ in range(60):
            file.write(np.zeros(8000 * 60, np.int16))
    assert path.stat().st_size < limits.AUDIO_BYTES
    with pytest.raises(TooLarge, match="seconds"):
        decode_audio(path.read_bytes())


def test_a_header_that_claims_hours_is_refused_or_read_as_far_as_it_goes() -> None:
    data = bytearray(sound(TONE, 8000, "WAV", "PCM_16"))
    position = data.index(b"data") + 4
    data[position : position + 4] = struct.pack("<I", 2**31)
    try:
        assert len(decode_audio(bytes(data))) <= 16_000
    except (InvalidInput, TooLarge) as error:
        assert "audio" in str(error)


def test_many_channels_are_refused() -> None:
    with pytest.raises(TooLarge, match="channels"):
        decode_audio(sound(np.zeros((100, 9), np.float32)))


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=150, deadline=None)
@given(st.sampled_from(["WAV", "FLAC", "OGG", "MP3"]), st.integers(0, 3000), st.binary(min_size=1, max_size=9))
def test_damaged_sounds_decode_or_are_refused(kind: str, position: int, noise: bytes) -> None:
    subtype = {"WAV": "PCM_16", "FLAC": "PCM_16", "OGG": "VORBIS", "MP3": None}[kind]
    data = bytearray(sound(TONE, 8000, kind, subtype))
    start = position % len(data)
    data[start : start + len(noise)] = noise
    try:
        samples = decode_audio(bytes(data))
        assert np.isfinite(samples).all()
        assert len(samples) <= limits.AUDIO_SECONDS * 16_000
    except (InvalidInput, TooLarge) as error:
        assert "audio" in str(error)
